"""Planted loops that the meter finds, and honest text that it flags.

Loops: real text, then a piece of 1 to --longest characters repeated, in eight ways: as it is, without
punctuation, with punctuation that changes, with line ends between, with a counter before each repeat (arabic,
Chinese), with a number inside that changes; 64 to 400 characters and 4 repeats or more (6 with counters), cut
anywhere. Drifting: clauses of 2 to 8 characters, one, the other or both, in any order. Honest: the ends of
real records, every second one cut at a random place, by kind of text.

usage: python benchmarks/loops.py SHARED_DATA [--count 1000] [--longest 64] [--all] [--show]
SHARED_DATA: the folder of the shared data (pretrain/, sft/). --all: as many honest texts as there are, up to
20,000 of a kind. --show: prints each text that is missed or flagged.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections import Counter
from pathlib import Path

from mengya.data.ingest.reading.records import texts_in
from mengya.measured.intervals import wilson
from mengya.text.loops import ending_loop

KINDS = {
    "poetry": "pretrain/poetry",
    "law": "pretrain/law_statutes",
    "judgments": "pretrain/court_judgments",
    "news": "pretrain/news_xinwenlianbo",
    "encyclopedia": "pretrain/wiki_passages",
    "classics": "pretrain/classical_texts",
    "novels": "pretrain/classic_novels",
    "stories": "pretrain/stories_and_school_texts",
    "recipes, medicine": "pretrain/life_recipes_medical",
    "notes with code": "pretrain/open_books_and_notes",
    "algorithms": "pretrain/oi_wiki",
    "documentation": "pretrain/docs_tidb",
    "technology": "pretrain/tech_news_lctt",
    "weekly lists": "pretrain/weekly_ruanyf",
    "answers": "sft/alpaca_zh_carbonz0",
    "arithmetic": "sft/gsm8k_train",
    "dialogues": "sft/smilechat_6k",
}
WAYS = ("exact", "no punctuation", "other punctuation", "line ends", "counter", "counter in Chinese",
        "number inside", "drifting")  # fmt: skip
DIGITS = "零一二三四五六七八九十"


def honest_texts(shared: Path, count: int | None, rng: random.Random) -> dict[str, list[str]]:
    """`count` in all, the same number of each kind; None: up to 20,000 records of each."""
    texts: dict[str, list[str]] = {}
    for kind, name in KINDS.items():
        with gzip.open(shared / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            lines = file.readlines()
        rng.shuffle(lines)
        wanted = 20_000 if count is None else -(-count // len(KINDS))
        longest = (max(texts_in(json.loads(line)), key=len) for line in lines)
        found: list[str] = []
        for text in longest:
            if len(found) >= wanted:
                break
            if len(text) >= 60:
                # Every second one is cut as an answer is that reaches its limit.
                found.append(text[: rng.randint(60, len(text))] if len(found) % 2 else text)
        texts[kind] = found
    return texts


def planted(way: str, texts: list[str], longest: int, rng: random.Random) -> str:
    """Some text that ends in a loop."""
    before, source = rng.choice(texts), rng.choice(texts)
    period = rng.randint(1, longest)
    start = rng.randint(0, max(0, len(source) - period))
    unit = source[start : start + period]
    letters = "".join(c for c in unit if c.isalpha())
    if way != "exact":
        unit = letters
    if not letters:
        unit = "你好"[: period or 1]
    if way == "drifting":
        pieces = [
            source[at : at + rng.randint(2, 8)] for at in rng.choices(range(len(source)), k=2)
        ]
        one, other = ("".join(filter(str.isalnum, piece)) or "缺点" for piece in pieces)
        clauses = rng.choices((one, other, one + other, one + one), k=80)
        return before[: rng.randint(0, 300)] + "".join(c + rng.choice("，。、和") for c in clauses)
    counted = "counter" in way or way == "number inside"
    if counted and len(unit) < 2:
        unit += "多喝水"
    repeats = max(6 if counted else 4, -(-rng.randint(64, 400) // len(unit)))
    numbers = range(1, repeats + 1)
    parts = {
        "exact": [unit] * repeats,
        "no punctuation": [unit] * repeats,
        "other punctuation": [
            unit + rng.choice(["，", "。", "、", "！", "", "……"]) for _ in numbers
        ],
        "line ends": [unit + rng.choice(["\n", "\n\n", " ", "。\n- "]) for _ in numbers],
        "counter": [f"{n}. {unit}\n" for n in numbers],
        "counter in Chinese": [f"第{_chinese(n)}，{unit}。" for n in numbers],
        "number inside": [f"{unit[:1]}{rng.randint(0, 3000)}{unit[1:]}，" for _ in numbers],
    }[way]
    loop = "".join(parts)
    return before[: rng.randint(0, 300)] + loop[: len(loop) - rng.randint(0, len(unit) // 2)]


def _chinese(number: int) -> str:
    tens, ones = divmod((number - 1) % 99 + 1, 10)
    return (
        (DIGITS[tens] if tens > 1 else "") + ("十" if tens else "") + (DIGITS[ones] if ones else "")
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shared", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--longest", type=int, default=64)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    rng = random.Random(0)
    honest = honest_texts(options.shared, None if options.all else options.count, rng)
    pool = [text for texts in honest.values() for text in texts]
    made, missed = Counter[str](), Counter[str]()
    for number in range(options.count):
        way = WAYS[number % len(WAYS)]
        text = planted(way, pool, options.longest, rng)
        made[way] += 1
        if ending_loop(text) is None:
            missed[way] += 1
            if options.show:
                print(f"missed, {way}: {text[-150:]!r}")
    _print("planted", "found", {way: (made[way] - missed[way], made[way]) for way in WAYS})
    flagged = Counter[str]()
    for kind, texts in honest.items():
        for text in texts:
            if loop := ending_loop(text):
                flagged[kind] += 1
                if options.show:
                    print(
                        f"flagged, {kind}: {loop.unit!r} {loop.repeats:.1f} times: {text[-150:]!r}"
                    )
    _print(
        "honest", "flagged", {kind: (flagged[kind], len(texts)) for kind, texts in honest.items()}
    )


def _print(title: str, what: str, rows: dict[str, tuple[int, int]]) -> None:
    rows = {**rows, "all": (sum(n for n, _ in rows.values()), sum(n for _, n in rows.values()))}
    print(f"\n| {title} | texts | {what} | share | 95 % interval |\n|---|---:|---:|---:|---:|")
    for name, (found, of) in rows.items():
        low, high = wilson(found, of)
        print(f"| {name} | {of:,} | {found:,} | {found / of:.2%} | {low:.2%} to {high:.2%} |")


if __name__ == "__main__":
    main()
