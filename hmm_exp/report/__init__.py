"""The report of a sweep or of a run: one HTML file that needs nothing else."""
