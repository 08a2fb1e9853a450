"""Near-copies: none of train in validation, dropped where asked, the same bytes however it is run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mengya.config import load_config
from mengya.data.prepare import pipeline
from mengya.data.prepare.build import Build
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig, run
from mengya.tokenizer.load import load_tokenizer
from tests.helpers.json_lines import write_lines
from tests.text.near_duplicates.texts import changed, jaccard, text


def prepare(out: Path, tokenizer: Path, sources: Any, **settings: Any) -> Path:
    config = {"out": out, "tokenizer": tokenizer, "sources": sources, "workers": 1, **settings}
    run(PrepareConfig.model_validate(config))
    return out


def texts(tokenizer_folder: Path, shards: Path) -> list[str]:
    tokenizer, opened = load_tokenizer(tokenizer_folder), TokenShards(shards)
    decoded = (tokenizer.decode(opened.tokens(i).tolist()[1:-1]) for i in range(len(opened)))
    return [str(one) for one in decoded]


def leaks(tokenizer_folder: Path, out: Path, threshold: float = 0.85) -> int:
    """Texts of validation that nearly equal one of train, by exact Jaccard similarity."""
    train, held = (texts(tokenizer_folder, out / split) for split in ("train", "validation"))
    return sum(any(jaccard(a, b) >= threshold for b in train) for a in held)


def test_validation_holds_no_near_copy_of_a_training_text(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    rng = random.Random(0)
    originals = [text(rng) for _ in range(60)]
    copies = [changed(rng, one) for one in originals for _ in range(2)]
    assert all(jaccard(one, copies[2 * i]) > 0.9 for i, one in enumerate(originals))
    write_lines(tmp_path / "a.jsonl", [{"text": one} for one in originals + copies])
    source = str(tmp_path / "a.jsonl")
    out = prepare(tmp_path / "out", tokenizer_folder, source, validation_fraction=0.3)
    assert leaks(tokenizer_folder, out) == 0
    manifests = [TokenShards(out / split).manifest for split in ("train", "validation")]
    assert sum(one["samples"] for one in manifests) == 180  # nothing is lost


def family(rng: random.Random, count: int, copies: int = 2, length: int = 200) -> list[str]:
    """So many texts, then so many near-copies of each."""
    originals = [text(rng, length) for _ in range(count)]
    return originals + [changed(rng, one) for one in originals for _ in range(copies)]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but prepare.json, which holds times."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "prepare.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_drop_keeps_the_first_of_all_sources(tmp_path: Path, tokenizer_folder: Path) -> None:
    rng = random.Random(1)
    first, copies = [text(rng) for _ in range(10)], []
    copies = [changed(rng, one) for one in first]
    write_lines(tmp_path / "a.jsonl", [{"text": one} for one in first])
    write_lines(tmp_path / "b.jsonl", [{"text": one} for one in [*copies, text(rng)]])
    sources = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    for method in ("minhash", "simhash"):
        settings = {"action": "drop", "method": method}
        out = prepare(tmp_path / method, tokenizer_folder, sources, near_duplicates=settings)
        manifest = TokenShards(out).manifest
        assert texts(tokenizer_folder, out)[:10] == first
        dropped = manifest["dropped"].get("near_duplicate", 0)
        assert dropped == 10 if method == "minhash" else 0 < dropped <= 10
        assert manifest["near_duplicates"]["dropped"] == dropped
        assert [one["dropped"] for one in manifest["sources"]] == [{}, {"near_duplicate": dropped}]
        assert not list(out.glob("near_*"))
    other = prepare(tmp_path / "other", tokenizer_folder, sources[::-1], near_duplicates="drop")
    assert texts(tokenizer_folder, other)[:10] == copies


def test_without_validation_nothing_is_looked_for(tmp_path: Path, tokenizer_folder: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": one} for one in family(random.Random(2), 5)])
    source = str(tmp_path / "a.jsonl")
    out = prepare(tmp_path / "out", tokenizer_folder, source)
    assert "near_duplicates" not in TokenShards(out).manifest
    assert "near_duplicates" not in json.loads((out / "prepare.json").read_text())["request"]
    assert TokenShards(out).manifest["samples"] == 15


def test_chats_go_by_their_question_and_are_dropped_by_all_turns(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    rng = random.Random(3)
    questions = family(rng, 30, copies=1, length=120)
    records = [
        {"system": text(random.Random(0), 300), "question": one, "answer": text(rng, 300)}
        for one in questions
    ]
    records += [
        {"question": one["question"], "answer": changed(rng, one["answer"])} for one in records[:5]
    ]
    write_lines(tmp_path / "a.jsonl", records)

    def asked(folder: Path) -> list[str]:
        tokenizer, shards = load_tokenizer(tokenizer_folder), TokenShards(folder)
        full = [str(tokenizer.decode(shards.tokens(i).tolist())) for i in range(len(shards))]
        return [one.split("<|im_start|>user\n")[1].split("<|im_end|>")[0] for one in full]

    for action, samples in (("together", 65), ("drop", 60)):
        out = prepare(
            tmp_path / action, tokenizer_folder, str(tmp_path / "a.jsonl"), kind="conversation",
            validation_fraction=0.3, near_duplicates=action,
        )  # fmt: skip
        train, held = (asked(out / split) for split in ("train", "validation"))
        assert len(train) + len(held) == samples and len(held) > 5
        assert max(jaccard(a, b) for a in train for b in held) < 0.85
        facts = TokenShards(out / "train").manifest["near_duplicates"]
        assert facts["moved"] > 0 and facts["dropped"] == 65 - samples


def test_what_is_near_to_both_splits_is_dropped(tmp_path: Path, tokenizer_folder: Path) -> None:
    rng = random.Random(4)
    records = []
    for _ in range(40):  # the ends are near to the middle one, but not to each other
        one = text(rng)
        middle = one[:30] + "甲" + one[31:80] + "乙" + one[81:]
        records.append((one, middle[:130] + "丙" + middle[131:170] + "丁" + middle[171:], middle))
    ends = [part for one, far, _ in records for part in (one, far)]
    middles = [middle for _, _, middle in records]
    assert all(jaccard(a, b) < 0.85 for a, b in zip(ends[::2], ends[1::2], strict=True))
    assert all(jaccard(a, b) > 0.87 for a, b in zip(ends[::2], middles, strict=True))
    write_lines(tmp_path / "a.jsonl", [{"text": one} for one in ends + middles])
    source = str(tmp_path / "a.jsonl")
    out = prepare(tmp_path / "out", tokenizer_folder, source, validation_fraction=0.4)
    assert leaks(tokenizer_folder, out) == 0
    manifest = TokenShards(out / "train").manifest
    dropped = manifest["dropped"]["near_both_splits"]
    assert 5 < dropped < 40 and manifest["near_duplicates"]["near_both_splits"] == dropped


def test_workers_and_a_resume_change_nothing(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mengya.data.ingest.reading.records.CHUNK_RECORDS", 20)
    monkeypatch.setattr("mengya.data.prepare.duplicates.near_duplicates._READ_AGAIN", 30)
    rng = random.Random(5)
    mixed = family(rng, 60) + family(rng, 20, copies=3)
    rng.shuffle(mixed)
    for name, part in (("a", mixed[:130]), ("b", mixed[130:])):
        write_lines(tmp_path / f"{name}.jsonl", [{"text": one} for one in part])
    source = str(tmp_path / "*.jsonl")
    for action in ("together", "drop"):
        settings: dict[str, Any] = {"validation_fraction": 0.2, "near_duplicates": action}
        full = prepare(tmp_path / f"{action}1", tokenizer_folder, source, **settings)
        if action == "together":
            two = prepare(tmp_path / "two", tokenizer_folder, source, **settings, workers=2)
            assert contents(two) == contents(full)
        out = tmp_path / f"{action}3"
        monkeypatch.setattr(pipeline, "COMMIT_SECONDS", 0)
        interrupt_twice(
            lambda out=out, settings=settings: prepare(out, tokenizer_folder, source, **settings),
            tmp_path / f".{action}3.mengya-partial",
            monkeypatch,
        )
        assert contents(out) == contents(full)


def interrupt_twice(
    work: Callable[[], object], partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop `work` after some chunks, damage the ends of its files, and let it resume."""
    add = Build.add
    for last in (4, 9):

        def stop(self: Build, chunk: Any, last: int = last) -> None:
            if self.chunks_done == last:
                raise KeyboardInterrupt
            add(self, chunk)

        with monkeypatch.context() as patch:
            patch.setattr(Build, "add", stop)
            with pytest.raises(KeyboardInterrupt):
                work()
        for path in partial.glob("near_*.bin"):
            with path.open("ab") as file:
                file.write(b"half a write")
    work()


def test_folders_of_before_stay_as_they_are_and_are_made_again_when_asked(
    tmp_path: Path, tokenizer_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": one} for one in family(random.Random(6), 30)])
    source = str(tmp_path / "a.jsonl")
    settings = {"validation_fraction": 0.3}
    out = prepare(tmp_path / "out", tokenizer_folder, source, near_duplicates="ignore", **settings)
    path = out / "prepare.json"
    saved = json.loads(path.read_text())
    assert saved["request"].pop("near_duplicates") == {"action": "ignore"}
    path.write_text(json.dumps(saved))  # as the version before wrote it
    before = path.read_bytes()
    prepare(out, tokenizer_folder, source, **settings)
    said = " ".join(capfd.readouterr().err.split())
    assert "validation may hold texts that nearly equal one of training" in said
    assert path.read_bytes() == before and leaks(tokenizer_folder, out) > 0
    prepare(out, tokenizer_folder, source, near_duplicates="ignore", **settings)
    assert "earlier version" not in capfd.readouterr().err
    with pytest.raises(UserError, match=r"near_duplicates.action: 'ignore' -> 'drop'"):
        prepare(out, tokenizer_folder, source, near_duplicates="drop", **settings)
    prepare(out, tokenizer_folder, source, **settings, overwrite=True)
    assert leaks(tokenizer_folder, out) == 0
    with pytest.raises(UserError, match=r"near_duplicates"):
        prepare(out, tokenizer_folder, source, near_duplicates="ignore", **settings)


def test_pairs_are_shown_with_both_texts(tmp_path: Path, tokenizer_folder: Path) -> None:
    rng = random.Random(7)
    first = [text(rng) for _ in range(15)]
    write_lines(tmp_path / "a.jsonl", [{"text": one} for one in first])
    write_lines(tmp_path / "b.jsonl", [{"text": changed(rng, one)} for one in first])
    sources = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    for action, method in (("drop", "minhash"), ("together", "simhash")):
        out = prepare(
            tmp_path / action, tokenizer_folder, sources, validation_fraction=0.3,
            near_duplicates={"action": action, "method": method},
        )  # fmt: skip
        found = json.loads((out / "data_report.json").read_text("utf-8"))["near_duplicates"]
        assert found["action"] == action and found["near"] >= len(found["pairs"]) > 2
        assert len(found["pairs"]) == 10 or method == "simhash"
        for pair in found["pairs"]:
            line = pair["dropped"]["line"]
            assert pair["kept"] == {"file": sources[0], "line": line, "text": first[line - 1]}
            assert pair["dropped"]["file"] == sources[1]
            assert pair["similarity"] > 0.85 and pair["dropped"]["text"] != first[line - 1]
            assert pair["kept"]["text"] in (out / "report.html").read_text("utf-8")


def test_settings_of_another_method_are_refused() -> None:
    for settings in ({"method": "simhash", "threshold": 0.9}, {"distance": 2}):
        with pytest.raises(ValueError, match="leave it out"):
            PrepareConfig.model_validate(
                {"out": "o", "tokenizer": "t", "sources": "a", "near_duplicates": settings}
            )


def test_yes_and_no_are_answered_with_the_words_to_write() -> None:
    with pytest.raises(UserError, match="write near_duplicates=drop, together or ignore"):
        load_config(
            PrepareConfig, None, ["out=o", "tokenizer=t", "sources=a", "near_duplicates=yes"]
        )
