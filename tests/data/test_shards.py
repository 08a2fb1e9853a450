"""Shards read back what was written, in parts, after a resume, and refuse files that do not fit it."""

from __future__ import annotations

import binascii
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mengya.data.shards import ShardWriter, TokenShards
from mengya.errors import UserError


def documents_of(rng: np.random.Generator, count: int, vocab_size: int) -> list[np.ndarray]:
    return [rng.integers(0, vocab_size, rng.integers(1, 50)) for _ in range(count)]


def write(
    directory: Path,
    documents: list[np.ndarray],
    kind: str,
    vocab_size: int,
    part_tokens: int = 1000,
) -> None:
    writer = ShardWriter(directory, kind, vocab_size, part_tokens=part_tokens)
    for at in range(0, len(documents), 7):
        chunk = documents[at : at + 7]
        tokens = np.concatenate(chunk)
        writer.add(
            tokens, np.array([len(d) for d in chunk]), tokens % 2 if kind != "text" else None
        )
    writer.close(tokenizer={"sha256": "abc"})


@pytest.mark.parametrize(
    ("kind", "vocab_size", "dtype"),
    [("text", 65_536, "uint16"), ("conversation", 65_537, "uint32")],
)
def test_round_trip_over_parts(tmp_path: Path, kind: str, vocab_size: int, dtype: str) -> None:
    documents = documents_of(np.random.default_rng(0), 100, vocab_size)
    documents[3][0] = vocab_size - 1
    write(tmp_path, documents, kind, vocab_size, part_tokens=300)
    shards = TokenShards(tmp_path)
    assert len(list(tmp_path.glob("*.tokens.bin"))) > 3
    assert len(shards) == 100 and shards.manifest["dtype"] == dtype
    for number, document in enumerate(documents):
        assert shards.lengths[number] == len(document)
        assert np.array_equal(shards.tokens(number), document)
        assert np.array_equal(shards.tokens(number, 1, 5), document[1:5])
        expected = np.ones(len(document)) if kind == "text" else document % 2
        assert np.array_equal(shards.loss_mask(number), expected)
        assert np.array_equal(shards.loss_mask(number, 2, 4), expected[2:4])


def test_five_lines_of_numpy_read_a_shard(tmp_path: Path) -> None:
    write(tmp_path, [np.array([5, 6, 7]), np.array([8])], "text", 100)
    tokens = np.memmap(tmp_path / "00000.tokens.bin", np.uint16, mode="r")
    ends = np.fromfile(tmp_path / "00000.doc_ends.bin", np.uint64)
    assert [part.tolist() for part in np.split(tokens, ends[:-1].astype(int))] == [[5, 6, 7], [8]]


def test_resume_cuts_back_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    documents = documents_of(np.random.default_rng(1), 90, 500)
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    states = []
    for directory in (uninterrupted, resumed):
        writer = ShardWriter(directory, "conversation", 500, part_tokens=200)
        for number, document in enumerate(documents):
            if number == 40:
                states.append(writer.state())
            if number == 77 and directory == resumed:
                break
            writer.add(document, np.array([len(document)]), document % 2)
        else:
            writer.close()
    writer = ShardWriter(resumed, "conversation", 500, part_tokens=200, resume=states[1])
    for document in documents[40:]:
        writer.add(document, np.array([len(document)]), document % 2)
    writer.close()
    names = sorted(p.name for p in uninterrupted.iterdir())
    assert names == sorted(p.name for p in resumed.iterdir())
    assert all((uninterrupted / n).read_bytes() == (resumed / n).read_bytes() for n in names)


def test_wrong_sizes_kinds_and_tokenizers_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [np.array([5, 6, 7])], "text", 100)
    shards = TokenShards(tmp_path)
    shards.require("text", tokenizer_sha256="abc")
    with pytest.raises(UserError, match="takes kind=conversation"):
        shards.require("conversation", tokenizer_sha256="abc")
    with pytest.raises(UserError, match="run `mengya prepare` again"):
        shards.require("text", tokenizer_sha256="xyz")
    (tmp_path / "00000.tokens.bin").write_bytes(b"1234567")
    with pytest.raises(UserError, match="has 7 bytes"):
        TokenShards(tmp_path)
    (tmp_path / "00000.tokens.bin").unlink()
    with pytest.raises(UserError, match="is missing"):
        TokenShards(tmp_path)


def make(directory: Path, kind: str = "conversation") -> list[Path]:
    """Shards of several parts; their files."""
    write(directory, documents_of(np.random.default_rng(2), 60, 500), kind, 500, part_tokens=300)
    return sorted(directory.glob("*.bin"))


def flip(path: Path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 0x10
    path.write_bytes(data)


def test_checksums_are_those_of_the_files_and_verify_reads_every_byte(tmp_path: Path) -> None:
    files = make(tmp_path)
    shards = TokenShards(tmp_path)
    read: list[int] = []
    shards.verify(read.append)
    assert sum(read) == shards.file_bytes == sum(f.stat().st_size for f in files)
    assert len(files) == 3 * len(shards.manifest["parts"]) > 6
    for number, part in enumerate(shards.manifest["parts"]):
        for name, crc in part["crc32"].items():
            data = (tmp_path / f"{number:05d}.{name}.bin").read_bytes()
            assert crc == f"{binascii.crc32(data):08x}"


@pytest.mark.parametrize("name", ["tokens", "loss_mask"])
def test_flipped_bits_open_and_verify_names_every_file(tmp_path: Path, name: str) -> None:
    make(tmp_path)
    damaged = [tmp_path / f"{part:05d}.{name}.bin" for part in (0, 2)]
    for path in damaged:
        flip(path, path.stat().st_size - 1)
    shards = TokenShards(tmp_path)
    with pytest.raises(UserError, match=r"prepare` again with overwrite=true") as caught:
        shards.verify()
    named = [line for line in str(caught.value).splitlines() if "CRC-32" in line]
    assert [line.split()[1] for line in named] == [str(path) for path in damaged]


def test_ends_of_documents_that_do_not_rise_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    for byte in (8 * 4 + 1, -8):  # one in the middle, and the last
        path = tmp_path / "00001.doc_ends.bin"
        before = path.read_bytes()
        flip(path, byte)
        with pytest.raises(UserError, match=r"00001\.doc_ends\.bin is damaged: .* do not rise"):
            TokenShards(tmp_path)
        path.write_bytes(before)


def test_truncated_and_missing_files_are_all_named(tmp_path: Path) -> None:
    files = make(tmp_path)
    os.truncate(files[1], files[1].stat().st_size - 3)
    files[4].unlink()
    with pytest.raises(UserError) as caught:
        TokenShards(tmp_path)
    said = str(caught.value)
    assert f"{files[1]} has" in said and f"{files[4]} is missing" in said
    assert sum(str(file) in said for file in files) == 2


def test_zeros_written_by_someone_else_are_found(tmp_path: Path) -> None:
    """What two prepares into one folder left: a hole of zeros, which are ids like any other."""
    make(tmp_path, "text")
    path = tmp_path / "00000.tokens.bin"
    with path.open("r+b") as file:
        file.seek(100)
        file.write(bytes(4))
    with pytest.raises(UserError, match=r"00000\.tokens\.bin has CRC-32"):
        TokenShards(tmp_path).verify()


def test_shards_without_checksums_open_and_verify_says_so(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    for part in manifest["parts"]:
        del part["crc32"]
    path.write_text(json.dumps(manifest))
    shards = TokenShards(tmp_path)
    assert len(shards) == 60
    with pytest.raises(UserError, match=r"has no checksums.*overwrite=true"):
        shards.verify()


def test_a_state_of_a_version_without_checksums_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    documents = documents_of(np.random.default_rng(1), 40, 500)
    write(tmp_path / "full", documents, "conversation", 500, part_tokens=200)
    writer = ShardWriter(tmp_path / "resumed", "conversation", 500, part_tokens=200)
    chunks = [documents[at : at + 7] for at in range(0, 40, 7)]

    def add(chunk: list[np.ndarray]) -> None:
        tokens = np.concatenate(chunk)
        writer.add(tokens, np.array([len(d) for d in chunk]), tokens % 2)

    for chunk in chunks[:3]:
        add(chunk)
    state = [part[:2] for part in writer.state()]
    add(chunks[3])
    writer.state()
    writer = ShardWriter(tmp_path / "resumed", "conversation", 500, part_tokens=200, resume=state)
    for chunk in chunks[3:]:
        add(chunk)
    writer.close(tokenizer={"sha256": "abc"})
    TokenShards(tmp_path / "resumed").verify()
    for path in (tmp_path / "full").iterdir():
        assert path.read_bytes() == (tmp_path / "resumed" / path.name).read_bytes()


def test_a_folder_without_manifest_names_the_ones_inside(tmp_path: Path) -> None:
    write(tmp_path / "train", [np.array([5, 6, 7])], "text", 100)
    with pytest.raises(UserError, match=r"did you mean .*train"):
        TokenShards(tmp_path)
    with pytest.raises(UserError, match="mengya prepare"):
        TokenShards(tmp_path / "nowhere")


def test_ids_outside_the_vocabulary_are_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "text", 100)
    with pytest.raises(ValueError, match="token id 100"):
        writer.add(np.array([100]), np.array([1]))
    with pytest.raises(ValueError, match="same documents"):
        writer.add(np.array([1, 2]), np.array([1]))


def test_the_lines_of_numpy_in_the_docs_read_a_shard(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data_format.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    writer = ShardWriter(tmp_path / "shards" / "text", "text", 100)
    writer.add(np.array([5, 6, 7, 8]), np.array([3, 1]))
    writer.close(characters=42)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["[5", "6", "7]", "42"]
