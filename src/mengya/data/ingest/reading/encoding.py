"""Which encoding a file is in: UTF-8, UTF-16, gb18030 or big5, by its first megabyte."""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import IO, cast

from mengya.data.ingest.reading.compressed import DAMAGE, open_stream
from mengya.data.ingest.reading.documents.kinds import is_document
from mengya.data.ingest.reading.files import file_kind

AUTO = "auto"
SAMPLE = 1 << 20  # bytes
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMMON = frozenset(
    "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后"
    "小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两"
    "长知民样现分将外但身些与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几很"
    "业最间新什打便位因重被走电四第门相次东政海口使教西再平真听世气信北少关并内加化由却代军产入先山五太"
    "水万市眼体别处总才场师书比住员九笑性通目华报立题答案请什吗呢吧医病药科法律"
    "這來國個說們為時會著過學對裡後麼沒發當開無經頭從動兩長樣現將與進實點種聲話問機給幾業間電門東聽氣關並"
    "內產萬體別處總場師書員華報題請嗎醫藥"
)
_ENOUGH = 0.12  # of the Chinese characters are common ones in any real text; a wrong guess gives rare ones


def detect_encoding(path: Path) -> str:
    """utf-8, utf-16, utf-16-le, utf-16-be, utf-32, gb18030 or big5.

    A file that fits none of them, and one of which most lines are UTF-8, is utf-8: what is not, is reported
    line by line. The answer is a guess for other encodings only, which have to be named.
    """
    if (kind := file_kind(path)) == "parquet" or is_document(kind):
        return "utf-8"  # they say themselves
    try:
        with open_stream(path) as (stream, _):
            sample = stream.read(SAMPLE)
    except DAMAGE:
        return "utf-8"  # the reader says what is damaged
    return encoding_of(sample)


def encoding_of(sample: bytes) -> str:
    """As `detect_encoding`, of the first bytes of a file."""
    if marked := marked_encoding(sample):
        return marked
    if b"\0" in sample and (name := _utf16(sample)):
        return name
    if _decodes(sample, "utf-8"):
        return "utf-8"
    lines = [line for line in sample.split(b"\n") if not line.isascii()]
    if 2 * sum(_decodes(line, "utf-8") for line in lines) >= len(lines):
        return "utf-8"
    best, most = "utf-8", _ENOUGH
    if b"\0" in sample:
        lines = [sample[: len(sample) & ~1]]
    for name in ("utf-16-le", "utf-16-be") if b"\0" in sample else ("gb18030", "big5"):
        share = _common_share(lines, name)
        if share > most:
            best, most = name, share
    return best


def marked_encoding(start: bytes) -> str | None:
    """The encoding that a byte order mark at the start of a text names: utf-8, utf-16 or utf-32."""
    return next((name for mark, name in _MARKS if start.startswith(mark)), None)


def as_utf8(stream: IO[bytes], encoding: str) -> tuple[IO[bytes], str]:
    """The stream with the encoding to read it in: UTF-16 and UTF-32, whose lines do not end in a byte of
    their own, are recoded to UTF-8; what is malformed in them becomes malformed UTF-8."""
    if not codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
        return stream, encoding
    return cast(IO[bytes], io.BufferedReader(_Recoded(stream, encoding), 1 << 17)), "utf-8"


class _Recoded(io.RawIOBase):
    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="surrogatepass")
        self._ready, self._ended = b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready and not self._ended:
            data = self._stream.read(1 << 16)
            self._ended = not data
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeError:  # units that are no character: the rest cannot be aligned
                text, self._ended = "\udfff", True
            self._ready = text.encode("utf-8", "surrogatepass")
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def _decodes(sample: bytes, encoding: str) -> bool:
    """Whether it is valid, a character cut off at its end aside."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _utf16(sample: bytes) -> str | None:
    """UTF-16 without a mark and rich in ASCII, whose zero bytes are always on the same side."""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if min(even, odd) * 20 > max(even, odd) or max(even, odd) * 5 < len(sample):
        return None
    name = "utf-16-le" if odd > even else "utf-16-be"
    return name if _decodes(sample, name) else None


def _common_share(lines: list[bytes], encoding: str) -> float:
    """Common characters among the Chinese ones; 0 when more than a tenth of the lines is not valid."""
    texts = [line.decode(encoding) for line in lines if _decodes_fully(line, encoding)]
    if 10 * len(texts) < 9 * (len(lines) - 1):  # the last line may be cut
        return 0.0
    chinese = [c for text in texts for c in text if "\u3400" <= c <= "\u9fff"]
    other = sum(not c.isascii() for text in texts for c in text) - len(chinese)
    if len(chinese) < other:
        return 0.0
    return sum(c in _COMMON for c in chinese) / max(1, len(chinese))


def _decodes_fully(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
