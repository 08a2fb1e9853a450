"""A .json file is read to its end: several arrays, lines after an array, bad records in the middle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mengya.data.ingest.reading import json_values
from mengya.data.ingest.reading.read import read_records
from mengya.data.ingest.reading.records import BadLines


def read(path: Path, text: str | bytes) -> tuple[list[Any], list[tuple[int, str]]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    bad = BadLines(100_000)
    values = [record.value for record in read_records(str(path), bad)]
    return values, [(b.line, b.reason) for b in bad.first]


TURNS = [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}]
RECORDS = [{"id": i, "conversations": TURNS, "text": "春天，[来] {了}"} for i in range(9)]


@pytest.fixture(params=[64, 1 << 18], autouse=True)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "BLOCK", request.param)


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("between", ["", "\n", ",\n", "\n\ufeff"])
def test_arrays_and_values_after_an_array_are_read(
    tmp_path: Path, indent: int | None, between: str
) -> None:
    arrays = between.join(json.dumps(RECORDS[i : i + 3], indent=indent) for i in (0, 3))
    lines = "\n".join(json.dumps(record) for record in RECORDS[6:])
    assert read(tmp_path / "a.json", f"{arrays}\n{lines}\n") == (RECORDS, [])


@pytest.mark.parametrize("indent", [None, 2])
def test_one_bad_record_in_an_array_is_one_bad_line(tmp_path: Path, indent: int | None) -> None:
    """Whatever is broken in record 4 of 9, the other eight are read."""
    good = [json.dumps(record, ensure_ascii=False, indent=indent) for record in RECORDS]
    breaks = {
        "trailing comma": good[4][:-1] + ",}",
        "no value": good[4].replace("4", "oops"),
        "nan of another language": good[4].replace("4", "None"),
        "no colon": good[4].replace('"id":', '"id"'),
        "bare text": "not a record",
    }
    for name, broken in breaks.items():
        for separator in (",\n", ", "):
            text = f"[{separator.join([*good[:4], broken, *good[5:]])}]"
            values, bad = read(tmp_path / "a.json", text)
            assert values == RECORDS[:4] + RECORDS[5:], (name, separator)
            assert len(bad) == 1 and "not JSON" in bad[0][1], (name, separator)
            assert bad[0][0] == 1 + text[: text.index(broken)].count("\n")


def test_a_quote_or_bracket_that_is_not_closed_costs_one_record_of_lines(tmp_path: Path) -> None:
    good = [json.dumps(record, ensure_ascii=False) for record in RECORDS]
    for broken in (
        good[4][:-3],
        good[4].replace("春天", '春"天'),
        good[4].replace("]", "", 1),
        "{{{[",
    ):
        text = "[\n  " + ",\n  ".join([*good[:4], broken, *good[5:]]) + "\n]\n"
        values, bad = read(tmp_path / "a.json", text)
        assert values == RECORDS[:4] + RECORDS[5:], broken
        assert [line for line, _ in bad] == [6]
    pretty = json.dumps(RECORDS, ensure_ascii=False, indent=1).replace('"春天', '"春天"', 1)
    values, bad = read(tmp_path / "a.json", pretty)
    assert values == RECORDS[1:] and len(bad) == 1


def test_what_nobody_can_find_is_said(tmp_path: Path) -> None:
    values, bad = read(tmp_path / "a.json", '[{"a": 1}, {"a": [1, {"a": 3}]')
    assert values == [{"a": 1}] and "rest of this file is not read" in bad[0][1]
    values, bad = read(tmp_path / "a.json", '{"a": 1}\n]\n{"a": 2}\n')
    assert values == [{"a": 1}, {"a": 2}] and bad == [(2, "a ] that closes no array")]


def test_characters_that_are_none_cost_one_record(tmp_path: Path) -> None:
    invalid = b'[{"a": 1}, {"a": "\xff\xfe"}, {"a": 3}]'
    assert read(tmp_path / "a.json", invalid) == ([{"a": 1}, {"a": 3}], [(1, "not valid utf-8")])
    half = r'[{"a": 1}, {"a": "\ud83d"}, {"a": 3}]'
    values, bad = read(tmp_path / "a.json", half)
    assert values == [{"a": 1}, {"a": 3}] and "surrogate" in bad[0][1]


def test_deep_nesting_costs_one_record(tmp_path: Path) -> None:
    deep = '{"a": ' * 5000 + "1" + "}" * 5000
    values, bad = read(tmp_path / "a.json", f'[{{"a": 1}},\n{deep},\n{{"a": 3}}]')
    assert values == [{"a": 1}, {"a": 3}] and bad == [(2, "nested too deeply")]


def test_thousands_of_bad_records_end(tmp_path: Path) -> None:
    values, bad = read(tmp_path / "a.json", "[" + ",\n".join(['{"a": x}'] * 9000) + ',\n{"a": 1}]')
    assert values == [{"a": 1}] and len(bad) == 1000  # as many as are kept
