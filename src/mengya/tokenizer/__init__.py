"""Text <-> token ids: training, loading, the chat template, decoding of streams, a report."""
