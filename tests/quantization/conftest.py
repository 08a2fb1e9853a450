"""The tiny trained model that quantization is measured on."""

from __future__ import annotations

import pytest

from tests.helpers.trained_model import Trained, trained_model


@pytest.fixture(scope="session")
def trained() -> Trained:
    return trained_model()
