"""The tiny models of tests/models, for kernels that are tried inside one."""

from tests.models.conftest import config, family, input_ids, model

__all__ = ["config", "family", "input_ids", "model"]
