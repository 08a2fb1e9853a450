"""Exam items in training text: which of them stand in a text, whatever its punctuation and white space."""
