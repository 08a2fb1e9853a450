"""Small PDF, Word, EPUB and HTML files with Chinese text."""

from __future__ import annotations

import io
import zipfile

import docx


def pdf(pages: list[list[str]], damaged_page: int | None = None) -> bytes:
    """A PDF with a line of text for each string, in a font that it does not embed.

    Args:
        damaged_page: index of a page whose object is no page.
    """
    font = 3 + 2 * len(pages)
    kids = " ".join(f"{3 + 2 * at} 0 R" for at in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
    ]
    for at, lines in enumerate(pages):
        shown = "\n".join(f"<{line.encode('utf-16-be').hex()}> Tj T*" for line in lines)
        stream = f"BT /F1 12 Tf 14 TL 50 780 Td\n{shown}\nET"
        page = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {4 + 2 * at} 0 R "
            f"/Resources << /Font << /F1 {font} 0 R >> >> >>"
        )
        objects += [
            "(no page)" if at == damaged_page else page,
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    objects += [
        "<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light /Encoding /UniGB-UCS2-H "
        f"/DescendantFonts [{font + 1} 0 R] >>",
        "<< /Type /Font /Subtype /CIDFontType0 /BaseFont /STSong-Light /CIDSystemInfo "
        f"<< /Registry (Adobe) /Ordering (GB1) /Supplement 2 >> /FontDescriptor {font + 2} 0 R >>",
        "<< /Type /FontDescriptor /FontName /STSong-Light /Flags 4 /FontBBox [0 -200 1000 900] "
        "/ItalicAngle 0 /Ascent 800 /Descent -200 /CapHeight 700 /StemV 80 >>",
    ]
    body, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    count = len(objects) + 1
    trailer = f"trailer\n<< /Size {count} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return f"{body}xref\n0 {count}\n0000000000 65535 f \n{table}{trailer}".encode("latin-1")


def word(paragraphs: list[str], table: list[list[str]]) -> bytes:
    """A Word file: the paragraphs, then a table."""
    document = docx.Document()
    for text in paragraphs:
        document.add_paragraph(text)
    cells = document.add_table(rows=len(table), cols=len(table[0]))
    for row, texts in zip(cells.rows, table, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    written = io.BytesIO()
    document.save(written)
    return written.getvalue()


def epub(chapters: dict[str, str], missing: str | None = None, repeat: int = 1) -> bytes:
    """An EPUB with an XHTML file a chapter, in the order given, under names that sort otherwise."""
    files = [f"c{len(chapters) - at}.xhtml" for at in range(len(chapters))]
    items = "".join(f'<item id="{at}" href="{name}"/>' for at, name in enumerate(files))
    spine = "".join(f'<itemref idref="{at}"/>' for at in range(len(files))) * repeat
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
        )
        archive.writestr(
            "OEBPS/book.opf",
            '<package xmlns="http://www.idpf.org/2007/opf">'
            f"<manifest>{items}</manifest><spine>{spine}</spine></package>",
        )
        for name, (title, text) in zip(files, chapters.items(), strict=True):
            if title != missing:
                archive.writestr(
                    f"OEBPS/{name}",
                    f"<html><head><title>书名</title></head><body><h1>{title}</h1><p>{text}</p>"
                    "<script>var x = 1;</script></body></html>",
                )
    return written.getvalue()


def html_page(paragraphs: list[str], encoding: str = "utf-8") -> bytes:
    """A web page with navigation and a footer around its text."""
    body = "".join(f"<p>{text}</p>" for text in paragraphs)
    return (
        f'<html><head><meta charset="{encoding}"><title>小镇</title></head><body>'
        '<nav><a href="/">首页</a> <a href="/news">新闻</a> <a href="/login">登录</a></nav>'
        f"<article>{body}</article><script>track('点击')</script>"
        "<footer>版权所有 小镇网 京ICP备00000000号</footer></body></html>"
    ).encode(encoding)
