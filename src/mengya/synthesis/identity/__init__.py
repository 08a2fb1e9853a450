"""Self-introductions of a model, composed by rules from parts of our own, without any endpoint."""
