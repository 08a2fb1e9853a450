"""Minimal pairs and cloze in Chinese, made by rules from hand-written lexicons; scored by likelihood."""
