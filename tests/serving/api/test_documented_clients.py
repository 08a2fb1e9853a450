"""The lines of docs/serving.md for clients of other APIs run as they stand there."""

from __future__ import annotations

import runpy
from pathlib import Path

from tests.helpers.live_server import Running

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"


def test_other_clients_run_as_documented(learned_server: Running, tmp_path: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Other APIs")[2].partition("\n## ")[0]
    code = section.partition("```python\n")[2].partition("```")[0]
    for documented, here in (
        ("http://127.0.0.1:8000", learned_server.url),
        ('"sft"', '"tiny"'),
        ("你好", "想"),  # which the model knows an answer to
    ):
        assert documented in code
        code = code.replace(documented, here)
    for name, call in (
        ("of_openai", "OpenAI("),
        ("of_anthropic", "Anthropic("),
        ("of_ollama", "Client("),
    ):
        code = code.replace(f"\n{call}", f"\n{name} = {call}")
    (tmp_path / "lines.py").write_text(code, encoding="utf-8")
    made = runpy.run_path(str(tmp_path / "lines.py"))
    assert made["of_openai"].output_text == "好的𠮷"
    assert made["of_anthropic"].content[-1].text == "好的𠮷"
    assert made["of_ollama"].message.content == "好的𠮷"
