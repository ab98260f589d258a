"""Drawings: SVG text, and the kinds of chart that figures are made of."""
