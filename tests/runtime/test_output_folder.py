"""Only what mengya wrote is replaced or removed, whatever else is there and whenever a run is killed."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from mengya.errors import UserError
from mengya.runtime.output_folder import (
    MARKER,
    FolderKind,
    new_folder,
    open_folder,
    open_run_folder,
    replace_folder,
)
from mengya.runtime.output_path import check_path

KIND = FolderKind("tokenizer", ("a.json", "sub/*.bin"), lambda f: (f / "a.json").is_file())
OTHER = FolderKind("prepare", ("a.json",))
RUN = FolderKind("sft", ("config.yaml", "checkpoints"))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def write(out: str | Path, text: str = "1", kind: FolderKind = KIND, **more: object) -> None:
    settings = {"overwrite": False, **more}
    with new_folder(Path(out), kind, **settings) as folder:  # type: ignore[arg-type]
        (folder / "sub").mkdir()
        (folder / "a.json").write_text(text)
        (folder / "sub/0.bin").write_text(text)


def files(folder: str | Path) -> dict[str, str]:
    """Relative name -> text of every file and link, markers aside."""
    return {
        str(p.relative_to(folder)): p.read_text()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file() and p.name != MARKER
    }


def names(folder: str) -> list[str]:
    return sorted(p.name for p in Path(folder).iterdir())


def refusal(out: str | Path, **more: object) -> str:
    with pytest.raises(UserError) as refused:
        write(out, "2", **more)  # type: ignore[arg-type]
    return str(refused.value)


def test_a_folder_is_marked_and_replaced_only_when_asked_to() -> None:
    write("out")
    assert json.loads(Path("out", MARKER).read_text()) == {
        "format": 1, "verb": "tokenizer", "files": ["a.json", "sub/0.bin"],
    }  # fmt: skip
    said = refusal("out")
    assert "overwrite=true" in said and "out=out-2" in said
    assert set(files("out").values()) == {"1"}
    write("out", "2", overwrite=True)
    write("out-2")
    assert set(files("out").values()) == {"2"}
    assert names(".") == ["out", "out-2"]


def test_a_marker_of_a_newer_version_or_of_nobody() -> None:
    write("out")
    Path("out", MARKER).write_text('{"format": 2, "verb": "tokenizer", "files": []}')
    assert "has format 2" in refusal("out", overwrite=True)
    Path("out", MARKER).write_text('{"format": 0, "verb": "tokenizer", "files": ["a.json"]}')
    assert set(files("out").values()) == {"1"}
    write("out", "2", overwrite=True)  # known by its files, as a folder without a marker


def test_a_remedy_is_quoted_for_the_shell() -> None:
    write("my out")
    said = refusal("my out")
    typed = shlex.split(said[said.index("out='") :])[0]
    assert typed == "out=my out-2"


def test_an_empty_folder_is_free() -> None:
    Path("out").mkdir()
    write("out")
    assert set(files("out").values()) == {"1"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name", ["thesis.txt", "sub/1.bin", "sub/more/x", ".hidden", "link", "empty/"]
)
def test_foreign_files_are_named_and_survive(name: str, overwrite: bool) -> None:
    write("out")
    planted = Path("out", name)
    if name == "link":
        planted.symlink_to("/")
    elif name == "empty/":
        planted.mkdir()
    else:
        planted.parent.mkdir(exist_ok=True)
        planted.write_text("years of work")
    before = files("out") if name != "link" else {}
    said = refusal("out", overwrite=overwrite)
    assert name.removesuffix("/") in said
    write(re.findall(r"out=(\S+)", said)[-1])
    if name == "link":
        assert planted.readlink() == Path("/")
    else:
        assert planted.exists() and files("out") == before


def test_what_comes_while_the_folder_is_made_survives() -> None:
    write("out")
    with (
        pytest.raises(UserError, match=r"did not write: thesis\.txt"),
        new_folder(Path("out"), KIND, overwrite=True) as folder,
    ):
        (folder / "a.json").write_text("2")
        Path("out/thesis.txt").write_text("years of work")
    assert files("out") == {"a.json": "1", "sub/0.bin": "1", "thesis.txt": "years of work"}


def test_a_folder_of_another_verb_is_never_replaced() -> None:
    write("out", kind=OTHER)
    assert "written by `mengya prepare`" in refusal("out", overwrite=True)
    assert set(files("out").values()) == {"1"}


def test_an_unmarked_folder_is_replaced_only_where_all_its_files_are_known() -> None:
    write("out")
    Path("out", MARKER).unlink()  # as versions before the marker left it
    assert "overwrite=true" in refusal("out")
    Path("out/notes.txt").write_text("mine")
    assert "did not write: notes.txt" in refusal("out", overwrite=True)
    Path("out/notes.txt").unlink()
    write("out", "2", overwrite=True)
    Path("other").mkdir()
    Path("other/sub").mkdir()
    Path("other/sub/x.bin").write_text("a known name alone proves nothing")
    assert "did not write: sub/x.bin" in refusal("other", overwrite=True)


def test_folders_of_the_users_with_like_names_are_left_alone() -> None:
    for name in ("out.old", "out.partial", "out.building", ".out.old", ".out.tmp"):
        Path(name).mkdir()
        Path(name, "thesis.txt").write_text(name)
    write("out")
    write("out", "2", overwrite=True)
    for name in ("out.old", "out.partial", "out.building", ".out.old", ".out.tmp"):
        assert files(name) == {"thesis.txt": name}
    Path(".out.mengya-partial").mkdir()
    Path(".out.mengya-partial/thesis.txt").write_text("mine")
    assert "move it elsewhere" in refusal("out", overwrite=True)
    assert files(".out.mengya-partial") == {"thesis.txt": "mine"}


def test_an_error_leaves_what_was_there() -> None:
    write("out")
    with (
        pytest.raises(ValueError, match="half"),
        new_folder(Path("out"), KIND, overwrite=True) as folder,
    ):
        (folder / "a.json").write_text("2")
        raise ValueError("half")
    assert set(files("out").values()) == {"1"} and names(".") == ["out"]


def test_killed_between_the_two_renames(capsys: pytest.CaptureFixture[str]) -> None:
    write("out")
    Path("out").rename(".out.mengya-old")
    assert "overwrite=true" in refusal("out")
    assert "restored" in capsys.readouterr().err
    assert set(files("out").values()) == {"1"}


def test_killed_after_the_second_rename() -> None:
    write("out")
    write("copy")
    Path("copy").rename(".out.mengya-old")
    Path(".out.mengya-old/thesis.txt").write_text("mine")
    assert "files that mengya did not write: thesis.txt" in refusal("out", overwrite=True)
    assert files(".out.mengya-old") == {"thesis.txt": "mine"}
    Path(".out.mengya-old/thesis.txt").rename("thesis.txt")
    write("out", "2", overwrite=True)
    assert names(".") == ["out", "thesis.txt"]


def test_killed_while_writing() -> None:
    Path(".out.mengya-partial/sub").mkdir(parents=True)
    Path(".out.mengya-partial/sub/0.bin").write_text("half")
    Path(".out.mengya-partial", MARKER).write_text(
        '{"format": 1, "verb": "tokenizer", "files": []}'
    )
    write("out")
    assert names(".") == ["out"]


def test_what_another_verb_has_not_finished_is_not_removed() -> None:
    with open_folder(Path("out"), OTHER) as folder:
        (folder.start() / "half").write_text("hours of work")
    said = refusal("out")
    assert "`mengya prepare`" in said
    assert Path(".out.mengya-partial/half").read_text() == "hours of work"


def test_a_link_to_a_folder_stays_a_link() -> None:
    write("disk/real")
    Path("out").symlink_to("disk/real")
    write("out", "2", overwrite=True)
    assert Path("out").readlink() == Path("disk/real")
    assert set(files("disk/real").values()) == {"2"} and names("disk") == ["real"]


def test_a_folder_that_cannot_be_renamed_comes_back(tmp_path: Path) -> None:
    write("out")
    with pytest.raises(FileNotFoundError):
        replace_folder(Path("nothing"), Path("out"))
    assert set(files("out").values()) == {"1"}


@pytest.mark.parametrize("out", [".", "/", "..", "~", "x/..", "thesis.txt"])
@pytest.mark.parametrize("in_place", [False, True])
def test_places_that_hold_everything_else_are_refused_and_the_remedy_is_accepted(
    out: str, in_place: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    Path("thesis.txt").write_text("years of work")
    Path("x").mkdir()
    path = Path(out).expanduser()
    with pytest.raises(UserError) as refused:
        if in_place:
            with open_run_folder(path, RUN):
                pass
        else:
            write(path)
    remedy = Path(re.findall(r"(?:out|run_dir)=(\S+)", str(refused.value))[-1])
    if out != "/":  # its remedy is accepted too, but not for a test to write there
        write(remedy)
        assert remedy.is_dir()
    assert Path("thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("data", "data/out"), ("data", "data"), ("data/../data", "data/sub/out"),
        ("data/**/*.jsonl", "data/a/b/c"), (".", "shards"), ("*/a.jsonl", "data"), ("link", "data/out"),
        ("data/*/a.jsonl", "data/x"),
    ],
)  # fmt: skip
def test_inside_a_source_is_refused_and_the_remedy_is_accepted(source: str, out: str) -> None:
    Path("data/sub").mkdir(parents=True)
    Path("data/a.jsonl").write_text("{}")
    Path("link").symlink_to("data")
    said = refusal(out, sources=[source])
    assert "is inside the source" in said
    write(re.findall(r"out=(\S+)", said)[-1], sources=[source])
    assert Path("data/a.jsonl").read_text() == "{}"


@pytest.mark.parametrize(
    ("source", "out"), [("data/sub/a.jsonl", "data"), ("data/sub", "data"), ("data/sub/*", "data")]
)
@pytest.mark.parametrize("name", ["sources", "inputs"])
def test_around_what_is_read_is_refused_and_the_remedy_is_accepted(
    source: str, out: str, name: str
) -> None:
    Path("data/sub").mkdir(parents=True)
    Path("data/sub/a.jsonl").write_text("{}")
    read: dict[str, Any] = {name: [Path(source)]}
    said = refusal(out, overwrite=True, **read)
    assert f"{source} is read, and inside out=data" in said
    write(re.findall(r"out=(\S+)", said)[-1], **read)
    assert Path("data/sub/a.jsonl").read_text() == "{}"


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("data/a.jsonl", "data/out"), ("data/*.jsonl", "data/out"), ("data/*", "data/out"),
        ("data/s*/*", "data/out"), ("data", "data-out"),
    ],
)  # fmt: skip
def test_next_to_what_is_read_is_accepted(source: str, out: str) -> None:
    Path("data/sub").mkdir(parents=True)
    Path("data/a.jsonl").write_text("{}")
    write(out, sources=[source])
    assert Path("data/a.jsonl").read_text() == "{}" and Path(out, "a.json").is_file()


def test_a_run_folder_keeps_other_files_and_refuses_its_own_names_in_a_strange_folder() -> None:
    Path("run").mkdir()
    Path("run/train.log").write_text("nohup writes here")
    for _ in range(2):
        with open_run_folder(Path("run"), RUN):
            Path("run/config.yaml").write_text("ours")
    assert files("run") == {"config.yaml": "ours", "train.log": "nohup writes here"}
    with (
        pytest.raises(UserError, match="made by `mengya sft`; write run_dir=run-2"),
        open_run_folder(Path("run"), FolderKind("dpo", RUN.names)),
    ):
        pass
    Path("strange").mkdir()
    Path("strange/config.yaml").write_text("of another program")
    with (
        pytest.raises(UserError, match=r"config\.yaml\. They are not overwritten"),
        open_run_folder(Path("strange"), RUN),
    ):
        pass
    assert files("strange") == {"config.yaml": "of another program"}


def test_a_run_that_never_began_leaves_no_folder() -> None:
    with pytest.raises(UserError, match="wrong"), open_run_folder(Path("run"), RUN):
        raise UserError("wrong settings")
    assert not Path("run").exists()


def test_a_pipe_or_device_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=r"is a device, pipe or socket; write out=pipe"):
        check_path(pipe, "out", "quantize")
    check_path(tmp_path / "pipe-2", "out", "quantize")
