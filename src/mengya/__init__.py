"""mengya (萌芽): grow a small Chinese language model from nothing."""

__version__ = "0.1.0"
