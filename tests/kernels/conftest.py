"""The tiny models of tests/models, for kernels that are tried inside one, and Triton's interpreter."""

from collections.abc import Iterator

import pytest

from tests.helpers.triton_interpreter import Interpret, triton_interpreter
from tests.models.conftest import config, family, input_ids, model

__all__ = ["config", "family", "input_ids", "model"]


@pytest.fixture(scope="session")
def interpret() -> Iterator[Interpret]:
    pytest.importorskip("triton")
    with triton_interpreter() as run:
        yield run
