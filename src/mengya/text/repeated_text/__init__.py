"""Passages (long lines, or any run of characters) that several texts have in common, and their removal."""
