"""For a reason to drop a sample, the setting that keeps it; knows nothing of samples."""

from __future__ import annotations

_SECTIONS = {
    "broken_encoding": "encoding",
    "too_few_letters": "length",
    "too_many_letters": "length",
    "html_remains": "html",
    **dict.fromkeys(
        (
            "garbage", "symbols", "digits", "foreign", "few_han", "latin", "traditional", "simplified",
        ),
        "scripts",
    ),
    "boilerplate": "boilerplate",
    "advertisement": "advertisement",
    "repeated_lines": "repeated_lines",
    "repeated_paragraphs": "repeated_paragraphs",
    **dict.fromkeys(("repeated_ngrams", "top_ngram", "loop"), "repeated_ngrams"),
    "low_information": "information",
    **dict.fromkeys(("unpunctuated", "bullet_lines", "ellipsis_lines"), "punctuation"),
    "pii": "pii",
}  # fmt: skip
_KEYS = {
    "too_short": "clean.min_characters=0",
    "contaminated": "contamination.action=report",
    "near_duplicate": "near_duplicates.action=together",
    "placeholder": "placeholders=warn",
    "repeated_text": "repeated_text=null",
}


def key_of(reason: str) -> str | None:
    """What to type to keep what is dropped for the reason; None for what a user's own filter says."""
    if reason in _SECTIONS:
        return f"filters.{_SECTIONS[reason]}=null"
    return _KEYS.get(reason)
