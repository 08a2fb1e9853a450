"""As many prompts as the API documents, on a server whose waiting queue is shorter."""

from __future__ import annotations

import openai
import pytest

from tests.helpers.live_server import Running
from tests.helpers.waiting import wait_until


def test_more_prompts_than_the_queue_holds(server: Running) -> None:
    reply = server.client.completions.create(
        model="tiny", prompt=[[5 + i % 200] for i in range(2048)], max_tokens=1
    )
    assert [choice.index for choice in reply.choices] == list(range(2048))
    again = server.client.completions.create(
        model="tiny", prompt=["春眠"] * 100, n=5, max_tokens=1, temperature=0
    )
    assert len({choice.text for choice in again.choices}) == 1 and len(again.choices) == 500
    with pytest.raises(openai.BadRequestError, match="at most 2048"):
        server.client.completions.create(model="tiny", prompt=["春"] * 1025, n=2, max_tokens=1)
    wait_until(lambda: server.idle)
