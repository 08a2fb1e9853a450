"""Self-introductions of a model, composed by rules from parts written for this project; no endpoint is needed."""
