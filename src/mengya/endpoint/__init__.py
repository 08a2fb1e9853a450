"""A client of OpenAI-compatible endpoints: messages in, completions out. Knows nothing of models or data."""
