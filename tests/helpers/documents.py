"""Small PDF, Word, EPUB and HTML files with Chinese text."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile

import docx


def pdf(
    pages: list[list[str]], damaged_page: int | None = None, password: str | None = None
) -> bytes:
    """A PDF with a line of text for each string, in a font that it does not embed.

    Args:
        damaged_page: index of a page whose object is no page.
        password: that opens it; "" locks only what a reader may do with it.
    """
    lock = None if password is None else PdfLock(password)
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
        content = lock.locked(number, content) if lock else content
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    count = len(objects) + 1
    more = lock.trailer if lock else ""
    trailer = f"trailer\n<< /Size {count} /Root 1 0 R {more}>>\nstartxref\n{len(body)}\n%%EOF\n"
    return f"{body}xref\n0 {count}\n0000000000 65535 f \n{table}{trailer}".encode("latin-1")


class PdfLock:
    """The standard handler of PDF 1.4, revision 2: RC4 with 40 bits (ISO 32000-1, 7.6.3)."""

    _PAD = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
    _ID, _RIGHTS = b"0123456789abcdef", b"\xfc\xff\xff\xff"

    def __init__(self, password: str) -> None:
        user = (password.encode() + self._PAD)[:32]
        owner = rc4(hashlib.md5((b"owner" + self._PAD)[:32]).digest()[:5], user)
        self._key = hashlib.md5(user + owner + self._RIGHTS + self._ID).digest()[:5]
        check = rc4(self._key, self._PAD)
        rights = int.from_bytes(self._RIGHTS, "little", signed=True)
        self.trailer = (
            f"/ID [<{self._ID.hex()}> <{self._ID.hex()}>] /Encrypt << /Filter /Standard /V 1 /R 2 "
            f"/O <{owner.hex()}> /U <{check.hex()}> /P {rights} >> "
        )

    def locked(self, number: int, content: str) -> str:
        """An object with its strings and its stream locked."""
        key = hashlib.md5(self._key + number.to_bytes(3, "little") + b"\0\0").digest()[:10]
        head, stream, rest = content.partition("stream\n")
        head = re.sub(r"\((\w+)\)", lambda m: f"<{rc4(key, m[1].encode()).hex()}>", head)
        if not stream:
            return head
        plain = rest.removesuffix("\nendstream").encode("latin-1")
        return f"{head}{stream}{rc4(key, plain).decode('latin-1')}\nendstream"


def rc4(key: bytes, data: bytes) -> bytes:
    state, at, other = list(range(256)), 0, 0
    for i in range(256):
        other = (other + state[i] + key[i % len(key)]) % 256
        state[i], state[other] = state[other], state[i]
    other, out = 0, bytearray()
    for byte in data:
        at = (at + 1) % 256
        other = (other + state[at]) % 256
        state[at], state[other] = state[other], state[at]
        out.append(byte ^ state[(state[at] + state[other]) % 256])
    return bytes(out)


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
