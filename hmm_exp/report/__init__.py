"""The report of a sweep, of a panel or of a run: one self-contained HTML file."""
