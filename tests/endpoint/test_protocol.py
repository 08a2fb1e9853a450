"""What stands in the body of a reply."""

from __future__ import annotations

import json

from mengya.endpoint.config import EndpointConfig
from mengya.endpoint.messages import Completion, Prompt
from mengya.endpoint.protocol import read_reply


def test_half_of_a_surrogate_pair_does_not_end_the_run() -> None:
    """JSON can name it, UTF-8 cannot hold it: nothing of a paid reply could be written."""
    message = {"content": "春天\ud800来了", "refusal": "\udfff"}
    body = json.dumps(
        {"model": "m\ud800", "choices": [{"message": message, "finish_reason": "stop"}]}
    )
    prompt = Prompt("1", [{"role": "user", "content": "春天来了吗？"}])
    reply = read_reply(EndpointConfig(model="m"), prompt, body)
    assert isinstance(reply, Completion) and reply.text == "春天�来了" and reply.model == "m�"
    reply.detail.encode()
