"""The report of a sweep or of a run: one self-contained HTML file."""
