"""Conversations that are made: from documents, from seed instructions, and about the model itself."""
