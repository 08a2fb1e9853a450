"""Raw records -> token ids: all that one process does to a chunk."""
