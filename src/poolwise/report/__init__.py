"""What is said of a fit: the page, the note, the lines at the terminal."""
