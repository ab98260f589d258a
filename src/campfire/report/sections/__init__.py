"""What every format shows after the comparison: a section a file, of words, tables and figures."""
