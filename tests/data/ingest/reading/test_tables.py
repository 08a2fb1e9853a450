"""A stray quote costs one row of a table, and a doubled column name is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mengya.data.ingest.reading.read import read_records
from mengya.data.ingest.reading.records import BadLines


def rows(path: Path) -> tuple[list[dict[str, str]], list[tuple[int, str]]]:
    bad = BadLines(100)
    values = [record.value for record in read_records(str(path), bad)]
    return values, [(b.line, b.reason) for b in bad.first]


@pytest.mark.parametrize("closing", ['500,他说好"', '500,"他说好"', '500,他说"好"吗', "500,好"])
def test_a_stray_quote_costs_one_row(tmp_path: Path, closing: str) -> None:
    lines = [f"{i},第{i}个问题的回答" for i in range(1000)]
    lines[20], lines[500] = '20,"开头多了一个引号', closing
    (tmp_path / "a.csv").write_text("id,text\n" + "\n".join(lines) + "\n", encoding="utf-8")
    values, bad = rows(tmp_path / "a.csv")
    assert bad == [(22, "a quote that is not closed")]
    assert [v["id"] for v in values] == [str(i) for i in range(1000) if i != 20]
    assert max(len(v["text"]) for v in values) < 20


def test_quoted_fields_of_many_lines_stay_one_field(tmp_path: Path) -> None:
    poem = "\n".join(f"床前明月光，疑是地上霜。{i}" for i in range(50))
    english = "Roses are red,\nviolets are blue,\nsugar is sweet,\nand so are you."
    code = 'f(a, b)\nprint(""x"", 1)\n' * 10  # each line has as many fields as a row
    body = f'id,text\n1,"{poem}"\n2,"{english}"\n3,"{code}"\n4,"他说"好\n5,a "b" c\n'
    (tmp_path / "a.csv").write_text(body, encoding="utf-8")
    values, bad = rows(tmp_path / "a.csv")
    assert bad == []
    expected = [poem, english, code.replace('""', '"'), "他说好", 'a "b" c']
    assert [v["text"] for v in values] == expected


def test_a_doubled_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id,text\na,1,b\n")
    assert rows(tmp_path / "a.csv")[0] == [] and "named 'text'" in rows(tmp_path / "a.csv")[1][0][1]
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    values, bad = rows(tmp_path / "a.parquet")
    assert values == [] and "named 'text'" in bad[0][1]
    (tmp_path / "b.csv").write_text("text,,\na,,\n")  # columns without a name, as Excel writes
    assert rows(tmp_path / "b.csv") == ([{"text": "a", "": ""}], [])
