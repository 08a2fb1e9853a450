"""PDF, Word, EPUB and HTML as sources: their text, and what happens to pages that cannot be read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from mengya.data.ingest.reading.documents import archive
from mengya.data.ingest.reading.files import find_data
from mengya.data.ingest.reading.read import read_records
from mengya.data.ingest.reading.records import BadLines
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from tests.data.prepare.test_prepare import decoded, prepare
from tests.helpers import documents

PARAGRAPHS = [
    "春天来了，小镇上的花都开了，河边的柳树也绿了，老王每天早上都去河边散步。",
    "他的女儿在镇上的学校教书，孩子们都喜欢听她讲故事，放学以后也不愿意回家。",
    "到了晚上，一家人坐在院子里吃饭，说一说白天的事情，看一看天上的星星。",
]


def read(path: Path, bad_lines: int = 10) -> tuple[list[str], list[tuple[int, str]]]:
    bad = BadLines(bad_lines)
    texts = [record.value["text"] for record in read_records(str(path), bad)]
    return texts, [(line.line, line.reason) for line in bad.first]


def test_pdf_lines_are_joined_and_running_heads_are_left_out(tmp_path: Path) -> None:
    text = "".join(PARAGRAPHS)
    lines = [text[at : at + 20] for at in range(0, len(text), 20)]
    pages = [["小镇的故事", *lines[at : at + 2], f"- {at} -"] for at in range(0, len(lines), 2)]
    (tmp_path / "book.pdf").write_bytes(documents.pdf(pages))
    assert read(tmp_path / "book.pdf") == ([text], [])


def test_a_bad_page_is_a_bad_line_and_the_others_are_read(tmp_path: Path) -> None:
    pages = [[paragraph] for paragraph in PARAGRAPHS]
    (tmp_path / "book.pdf").write_bytes(documents.pdf(pages, damaged_page=1))
    texts, bad = read(tmp_path / "book.pdf")
    assert texts == [f"{PARAGRAPHS[0]}\n{PARAGRAPHS[2]}"]
    assert [page for page, _ in bad] == [2]
    assert "page 2 cannot be read" in bad[0][1]


def test_word_gives_paragraphs_and_tables_in_order(tmp_path: Path) -> None:
    table = [["姓名", "年龄"], ["老王", "六十"]]
    (tmp_path / "a.docx").write_bytes(documents.word(PARAGRAPHS, table))
    assert read(tmp_path / "a.docx") == (
        ["\n".join([*PARAGRAPHS, "姓名 | 年龄", "老王 | 六十"])],
        [],
    )


def test_epub_follows_its_spine_and_misses_no_more_than_a_chapter(tmp_path: Path) -> None:
    chapters = {"第一章": PARAGRAPHS[0], "第二章": PARAGRAPHS[1], "第三章": PARAGRAPHS[2]}
    (tmp_path / "a.epub").write_bytes(documents.epub(chapters, missing="第二章"))
    texts, bad = read(tmp_path / "a.epub")
    assert texts == [f"第一章\n{PARAGRAPHS[0]}\n\n第三章\n{PARAGRAPHS[2]}"]
    assert [page for page, _ in bad] == [2]


def test_epub_reads_a_chapter_once_however_often_its_spine_names_it(tmp_path: Path) -> None:
    book = documents.epub({"第一章": PARAGRAPHS[0]}, repeat=1000)
    (tmp_path / "a.epub").write_bytes(book)
    assert read(tmp_path / "a.epub") == ([f"第一章\n{PARAGRAPHS[0]}"], [])


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_html_gives_its_main_text(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.html").write_bytes(documents.html_page(PARAGRAPHS, encoding))
    assert read(tmp_path / "a.html") == (["\n".join(PARAGRAPHS)], [])


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.epub", "a.html"])
@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff" * 50, b"PK\x03\x04 broken", b"%PDF-1.4 broken"]
)
def test_what_is_no_document_is_one_bad_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    texts, bad = read(tmp_path / name)
    assert texts == []
    assert [page for page, _ in bad] == [1]


def test_a_scan_is_one_bad_line_however_many_pages(tmp_path: Path) -> None:
    (tmp_path / "scan.pdf").write_bytes(documents.pdf([[] for _ in range(200)]))
    _, bad = read(tmp_path / "scan.pdf", bad_lines=1)
    assert bad == [(1, "no text in it; pages that are pictures need OCR first")]


def test_a_pdf_that_needs_a_password_is_one_bad_line(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(documents.pdf([[PARAGRAPHS[0]]] * 3, password="geheim"))
    assert read(tmp_path / "a.pdf") == ([], [(1, "locked with a password")])


def test_a_pdf_that_only_forbids_printing_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(documents.pdf([[PARAGRAPHS[0]]], password=""))
    assert read(tmp_path / "a.pdf") == ([PARAGRAPHS[0]], [])


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED", 1 << 20)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("word/document.xml", "0" * (2 << 20))
    for name in ("a.docx", "a.epub"):
        (tmp_path / name).write_bytes(written.getvalue())
        assert read(tmp_path / name)[1] == [(1, "unpacks to more than 1 MiB")]


def test_documents_next_to_data_files_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "春天来了。"}\n', encoding="utf-8")
    (tmp_path / "report.html").write_bytes(documents.html_page(PARAGRAPHS))
    found = find_data(str(tmp_path))
    assert [path.name for path in found.files] == ["a.jsonl"]
    assert found.left_out == {".html": 1}
    assert [path.name for path in find_data(str(tmp_path / "*.html")).files] == ["report.html"]


def test_a_missing_library_leaves_out_by_folder_and_refuses_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mengya.data.ingest.reading.files.is_installed", lambda kind: kind != "pdf")
    (tmp_path / "a.txt").write_text("春天来了。", encoding="utf-8")
    (tmp_path / "b.pdf").write_bytes(documents.pdf([PARAGRAPHS]))
    found = find_data(str(tmp_path))
    assert [path.name for path in found.files] == ["a.txt"]
    assert "pip install -e '.[documents]'" in next(iter(found.left_out))
    (tmp_path / "a.txt").unlink()
    monkeypatch.setattr("mengya.data.ingest.reading.files.is_installed", lambda kind: False)
    (tmp_path / "c.docx").write_bytes(documents.word([PARAGRAPHS[0]], [["甲"]]))
    with pytest.raises(UserError, match=r"only 1 \.docx, 1 \.pdf; to read documents type") as error:
        find_data(str(tmp_path))
    assert str(error.value).count("'.[documents]'") == 1
    with pytest.raises(UserError, match=r"read by pypdfium2; type in the clone.*\[documents\]"):
        find_data(str(tmp_path / "b.pdf"))


def test_prepare_reads_a_folder_of_documents(tmp_path: Path, tokenizer_folder: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(documents.pdf([[PARAGRAPHS[0]]]))
    (folder / "b.docx").write_bytes(documents.word([PARAGRAPHS[1]], [["甲", "乙"]]))
    (folder / "c.html").write_bytes(documents.html_page(PARAGRAPHS))
    (folder / "d.pdf").write_bytes(b"broken")
    (folder / "d2.pdf").write_bytes(documents.pdf([[PARAGRAPHS[0]]], password="geheim"))
    (folder / "e.txt").write_text(PARAGRAPHS[2], encoding="utf-8")
    shards = TokenShards(prepare(tmp_path / "out", tokenizer_folder, [str(folder)]))
    assert shards.manifest["bad_lines"] == 2
    bad = (tmp_path / "out/bad_lines.jsonl").read_text(encoding="utf-8")
    assert "d2.pdf" in bad and "locked with a password" in bad
    texts = [decoded(tokenizer_folder, shards.tokens(at)) for at in range(len(shards))]
    assert len(texts) == 4
    assert PARAGRAPHS[0] in texts[0] and PARAGRAPHS[2] in texts[3]
