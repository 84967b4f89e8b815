"""Files that this package writes and reads again: `document` for the file, `fields` for values."""
