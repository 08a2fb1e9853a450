"""Samples that nearly equal an earlier one, and passages that stand in several."""
