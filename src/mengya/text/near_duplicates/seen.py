"""Texts one by one -> whether each nearly equals one that came before."""

from __future__ import annotations

import numpy as np

from mengya.text.near_duplicates.config import NearDuplicateConfig
from mengya.text.near_duplicates.index import KeyIndex
from mengya.text.near_duplicates.method import keys, near, signatures


class SeenTexts:
    """For thousands of texts: their signatures are held in memory."""

    def __init__(self, config: NearDuplicateConfig) -> None:
        self._config = config
        self._index = KeyIndex()
        self._signatures = np.zeros((1024, config.signature_bytes), np.uint8)

    def __call__(self, text: str) -> bool:
        """Whether the text nearly equals one that was given before; if not, it counts as given."""
        signed = signatures([text], self._config)
        text_keys = keys(signed, self._config)
        earlier = self._index.candidates(text_keys).earlier[:, 1]
        others = self._signatures[earlier]
        if (near(np.repeat(signed, len(others), axis=0), others, self._config) > 0).any():
            return True
        if len(self._index) == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        self._signatures[len(self._index)] = signed[0]
        self._index.add(text_keys)
        return False
