"""Calls of huggingface_hub: a limit on silence, no Xet on other servers than the real one, HubFailure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import disable_progress_bars, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from mengya.runtime.hub.failure import HubFailure, without

_REAL = "https://huggingface.co"
# Seconds without a byte: the library itself waits for ever. It asks six times before it gives up.
SILENCE = 60.0


@contextmanager
def hugging_face_calls(endpoint: str) -> Iterator[None]:
    """Calls of the library, with a limit on silence, and without Xet on another server than the real
    one (it hangs there); failures become HubFailure."""
    xet_off = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = xet_off or endpoint != _REAL
    set_client_factory(_impatient_client)
    try:
        if sys.stderr.isatty():
            yield
        else:
            with disable_progress_bars():
                yield
    except (HfHubHTTPError, httpx2.HTTPError, OfflineModeIsEnabled, HFValidationError) as error:
        raise as_failure(error) from None
    except RuntimeError as error:  # of one file, among several that are sent at once
        if error.__cause__ is None:
            raise
        raise as_failure(error.__cause__) from None
    except (ValueError, OSError) as error:  # a malformed answer; a certificate
        raise HubFailure(without(str(error), get_token()), 400) from None
    finally:
        set_client_factory(default_client_factory)
        constants.HF_HUB_DISABLE_XET = xet_off


def _impatient_client() -> httpx2.Client:
    client = default_client_factory()
    client.timeout = httpx2.Timeout(SILENCE, pool=None)
    return client


def as_failure(error: BaseException) -> HubFailure:
    """What the library, or the HTTP client below it, raises."""
    said = without(str(error), get_token())
    if isinstance(error, HfHubHTTPError):
        return HubFailure(said, error.response.status_code)
    if isinstance(error, HFValidationError):
        return HubFailure(said, 400)
    return HubFailure(said, timeout=isinstance(error, httpx2.TimeoutException))
