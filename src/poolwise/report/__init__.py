"""Reports of a fit: the page, the note, the terminal lines."""
