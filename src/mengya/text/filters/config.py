"""The settings of the filters and edits of text.

A share is a part of 1. Every default is what `base: standard` uses; docs/data_factory.md says why, and
docs/log/2026-12-01-data-filters.md what was measured.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from mengya.config import Config

PiiKind = Literal["phone", "id_card", "bank_card", "email", "ip"]


class EncodingFilter(Config):
    """Drop text that was decoded wrongly."""

    max_share: float = Field(default=0.01, ge=0, le=1)
    """Largest share of characters that only a wrong decoding writes: U+FFFD, 锟斤拷, 烫烫烫, UTF-8 that was
    read as Latin-1 or GBK."""


class LengthFilter(Config):
    """Drop text with too few or too many letters: white space, punctuation and symbols do not count."""

    min_letters: int = Field(default=5, ge=0)
    """Fewest letters, digits and Chinese characters."""
    max_letters: int | None = Field(default=None, ge=1)
    """Most letters, digits and Chinese characters; null for no limit."""

    @model_validator(mode="after")
    def _limits(self) -> LengthFilter:
        if self.max_letters is not None and self.max_letters < self.min_letters:
            raise ValueError(
                f"max_letters {self.max_letters} is below min_letters {self.min_letters}; "
                f"write max_letters={self.min_letters} or more"
            )
        return self


class ScriptsFilter(Config):
    """Drop text that is written in the wrong script. Shares are of all characters but white space and code
    blocks of Markdown."""

    min_han: float = Field(default=0.05, ge=0, le=1)
    """Smallest share of Chinese characters; 0 keeps text of any language."""
    max_traditional: float | None = Field(default=None, ge=0, le=1)
    """Largest share that Traditional characters are of all that only one of both scripts writes."""
    max_simplified: float | None = Field(default=None, ge=0, le=1)
    """The same for Simplified characters."""
    max_latin: float | None = Field(default=None, ge=0, le=1)
    """Largest share of Latin letters."""
    max_foreign: float = Field(default=0.3, ge=0, le=1)
    """Largest share of letters that are neither Chinese nor Latin: kana, hangul, Cyrillic and so on."""
    max_digits: float = Field(default=0.7, ge=0, le=1)
    """Largest share of digits."""
    max_symbols: float = Field(default=0.6, ge=0, le=1)
    """Largest share of punctuation and symbols together."""
    max_garbage: float = Field(default=0.03, ge=0, le=1)
    """Largest share of control, private and unassigned characters and U+FFFD."""


class InformationFilter(Config):
    """Drop text that says the same again and again, as the compressor zstd sees it."""

    min_compressed: float = Field(default=0.1, ge=0, le=1)
    """Smallest compressed size, as a part of the size in UTF-8."""
    min_bytes: int = Field(default=300, ge=0)
    """Of shorter texts different characters are counted: a compressor needs some text to tell."""
    min_distinct: float = Field(default=0.2, ge=0, le=1)
    """Smallest share of different characters of such a short text."""


class LinesFilter(Config):
    """Drop text that consists of repeated lines. Code blocks of Markdown do not count."""

    max_share: float = Field(default=0.3, ge=0, le=1)
    """Largest share of characters in lines that stood above already."""
    allowed: int = Field(default=3, ge=1)
    """A line counts as repeated from its next appearance after so many: songs and poems have refrains."""


class ParagraphsFilter(Config):
    """Drop text that consists of repeated paragraphs, which blank lines separate."""

    max_share: float = Field(default=0.3, ge=0, le=1)
    """Largest share of characters in paragraphs that stood above already."""
    allowed: int = Field(default=1, ge=1)
    """A paragraph counts as repeated from its next appearance after so many."""


class NgramsFilter(Config):
    """Drop text that repeats sequences of letters, wherever lines end. Code, digits, punctuation and the
    Latin letters of a Chinese text do not count."""

    n: int = Field(default=24, ge=4, le=64, multiple_of=2)
    """Letters of a sequence: longer than most phrases of contracts and judgments."""
    max_repeated: float = Field(default=0.4, ge=0, le=1)
    """Largest share of sequences that stood before."""
    max_top: float = Field(default=0.4, ge=0, le=1)
    """Largest share of letters that the most frequent sequence of n/2 takes; one that stands fewer than six
    times takes none."""
    max_loop: float = Field(default=0.4, ge=0, le=1)
    """Largest share of letters in one stretch that repeats a unit of up to 64 letters three times or more."""
    min_letters: int = Field(default=100, ge=0)
    """Texts with fewer letters are kept."""


class PunctuationFilter(Config):
    """Drop lists of words or links and cut texts by the punctuation of their lines. Code does not count."""

    max_unpunctuated: float = Field(default=0.9, ge=0, le=1)
    """Largest share of characters in lines without any punctuation, of a text without the words of sentences:
    verse and chats without punctuation are kept."""
    min_characters: int = Field(default=200, ge=0)
    """Texts with fewer characters are kept."""
    max_bullet_lines: float = Field(default=0.95, ge=0, le=1)
    """Largest share of lines that begin with a bullet."""
    max_ellipsis_lines: float = Field(default=0.5, ge=0, le=1)
    """Largest share of lines that end in an ellipsis."""
    min_lines: int = Field(default=5, ge=1)
    """Shares of lines are those of texts with so many lines or more."""


class BoilerplateFilter(Config):
    """Remove lines of navigation, copyright and registration; drop text that is little else."""

    remove: bool = True
    """Remove such lines where they do not dominate."""
    max_share: float = Field(default=0.3, ge=0, le=1)
    """Largest share of characters in such lines."""
    min_lines: int = Field(default=2, ge=1)
    """A text with fewer such lines is kept: it speaks about the thing."""


class AdvertisementFilter(Config):
    """Drop advertisements: text with many phrases of promotion."""

    min_phrases: int = Field(default=3, ge=1)
    """Fewest different phrases."""
    min_share: float = Field(default=0.03, ge=0, le=1)
    """Smallest share of characters in such phrases."""


class HtmlFilter(Config):
    """Remove tags, comments, scripts and entities outside of code; drop text that is full of such remains."""

    remove: bool = True
    """Remove tags and comments, with all between <script> and </script>, and decode entities."""
    max_share: float = Field(default=0.2, ge=0, le=1)
    """Largest share of characters that are tags, entities, style sheets or scripts after that."""


class PiiFilter(Config):
    """Personal data: replaced by a placeholder, or the text dropped."""

    action: Literal["replace", "drop"] = "replace"
    """Replace what is found, or drop the text."""
    kinds: list[PiiKind] = Field(default=list(get_args(PiiKind)), min_length=1)
    """What is looked for: Chinese mobile numbers, 18-character identity numbers with a valid check digit,
    bank card numbers that pass Luhn, e-mail addresses, public IP addresses."""
    placeholders: dict[PiiKind, str] = {}
    """Own placeholders, for example {phone: 某手机号}; those not given are 【手机号】, 【身份证号】,
    【银行卡号】, 【邮箱】 and 【IP地址】."""

    @model_validator(mode="after")
    def _placeholders_are_used(self) -> PiiFilter:
        if self.placeholders and self.action == "drop":
            raise ValueError("placeholders are for replacing; write action=replace")
        unused = [kind for kind in self.placeholders if kind not in self.kinds]
        if unused:
            kinds = ",".join([*self.kinds, *unused])
            raise ValueError(
                f"placeholders has {unused[0]}, which kinds leaves out; write kinds=[{kinds}]"
            )
        return self


class SimplifyEdit(Config):
    """Traditional Chinese to Simplified, by OpenCC (pip install -e '.[opencc]')."""

    conversion: Literal["t2s", "tw2s", "tw2sp", "hk2s"] = "t2s"
    """OpenCC's name of the conversion: of characters (t2s), from Taiwan's forms (tw2s), with its words too
    (tw2sp: 滑鼠 to 鼠标), from Hong Kong's forms (hk2s)."""


class FilterConfig(Config):
    """A section that is given is on; one that is null is off; one that is not given is as `base` says."""

    text_field = "base"

    base: Literal["none", "standard"] = "none"
    """Which sections are on without being named: none, or all that suit Chinese text from the web (every one
    but simplify)."""
    html: HtmlFilter | None = None
    """Tags, comments, scripts and entities: removed; text full of them is dropped."""
    boilerplate: BoilerplateFilter | None = None
    """Lines of navigation, copyright and registration: removed; text that is little else is dropped."""
    pii: PiiFilter | None = None
    """Personal data: replaced, or the text dropped."""
    simplify: SimplifyEdit | None = None
    """Traditional characters are converted to Simplified."""
    encoding: EncodingFilter | None = None
    """Text that was decoded wrongly is dropped."""
    length: LengthFilter | None = None
    """Too few or too many letters."""
    scripts: ScriptsFilter | None = None
    """The wrong script."""
    punctuation: PunctuationFilter | None = None
    """Lists and cut texts."""
    advertisement: AdvertisementFilter | None = None
    """Advertisements."""
    repeated_lines: LinesFilter | None = None
    """Repeated lines."""
    repeated_paragraphs: ParagraphsFilter | None = None
    """Repeated paragraphs."""
    repeated_ngrams: NgramsFilter | None = None
    """Repeated sequences of characters, and loops."""
    information: InformationFilter | None = None
    """Text that compresses too well."""

    @model_validator(mode="before")
    @classmethod
    def _from_base(cls, value: Any) -> Any:
        value = {"base": value} if isinstance(value, str) else value
        if isinstance(value, dict) and value.get("base") == "standard":
            return {**{name: {} for name in STANDARD}, **value}
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        names = {"enum": ["none", "standard"]}
        return {"anyOf": [names, handler.resolve_ref_schema(handler(schema))]}


STANDARD = tuple(name for name in FilterConfig.model_fields if name not in ("base", "simplify"))
