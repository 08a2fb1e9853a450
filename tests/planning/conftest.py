"""The tiny models of tests/models."""

from tests.models.conftest import config, family, input_ids, model

__all__ = ["config", "family", "input_ids", "model"]
