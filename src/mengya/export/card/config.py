"""What the user says for the model card; all else comes from files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from mengya.config import Config


class CardConfig(Config):
    language: Literal["en", "zh"] = "en"
    """Language of the card's text."""
    name: str | None = Field(default=None, min_length=1)
    """Name of the model; null: that of the run, or of the checkpoint's folder."""
    about: Path | None = None
    """Markdown file of your own that follows the title, as it is."""
    license: str | None = Field(default=None, min_length=1)
    """License of the weights, as the hub writes it: apache-2.0, mit, cc-by-nc-4.0, ...; null: unknown."""
    languages: list[str] = ["zh"]
    """Languages that the model knows, as ISO 639-1 codes."""
    base_model: str | None = Field(default=None, min_length=1)
    """Name on the hub of the model that training started from; null: none is named."""
    tags: list[str] = []
    """Further tags for the hub."""
