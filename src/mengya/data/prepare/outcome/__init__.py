"""What became of the records of a run: of a chunk, of a source, in numbers and examples."""
