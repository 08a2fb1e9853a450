"""The two files of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mengya.data.prepare.report.render import Language, render_report
from mengya.runtime.files import write_text
from mengya.runtime.unicode import is_unicode

JSON, HTML = "data_report.json", "report.html"


def write_report(folder: Path, facts: Mapping[str, Any], base_css: str, language: Language) -> None:
    """Write data_report.json and report.html, which shows `language` first."""
    text = json.dumps(facts, ensure_ascii=False, indent=1)
    write_text(folder / JSON, (text if is_unicode(text) else json.dumps(facts, indent=1)) + "\n")
    write_text(folder / HTML, render_report(facts, base_css, language))
