"""Pushing with the hubs' real packages to a server of our own: what arrives, and what failures say."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from mengya.errors import UserError
from mengya.export.hub.hub import Hub
from mengya.export.hub.options import HubOptions
from mengya.export.hub.push import push_folder
from mengya.runtime.hub.failure import without
from tests.helpers.hub_server import OWNER, TOKEN, HubServer, Repository, Trouble

REPO = f"{OWNER}/little"
NAMES = {
    "README.md",
    "config.json",
    "model.safetensors",
    "onnx/model.onnx",
    "parity.json",
    "分词.txt",
}


def push(hub: Hub, folder: Path, **more: Any) -> None:
    push_folder(hub, folder, HubOptions(**{"repo": REPO, **more}))


def arrived(server: HubServer, branch: str | None = None, repo: str = REPO) -> dict[str, bytes]:
    branches = server.repositories[repo].branches
    return branches[branch or next(iter(branches))]


def sent(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES}


@pytest.fixture(autouse=True)
def no_token_in_sight(
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Any:
    """After every test: the token is neither printed nor logged."""
    caplog.set_level(logging.DEBUG)
    yield
    printed = capfd.readouterr()
    assert TOKEN not in printed.out + printed.err + caplog.text + request.node.user_text


@pytest.fixture(autouse=True)
def user_text(request: pytest.FixtureRequest) -> Any:
    request.node.user_text = ""
    yield


def refused(request: pytest.FixtureRequest, hub: Hub, folder: Path, **more: Any) -> str:
    with pytest.raises(UserError) as error:
        push(hub, folder, **more)
    request.node.user_text += str(error.getrepr(style="long", chain=True))
    return str(error.value)


def test_every_byte_arrives(
    hub: Hub, server: HubServer, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    push(hub, folder)
    assert arrived(server) == sent(folder)
    assert server.repositories[REPO].private
    printed = capfd.readouterr()
    assert printed.out == "" and f"pushed {len(NAMES)} files" in printed.err
    assert server.url in printed.err
    # Again: nothing is sent twice, and it is no error.
    server.requests.clear()
    push(hub, folder)
    assert server.count("PUT") == 0 and arrived(server) == sent(folder)


def test_public_and_branch(hub: Hub, server: HubServer, folder: Path) -> None:
    push(hub, folder, private=False, branch="v1.0")
    assert arrived(server, "v1.0") == sent(folder) and arrived(server) == {}
    assert not server.repositories[REPO].private


def test_dry_run_shows_all_and_sends_nothing(
    hub: Hub,
    server: HubServer,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name)
    push(hub, folder, dry_run=True)
    shown = capfd.readouterr().out
    assert server.requests == []
    for name, size in (("model.safetensors", "200,000"), ("onnx/model.onnx", "100,001")):
        assert any(name in line and size in line for line in shown.splitlines())
    assert all(name in shown for name in NAMES) and ".mengya.json" not in shown
    assert f"{server.url}/{REPO}" in shown and "its owner alone" in shown
    total = sum(len(data) for data in sent(folder).values())
    assert f"{len(NAMES)} files" in shown and f"{total:,}" in shown


def test_what_is_there_is_not_overwritten_by_accident(
    request: pytest.FixtureRequest, hub: Hub, server: HubServer, folder: Path
) -> None:
    branch = "main" if hub.key == "hf" else "master"
    server.repositories[REPO] = Repository(True, {branch: {"other.bin": b"mine"}})
    said = refused(request, hub, folder)
    assert f"{hub.key}.update=true" in said and "other.bin" in said
    assert arrived(server) == {"other.bin": b"mine"}
    push(hub, folder, update=True)
    assert arrived(server) == {"other.bin": b"mine", **sent(folder)}
    server.repositories[REPO].private = False
    said = refused(request, hub, folder, update=True)
    assert f"{hub.key}.private=false" in said
    push(hub, folder, update=True, private=False)


def test_without_a_token(
    request: pytest.FixtureRequest,
    server: HubServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mengya.export.hub.huggingface import HuggingFaceHub
    from mengya.export.hub.modelscope import ModelScopeHub

    for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name)
    assert "hf auth login" in refused(request, HuggingFaceHub(), folder)
    assert "ms-hub login" in refused(request, ModelScopeHub(), folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "unset HF_HUB_OFFLINE" in refused(request, HuggingFaceHub(), folder)
    assert server.requests == []


CREATE, PUT, COMMIT = ("POST", "/create"), ("PUT", "/lfs/"), ("POST", "/commit/")


@pytest.mark.parametrize(
    ("place", "trouble", "said"),
    [
        (CREATE, 401, "does not accept the token"),
        (CREATE, 403, "may not write to"),
        (CREATE, 404, "does not find"),
        (CREATE, 503, "trouble of its own (503)"),
        (CREATE, "stall", "stopped answering"),
        (CREATE, "cut", "cannot be reached"),
        (COMMIT, 403, "may not write to"),
        (COMMIT, 429, "fewer requests"),
    ],
)
def test_refusals_are_explained(
    request: pytest.FixtureRequest,
    hub: Hub,
    server: HubServer,
    folder: Path,
    place: tuple[str, str],
    trouble: Trouble,
    said: str,
) -> None:
    if hub.key == "modelscope" and place == CREATE:
        place = ("POST", "/api/v1/models")
    server.trouble[place] = trouble
    text = refused(request, hub, folder)
    assert said in text
    if trouble in (401, 403):
        assert hub.token_help in text
    if trouble in ("stall", "cut", 503, 429):
        assert f"mengya export {folder} to={hub.key} {hub.key}.repo={REPO}" in text
    server.trouble.clear()
    push(hub, folder)
    assert arrived(server) == sent(folder)


def test_nobody_there(
    request: pytest.FixtureRequest, server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mengya.export.hub.huggingface import HuggingFaceHub
    from mengya.export.hub.modelscope import ModelScopeHub

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    for hub in (HuggingFaceHub(), ModelScopeHub()):
        text = refused(request, hub, folder)
        assert "http://127.0.0.1:9 cannot be reached" in text and "HTTPS_PROXY" in text


@pytest.mark.parametrize("trouble", ["stall", "cut", 500])
def test_an_interrupted_push_resumes(
    request: pytest.FixtureRequest, hub: Hub, server: HubServer, folder: Path, trouble: Trouble
) -> None:
    """One of the large files arrives, the other does not; then the same command sends only that one."""
    from mengya.export.parity.files import file_hashes

    lost = file_hashes(folder)["model.safetensors"]
    server.trouble[("PUT", lost)] = trouble
    assert f"mengya export {folder} to={hub.key}" in refused(request, hub, folder)
    assert lost not in server.blobs and len(server.blobs) == 1
    assert "model.safetensors" not in arrived(server)
    server.trouble.clear()
    server.requests.clear()
    push(hub, folder)
    assert arrived(server) == sent(folder)
    assert server.count("PUT") == 1


def test_bytes_that_do_not_arrive_are_noticed(
    request: pytest.FixtureRequest, hub: Hub, server: HubServer, folder: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(hub, "upload", lambda *_: "somewhere")
    assert "not there as sent" in refused(request, hub, folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "parity.json").unlink(), "has no parity.json"),
        (lambda f: (f / "parity.json").write_text("{"), "is not what mengya wrote"),
        (lambda f: (f / "parity.json").write_text('{"passed": true}'), "is not what mengya wrote"),
        (
            lambda f: (f / "parity.json").write_text(json.dumps({"passed": False, "files": {}})),
            "missed a bound",
        ),
        (lambda f: (f / "config.json").write_text("{}"), "was changed or removed after the proof"),
        (lambda f: (f / "model.safetensors").unlink(), "was changed or removed after the proof"),
        (lambda f: (f / "new.py").write_text(""), "new.py was added after the proof"),
    ],
)
def test_only_what_is_proven_is_pushed(
    request: pytest.FixtureRequest, server: HubServer, folder: Path, change: Any, said: str
) -> None:
    from mengya.export.hub.huggingface import HuggingFaceHub

    (folder / "README.md").write_text("# edited\n")  # the card may be
    change(folder)
    text = refused(request, HuggingFaceHub(), folder)
    assert said in text and "mengya export CHECKPOINT to=" in text
    assert server.requests == []


def test_links_are_not_followed(
    request: pytest.FixtureRequest, server: HubServer, folder: Path, tmp_path: Path
) -> None:
    from mengya.export.hub.huggingface import HuggingFaceHub

    (tmp_path / "secret").write_text("secret")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(tmp_path / "secret")
    refused(request, HuggingFaceHub(), folder)
    assert server.requests == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"repo": "little"}, "is not OWNER/NAME"),
        ({"repo": "a/b/c"}, "is not OWNER/NAME"),
        ({"repo": "小明/模型"}, "is not OWNER/NAME"),
        ({"repo": "../x"}, "is not OWNER/NAME"),
        ({"dry_run": True}, "write repo=OWNER/NAME too"),
        ({"private": False}, "write repo=OWNER/NAME too"),
    ],
)
def test_keys_that_cannot_be(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        HubOptions(**values)


def test_a_token_is_blotted_out_in_every_form() -> None:
    token = "hf_a+b/c\nms-令牌"
    said = f"header {token!r}, {token}, address ?t={quote(token, '')}, part hf_a+b/c, 令牌"
    cleaned = without(said, token)
    assert "hf_a" not in cleaned and "ms-" not in cleaned and cleaned.count("***") >= 4
    assert without("x", None) == without("x", "") == without(" x\n", "\n") == "x"
