"""report.html: data_report.json for people, on one page that needs no network and runs no script.

Takes the values of facts.py and the style sheet of mengya's pages; gives HTML in Chinese and English with a
switch between them. Every text of the data is escaped, and control characters in it are shown as U+FFFD.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import chain, zip_longest
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mengya.data.prepare.report.words import Said, say, say_reason, visible

SHOWN = 10  # examples of every kind
_SHOWN_FILES = 20  # of a source in the ledger
_HISTOGRAMS = ("characters", "tokens", "turns", "chinese")
Language = Literal["zh", "en"]


@dataclass(frozen=True)
class Bar:
    """A line of a chart: `value` and `more` are parts of its full width, `more` has another colour."""

    label: Said | str
    value: float
    numbers: Sequence[str]
    more: float = 0.0


@dataclass
class Group:
    """What one filter dropped, or one edit changed, over all sources."""

    name: str
    samples: int = 0
    characters: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


def render_report(facts: Mapping[str, Any], base_css: str, language: Language) -> str:
    """The page of data_report.json.

    Args:
        base_css: colours and type, which the page's own style sheet builds on.
        language: that the page shows first.
    """
    environment = Environment(
        loader=PackageLoader("mengya.data.prepare.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=visible,
    )
    environment.filters |= {"number": _number, "percent": _percent, "size": _size}
    own_css = files("mengya.data.prepare.report").joinpath("templates/report.css")
    sources = facts["sources"]
    return environment.get_template("report.html.jinja").render(
        facts=facts,
        what=say(facts["kind"]),
        say=say,
        say_reason=say_reason,
        language=language,
        title=getattr(say("title"), language),
        css=Markup(base_css + own_css.read_text(encoding="utf-8")),  # our own files
        sum=_sums(sources),
        funnel=_funnel(sources),
        reasons=_reasons(sources),
        dropped=_groups(sources, "dropped"),
        edits=_groups(sources, "edits"),
        kept=_few(source["kept"]["examples"] for source in sources),
        charts=list(_charts(facts["histograms"])),
        changed=_changed,
        shown_files=_SHOWN_FILES,
    )


def _sums(sources: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    kept = {
        name: sum(source["kept"][name] for source in sources)
        for name in ("samples", "characters", "tokens", "learnt_tokens", "held_out")
    }
    dropped = [values for source in sources for values in source["dropped"].values()]
    return {
        "read": sum(source["read"] for source in sources),
        "bad": sum(source["bad"] for source in sources),
        **{f"kept_{name}": number for name, number in kept.items()},
        "samples": kept["samples"] + sum(values["samples"] for values in dropped),
        "characters": kept["characters"] + sum(values["characters"] for values in dropped),
    }


def _reasons(sources: Iterable[Mapping[str, Any]]) -> list[str]:
    """All of them, those that dropped the most samples first."""
    return [group.name for group in _groups(sources, "dropped")]


def _groups(sources: Iterable[Mapping[str, Any]], key: str) -> list[Group]:
    """What was dropped for each reason, or changed by each edit, over all sources; the largest first."""
    sources = list(sources)
    found: dict[str, Group] = {}
    for source in sources:
        for name, values in source[key].items():
            group = found.setdefault(name, Group(name))
            group.samples += values["samples"]
            group.characters += values.get("characters", 0)
    for name, group in found.items():
        group.examples = _few(source[key].get(name, {}).get("examples", []) for source in sources)
    return sorted(found.values(), key=lambda group: (-group.samples, group.name))


def _few(of_sources: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Ten examples, of every source in turn."""
    turns = zip_longest(*of_sources)
    return [each for each in chain.from_iterable(turns) if each is not None][:SHOWN]


def _funnel(sources: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """What is left after each reason, in parts of all samples; what it took has another colour."""
    total = _sums(sources)
    everything = max(total["samples"], 1)
    left = total["samples"]
    bars = [Bar(say("bar_all"), 1.0 if left else 0.0, _numbers(left, total["characters"], total))]
    for group in _groups(sources, "dropped"):
        left -= group.samples
        samples, characters, share = _numbers(group.samples, group.characters, total)
        numbers = [f"-{samples}", f"-{characters}", share]
        bars.append(
            Bar(say_reason(group.name), left / everything, numbers, group.samples / everything)
        )
    kept = _numbers(total["kept_samples"], total["kept_characters"], total)
    return [*bars, Bar(say("bar_kept"), left / everything, kept)]


def _numbers(samples: int, characters: int, total: Mapping[str, int]) -> list[str]:
    """Samples, characters, and their share of all characters."""
    share = characters / max(total["characters"], 1)
    return [_number(samples), _number(characters), _percent(share)]


def _charts(histograms: Mapping[str, Any]) -> Iterator[tuple[Said, list[Bar]]]:
    for name in _HISTOGRAMS:
        if bins := histograms[name]:
            most = max(bin_["samples"] for bin_ in bins)
            yield (
                say(f"chart_{name}"),
                [
                    Bar(_range(name, bin_), bin_["samples"] / most, [_number(bin_["samples"])])
                    for bin_ in bins
                ],
            )
    if scripts := histograms["scripts"]:
        total = sum(scripts.values())
        shares = ((say(name), count / total) for name, count in scripts.items())
        yield say("chart_scripts"), [Bar(name, share, [_percent(share)]) for name, share in shares]


def _range(name: str, bin_: Mapping[str, Any]) -> Said | str:
    first, last = bin_["from"], bin_["to"]
    if name == "chinese":
        return f"{first * 100:.0f}-{last * 100:.0f} %"
    if last is None:
        return say("or_more", first=first)
    return f"{first:,}" if first == last else f"{first:,}-{last:,}"


def _changed(before: str, after: str) -> tuple[str, str, str, str]:
    """(what both begin with, what was removed, what was put there, what both end with)."""
    shorter = min(len(before), len(after))
    start = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    rest = shorter - start
    end = next((i for i in range(rest) if before[-1 - i] != after[-1 - i]), rest)
    tail = before[len(before) - end :]
    return before[:start], before[start : len(before) - end], after[start : len(after) - end], tail


def _number(value: int) -> str:
    return f"{value:,}"


def _percent(share: float) -> str:
    return "< 0.1\u00a0%" if 0 < share < 0.001 else f"{share * 100:.1f}\u00a0%"


def _size(value: int) -> str:
    size, unit = float(value), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
