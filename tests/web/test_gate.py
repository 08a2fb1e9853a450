"""Who may come in, and for how long: names of the server, headers of every answer, half-open bodies."""

from __future__ import annotations

import socket
import time

import pytest

from mengya.web.settings import WebSettings
from tests.helpers.waiting import wait_until
from tests.web.test_app import Notes
from tests.web.test_server import Slow, running


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]", "[::1]:80"]
)
def test_this_machines_names_come_in(host: str) -> None:
    assert Notes().client.get("/numbers", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""]
)
def test_a_name_that_was_bound_to_this_machine_is_refused(host: str) -> None:
    refused = Notes().client.get("/numbers", headers={"Host": host})
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "host_not_allowed"
    # Each way that the message offers, and a server that others may reach anyway.
    name = host.partition(":")[0]
    assert Notes(allowed_hosts=[name]).client.get("/numbers", headers={"Host": host}).is_success
    key = {"Host": host, "Authorization": "Bearer k"}
    assert Notes(key="k").client.get("/numbers", headers=key).is_success
    assert Notes(host="0.0.0.0").client.get("/numbers", headers={"Host": host}).is_success


def test_the_scheme_of_the_key_in_any_case() -> None:
    client = Notes(key="k").client
    for value, status in (
        ("bearer k", 200),
        ("BEARER k", 200),
        ("Basic k", 401),
        ("Bearer kk", 401),
    ):
        assert client.get("/numbers", headers={"Authorization": value}).status_code == status


def test_every_answer_says_that_it_is_no_page() -> None:
    client = Notes().client
    for path in ("/numbers", "/v1/nothing", "/v1/stream/full"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["cache-control"] in ("no-store", "no-cache")


def test_a_body_that_never_ends_is_given_up() -> None:
    slow = Slow(WebSettings(port=0, body_seconds=0.5))
    with running(slow):
        port = int(slow.urls[0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as half:
            half.sendall(
                b"POST /v1/notes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
                b"Content-Type: application/json\r\n\r\n"
            )
            began, answer = time.monotonic(), b""
            for _ in range(20):
                half.sendall(b" ")  # a byte now and then does not help
                half.settimeout(0.2)
                try:
                    answer = half.recv(4096)
                    break
                except TimeoutError:
                    continue
        assert b" 408 " in answer.split(b"\r\n")[0] and time.monotonic() - began < 4
        wait_until(lambda: slow.traffic.in_flight == 0)  # counted down after the answer is out
