"""What can be done to text alone: cleaning, limits, duplicates. Knows no files, formats or tokens."""
