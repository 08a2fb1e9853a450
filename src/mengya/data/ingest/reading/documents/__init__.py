"""PDF, Word, EPUB and HTML files -> their text: one document a file."""
