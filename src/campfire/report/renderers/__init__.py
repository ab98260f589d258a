"""The formats of a report: terminal, Markdown, CSV and LaTeX, and one HTML page."""
