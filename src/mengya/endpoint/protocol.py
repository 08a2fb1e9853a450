"""One request through the `openai` library: a completion, a failure that may pass, or an error for the user.

The library's own retries are off, so that ours are counted and paid for once; its answer is read as raw JSON,
since what endpoints send is not always what the protocol says.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mengya.endpoint.backoff import retry_after_seconds
from mengya.endpoint.config import EndpointConfig
from mengya.endpoint.key import without_key
from mengya.endpoint.messages import Completion, Problem, Prompt, Usage, most_input_tokens
from mengya.errors import UserError
from mengya.runtime.optional import require

if TYPE_CHECKING:
    import openai

_SHOWN = 300  # characters of an endpoint's message
_FINISHED: dict[str, Problem] = {"length": "cut", "content_filter": "refused"}
_WRONG_SET_UP = {401: "the key is wrong or missing", 402: "no money is left", 403: "not permitted"}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why no completion came this time.

    Attributes:
        reason: busy (429), server_error, no_connection, connection_lost, timeout or not_json.
        charged: whether the endpoint may charge for it.
        wait: seconds that it asks to wait.
    """

    reason: str
    detail: str
    charged: bool
    wait: float | None = None


def open_client(config: EndpointConfig, key: str) -> openai.AsyncOpenAI:
    """The library's client, its retries off; of an address of this machine past any proxy.

    Raises:
        UserError: the library is not installed, or there is no model's name.
    """
    library = require("openai", "synth")
    if not config.model:
        raise UserError(
            "endpoint.model is not set; write endpoint.model=VALUE, a name that the endpoint lists at "
            f"{config.base_url}/models"
        )
    http = library.DefaultAsyncHttpxClient(trust_env=False) if config.is_local else None
    return library.AsyncOpenAI(
        api_key=key, base_url=config.base_url, max_retries=0, timeout=config.timeout_seconds,
        http_client=http,
    )  # fmt: skip


def request_fields(config: EndpointConfig) -> dict[str, Any]:
    """The fields of a request that decide the reply, apart from model and messages."""
    sampling = config.sampling
    fields: dict[str, Any] = {config.max_tokens_field: sampling.max_tokens, **sampling.extra}
    named = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    return fields | {name: value for name, value in named.items() if value is not None}


def most_usage(config: EndpointConfig, prompt: Prompt) -> Usage:
    """The most that a request can cost."""
    return Usage(most_input_tokens(prompt.messages), config.sampling.max_tokens)


async def ask(
    client: openai.AsyncOpenAI, config: EndpointConfig, prompt: Prompt, name: str, key: str
) -> Completion | Failure:
    """Send a request once.

    Args:
        name: of the request, the same whenever it is repeated (Idempotency-Key).
        key: what must not stand in anything that is returned or raised.

    Raises:
        UserError: nothing that is sent to this endpoint will succeed: wrong key, no such model.
    """
    library = require("openai", "synth")
    try:
        async with asyncio.timeout(config.timeout_seconds):
            answer = await client.chat.completions.with_raw_response.create(
                model=config.model,
                messages=prompt.messages,  # type: ignore[arg-type]
                extra_body=request_fields(config),
                extra_headers={"Idempotency-Key": name},
            )
            text = answer.http_response.text
    except (TimeoutError, library.APITimeoutError):
        return Failure("timeout", f"no reply in {config.timeout_seconds:g} s", charged=True)
    except library.APIStatusError as error:
        return _refused(config, prompt, error, key)
    except library.APIConnectionError as error:
        return _unconnected(error, key)
    except (library.APIError, ValueError) as error:
        return Failure("not_json", without_key(str(error), key)[:_SHOWN], charged=True)
    return read_reply(config, prompt, without_key(text, key))


def read_reply(config: EndpointConfig, prompt: Prompt, body: str) -> Completion | Failure:
    """The completion in the body of a reply; anything may stand there."""
    try:
        values = json.loads(body)
        choice = values["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        if not isinstance(text, str):
            raise TypeError("content is no text")
        text = _storable(text)
        refusal = message.get("refusal")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        detail = f"no completion in it ({type(error).__name__}): {body[:_SHOWN]}"
        return Failure("not_json", detail, charged=True)
    finished = choice.get("finish_reason")
    problem = _FINISHED.get(finished) if isinstance(finished, str) else None
    if refusal and not text.strip():
        problem = "refused"
    elif not text.strip() and problem is None:
        problem = "empty"
    usage, is_ours = _usage(values.get("usage"), text, most_usage(config, prompt))
    detail = _storable(str(refusal))[:_SHOWN] if refusal else ""
    return Completion(prompt.id, text, problem, detail, usage, _named(values), is_ours)


def _usage(claimed: Any, text: str, most: Usage) -> tuple[Usage, bool]:
    """The endpoint's count where it can be true, else the most that it can be; whether it is the latter."""
    estimate = Usage(most.input, min(most.output, 1 + len(text.encode())))
    if not isinstance(claimed, Mapping):
        return estimate, True
    counts = claimed.get("prompt_tokens"), claimed.get("completion_tokens")
    numbers = [count for count in counts if isinstance(count, int) and not isinstance(count, bool)]
    if len(numbers) < 2:
        return estimate, True
    said = Usage(*numbers)
    possible = 0 < said.input <= most.input and (1 if text else 0) <= said.output <= most.output
    return (said, False) if possible else (estimate, True)


def _refused(
    config: EndpointConfig, prompt: Prompt, error: openai.APIStatusError, key: str
) -> Completion | Failure:
    status = error.status_code
    detail = without_key(str(error.message), key)[:_SHOWN]
    if status in _WRONG_SET_UP or error.code == "insufficient_quota":
        reason = _WRONG_SET_UP.get(status, "no money is left")
        raise UserError(f"{config.base_url} says: {reason} ({status}: {detail})")
    if status in (404, 405):
        raise UserError(
            f"{config.base_url} has no model {config.model!r}, or is not the address up to /v1 of an "
            f"OpenAI-compatible endpoint ({status}: {detail})"
        )
    if status in (408, 409, 425, 429) or status >= 500:
        wait = retry_after_seconds(error.response.headers)
        reason = "busy" if status in (429, 503) else "server_error"
        return Failure(reason, f"{status}: {detail}", charged=False, wait=wait)
    filtered = "content_filter" in f"{error.code} {detail}"
    problem: Problem = "refused" if filtered else "rejected"
    return Completion(prompt.id, "", problem, f"{status}: {detail}")


def _unconnected(error: openai.APIConnectionError, key: str) -> Failure:
    cause = error.__cause__
    never_sent = type(cause).__name__ in ("ConnectError", "ConnectTimeout", "UnsupportedProtocol")
    reason = "no_connection" if never_sent else "connection_lost"
    return Failure(reason, without_key(str(cause or error), key)[:_SHOWN], charged=not never_sent)


def _named(values: Mapping[str, Any]) -> str:
    model = values.get("model")
    return _storable(model[:200]) if isinstance(model, str) else ""


def _storable(text: str) -> str:
    """The text with U+FFFD for halves of surrogate pairs, which JSON can name and no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
