"""Personal data: Chinese mobile numbers, identity numbers, bank cards, e-mail and public IP addresses.

Digits inside longer numbers, amounts, versions, ISBNs and private addresses are none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

from mengya.text.filters.config import PiiFilter, PiiKind

PLACEHOLDERS: dict[PiiKind, str] = {
    "phone": "【手机号】",
    "id_card": "【身份证号】",
    "bank_card": "【银行卡号】",
    "email": "【邮箱】",
    "ip": "【IP地址】",
}

_LONG_NUMBER = re.compile(r"[0-9][0-9 -]{9}[0-9]")
# Patterns begin with a plain character class, which the engine skips to; what must not stand before is
# looked at from behind it.
_PHONE = re.compile(
    r"1(?:(?<![0-9A-Za-z_.\-/=%#$]1)|(?<=861)|(?<=86-1))(?:3\d|4[5-9]|5[0-35-9]|6[2567]|7[0-8]|8\d|9[0-35-9])"
    r"(?:\d{8}|-\d{4}-\d{4}| \d{4} \d{4})"
    r"(?![0-9A-Za-z_$]|[.,:/-]\d| \d|\s*(?:元|万|亿|人次|人|吨|字节|美元|次|个|%|％))",
    re.ASCII,
)
_COUNTRY = re.compile(r"(?<![0-9A-Za-z])(?:\+|00)?86[- ]?\Z", re.ASCII)
_LONGER_NUMBER = re.compile(r"\d[ ,-]?\Z", re.ASCII)
_ID_CARD = re.compile(
    r"[1-9](?<![0-9A-Za-z_.]\d)\d{5}(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]"
    r"(?![0-9A-Za-z_]|\.\d)",
    re.ASCII,
)
_CARD = re.compile(
    r"[3-69](?<![0-9A-Za-z_.\-/=#]\d)(?<!\d[ ,]\d)\d{3}"
    r"(?:\d{11,15}|(?: \d{4}){3}(?: \d{3})?|(?:-\d{4}){3}(?:-\d{3})?)"
    r"(?![0-9A-Za-z_]|[.,/-]\d| \d)",
    re.ASCII,
)
_UNIONPAY = re.compile(r"62\d{14,17}|9558\d{15}|60\d{14,17}")
_OTHER_ISSUER = re.compile(r"4\d{15}|5[1-5]\d{14}|35\d{14}|3[47]\d{13}")
_ABOUT_CARDS = re.compile(r"卡|[账帐]号|[账帐]户|银行|支付|[Cc]ard|[Aa]ccount|VISA|Visa")
_HOST = re.compile(
    r"@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\."
    r"(com|net|org|edu|gov|info|biz|top|xyz|vip|club|site|online|tech|dev|app|[a-z]{2})"
    r"(?![A-Za-z0-9_-]|\.[A-Za-z0-9])",
    re.ASCII,
)
_LOCAL = re.compile(r"[A-Za-z0-9_.%+-]{1,64}\Z", re.ASCII)
_IP = re.compile(
    r"[1-9](?<![0-9A-Za-z_.\-=]\d)(?<![^/]/\d)\d{0,2}(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}"
    r"(?![0-9A-Za-z_]|\.\w|/\d)",
    re.ASCII,
)
_VERSION = re.compile(r"(?:v|V|版本?|[Vv]ersion|[Vv]er\.?|[Rr]elease)\s*(?:号|为|是|:|：)?\s*$")
_PUBLIC_SERVERS = {"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "114.114.114.114",
                   "223.5.5.5", "223.6.6.6", "119.29.29.29", "180.76.76.76"}  # fmt: skip
_EXAMPLE_HOST = re.compile(
    r"(?:^|\.)(?:example|test|invalid|localhost|local|domain|yourdomain|mydomain|email|xxx|xx|abc|[a-z])\."
)
_NO_PERSON = {
    "git",
    "hg",
    "svn",
    "noreply",
    "no-reply",
    "user",
    "username",
    "yourname",
    "example",
    "test",
}
_FILE_ENDS = {"png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "md", "html", "py", "ts"}
_PROVINCES = {11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46,
              50, 51, 52, 53, 54, 61, 62, 63, 64, 65, 71, 81, 82, 83, 91}  # fmt: skip
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)

Span = tuple[int, int]
Finder = Callable[[str], Iterator[Span]]


class Pii:
    """Finds personal data: replaces it as an edit, or drops the text (pii)."""

    def __init__(self, config: PiiFilter) -> None:
        self._find: list[tuple[PiiKind, Finder]] = [
            (kind, _FINDERS[kind]) for kind in _FINDERS if kind in config.kinds
        ]
        self._placeholders = PLACEHOLDERS | config.placeholders

    def edit(self, text: str) -> str:
        """The text with placeholders for what is found."""
        for kind, find in self._finders(text):
            spans = list(find(text))
            if spans:
                text = _replaced(text, spans, self._placeholders[kind])
        return text

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None."""
        found = any(next(find(text), None) is not None for _, find in self._finders(text))
        return "pii" if found else None

    def _finders(self, text: str) -> list[tuple[PiiKind, Finder]]:
        """Those that can find something: most texts have no long number."""
        if _LONG_NUMBER.search(text):
            return self._find
        return [(kind, find) for kind, find in self._find if kind in ("email", "ip")]


def _replaced(text: str, spans: list[Span], placeholder: str) -> str:
    parts, end = [], 0
    for first, last in spans:
        parts += [text[end:first], placeholder]
        end = last
    return "".join([*parts, text[end:]])


def phones(text: str) -> Iterator[Span]:
    """Mobile numbers of mainland China, a country code included."""
    for found in _PHONE.finditer(text):
        before = text[max(0, found.start() - 6) : found.start()]
        code = _COUNTRY.search(before)
        if code or not _LONGER_NUMBER.search(before):
            yield found.start() - (len(code[0]) if code else 0), found.end()


def id_cards(text: str) -> Iterator[Span]:
    """Identity numbers whose province exists and whose check digit (GB 11643, ISO 7064 MOD 11-2) is right."""
    for found in _ID_CARD.finditer(text):
        digits = found[0]
        total = sum(w * int(d) for w, d in zip(_WEIGHTS, digits, strict=False))
        if int(digits[:2]) in _PROVINCES and "10X98765432"[total % 11] == digits[17].upper():
            yield found.span()


def bank_cards(text: str) -> Iterator[Span]:
    """Card numbers of 15 to 19 digits of a known issuer that pass the check of Luhn (ISO/IEC 7812)."""
    for found in _CARD.finditer(text):
        digits = re.sub("[ -]", "", found[0])
        if len(set(digits)) > 3 and passes_luhn(digits) and _is_card(text, found, digits):
            yield found.span()


def _is_card(text: str, found: re.Match[str], digits: str) -> bool:
    """One in ten numbers passes Luhn: one that is not UnionPay's is a card in groups, or near such a word."""
    if _UNIONPAY.fullmatch(digits):
        return True
    near = text[max(0, found.start() - 24) : found.end() + 12]
    grouped = len(digits) != len(found[0])
    return bool(_OTHER_ISSUER.fullmatch(digits) and (grouped or _ABOUT_CARDS.search(near)))


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def emails(text: str) -> Iterator[Span]:
    """E-mail addresses of persons: not those of examples, nor of Git servers, nor names of image files."""
    if "@" not in text:
        return
    end = 0
    for host in _HOST.finditer(text):
        local = _LOCAL.search(text, max(end, host.start() - 65), host.start())
        if local is None or host[1].lower() in _FILE_ENDS or local[0].lower() in _NO_PERSON:
            continue
        if not _EXAMPLE_HOST.search(host[0][1:].lower()):
            end = host.end()
            yield local.start(), end


def ip_addresses(text: str) -> Iterator[Span]:
    """IPv4 addresses that are reachable from everywhere: not those of networks, versions, examples, DNS."""
    for found in _IP.finditer(text):
        numbers = found[0].split(".")
        # Small numbers are a section or a version.
        if found[0] in _PUBLIC_SERVERS or numbers[3] == "0" or all(int(n) < 26 for n in numbers):
            continue
        try:
            address = ipaddress.IPv4Address(found[0])
        except ValueError:  # leading zeros, or a first number above 255
            continue
        if (
            address.is_global
            and not address.is_multicast
            and not _VERSION.search(text, max(0, found.start() - 12), found.start())
        ):
            yield found.span()


_FINDERS: dict[PiiKind, Finder] = {
    "phone": phones,
    "id_card": id_cards,
    "bank_card": bank_cards,
    "email": emails,
    "ip": ip_addresses,
}
