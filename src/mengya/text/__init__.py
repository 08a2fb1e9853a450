"""What can be done to text alone: cleaning, filters, hashes of what is equal. Knows no files, formats or tokens."""
