"""A proof for people: a table in the terminal and one in Markdown, in English or Chinese."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mengya.export.parity.result import CHECKS, Check, CheckName, Parity
from mengya.text.markdown import markdown_table

Language = Literal["en", "zh"]
_LABELS: dict[CheckName, tuple[str, str]] = {
    "token_ids": ("texts with other ids, of {}", "token id 不同的文本（共 {} 段）"),
    "prompt_ids": ("prompts with other ids, of {}", "token id 不同的提示词（共 {} 段）"),
    "prompts": ("prompts rendered otherwise, of {}", "渲染结果不同的对话（共 {} 段）"),
    "stop_tokens": ("other stop tokens, of {}", "缺少或多出的停止词（共 {} 个）"),
    "written_error": ("logit error but for rounding, of {}", "除舍入外的 logits 误差（{} 个位置）"),
    "logit_error_mean": ("logit error, mean of {}", "logits 相对误差，{} 个位置的平均"),
    "logit_error_max": ("logit error, worst of {}", "logits 相对误差，{} 个位置中最大"),
    "nats_rise": ("rise in nats per token, of {}", "每 token 增加的 nats（{} 个 token）"),
    "greedy_agreement": ("same likeliest token, of {}", "最可能的 token 相同（共 {} 个位置）"),
}
# For 80 columns: one line a check.
_SHORT: dict[CheckName, str] = {
    "token_ids": "{} texts: other token ids",
    "prompt_ids": "{} prompts: other token ids",
    "prompts": "{} chats: rendered otherwise",
    "stop_tokens": "{} stop tokens: others",
    "written_error": "logits: error but for rounding",
    "logit_error_mean": "logits: relative error, mean",
    "logit_error_max": "logits: relative error, worst",
    "nats_rise": "nats per token: rise",
    "greedy_agreement": "same likeliest token",
}
_COLUMNS = {"en": ("check", "bound"), "zh": ("检查项", "界限")}
_NATS = {"en": "nats per token; bits per character", "zh": "每 token 的 nats；每字符的比特数"}
_NOT_ASKED = {"en": "not asked", "zh": "未检查"}
_FAILED = {"en": "fails", "zh": "出错"}


def parity_table(parity: Parity) -> Table:
    """For a terminal of 80 columns; a missed bound is red."""
    table = Table(
        title="proof: what was written answers as the checkpoint does",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("check", no_wrap=True)
    table.add_column("bound", justify="right", no_wrap=True)
    for reader in parity.readers:
        table.add_column(reader.program.replace("[", r"\["), justify="right", overflow="fold")
    missed = {check.name for _, check in parity.missed()} | set(parity.unanswered())
    for name, checks in _asked(parity):
        known = [check for check in checks if check is not None]
        label = _SHORT[name].format(f"{max(check.of for check in known):,}")
        row = [label, _bound(known[0]), *(_value(check, "en") for check in checks)]
        table.add_row(*row, style="red" if name in missed else None)
    return table


def parity_note(parity: Parity) -> str:
    """The figures before and after in a sentence, and where they are explained."""
    after = [r.bits_per_char for r in parity.readers if r.bits_per_char is not None]
    before = parity.bits_per_char
    figures = (
        f"{parity.held_out['name']}: {before:.3f} bits per character before, {after[-1]:.3f} after\n"
        if before is not None and after
        else ""
    )
    return f"{figures}What the checks mean: docs/export.md"


def parity_markdown(parity: Parity, language: Language = "en") -> str:
    """The same table for a model card."""
    header, rows = _rows(parity, language)
    return markdown_table(header, rows)


def _asked(parity: Parity) -> Iterator[tuple[CheckName, list[Check | None]]]:
    """Every check that some program was given, with what each found."""
    for name in CHECKS:
        checks = [reader.check(name) for reader in parity.readers]
        if any(check is not None for check in checks):
            yield name, checks


def _rows(parity: Parity, language: Language) -> tuple[list[str], list[list[str]]]:
    header = [*_COLUMNS[language], "mengya", *(reader.program for reader in parity.readers)]
    rows: list[list[str]] = []
    for name, checks in _asked(parity):
        known = [check for check in checks if check is not None]
        of = max(check.of for check in known)
        label = _LABELS[name][language == "zh"].format(f"{of:,}")
        rows.append([label, _bound(known[0]), "", *(_value(check, language) for check in checks)])
    nats = [_nats(parity.nats_per_token, parity.bits_per_char)]
    nats += [_nats(reader.nats_per_token, reader.bits_per_char) for reader in parity.readers]
    return header, [*rows, [_NATS[language], "", *nats]]


def _bound(check: Check) -> str:
    if check.bound is None:
        return ""
    return f"{'≥' if check.is_least else '≤'} {_number(check.name, check.bound)}"


def _value(check: Check | None, language: Language) -> str:
    if check is None:
        return ""
    if check.failure:
        return _FAILED[language]
    return _NOT_ASKED[language] if check.value is None else _number(check.name, check.value)


def _number(name: CheckName, value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if name == "greedy_agreement":
        return f"{value:.2%}"
    return f"{value:.4f}" if name == "nats_rise" else f"{value:.2g}"


def _nats(nats: float | None, bits: float | None) -> str:
    return "" if nats is None or bits is None else f"{nats:.4f}; {bits:.4f}"
