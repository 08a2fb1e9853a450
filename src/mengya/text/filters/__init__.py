"""Filters and edits of text: each filter gives the reason for which a document is dropped, or None."""
