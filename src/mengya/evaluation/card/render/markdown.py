"""card.md: the values of card.json as text, in one language; tables for papers and pull requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mengya.evaluation.card.render import numbers
from mengya.evaluation.card.render.words import Both, Language, say
from mengya.measured.shown import shown, shown_interval
from mengya.text.markdown import escape_markdown, markdown_table
from mengya.text.visible import visible


def render_markdown(values: Mapping[str, Any], language: Language) -> str:
    """The document; every text of a model or a file is escaped."""
    return "\n\n".join(_Writer(values, language).parts()) + "\n"


class _Writer:
    def __init__(self, values: Mapping[str, Any], language: Language) -> None:
        self._values = values
        self._language: Language = language
        self._names = [visible(stage["name"]) for stage in values["stages"]]

    def parts(self) -> Iterator[str]:
        rows = self._values["rows"]
        yield f"# {self._say('title')}: {escape_markdown(' → '.join(self._names))}"
        yield f"## {self._say('findings')}"
        yield from self._findings()
        yield f"## {self._say('headline')}"
        comparisons = self._values["comparisons"]
        chance = round(comparisons["count"] * comparisons["significant"])
        yield self._say("table_note", count=comparisons["count"], chance=chance)
        yield self._figures([row for row in rows if row["headline"]])
        if others := [row for row in rows if not row["headline"]]:
            yield f"## {self._say('all_figures')}"
            yield self._figures(others)
        yield from self._samples()
        yield f"## {self._say('cost')}"
        yield self._cost()
        yield f"## {self._say('lineage')}"
        yield from self._lineage()
        yield f"## {self._say('origins')}"
        yield "\n".join(self._origins()) or self._say("unknown")
        command = escape_markdown(visible(self._values["command"]))
        yield self._say("footer", version=self._values["mengya"], command=command)

    def _findings(self) -> Iterator[str]:
        for number, name in enumerate(self._names):
            own = [f for f in self._values["findings"] if f["stage"] == number]
            if own:
                yield f"### {escape_markdown(name)}"
                yield "\n".join(f"- {_line(f[self._language])}" for f in own)

    def _figures(self, rows: Sequence[Mapping[str, Any]]) -> str:
        table = []
        for row in rows:
            unit = "" if row["unit"] == "share" else f", {row['unit']}"
            title = f"{row['title'][self._language]} ({row['name']}{unit})"
            table.append([visible(title), *(self._cell(row, cell) for cell in row["cells"])])
        return markdown_table([self._say("yardstick"), *self._names], table)

    def _cell(self, row: Mapping[str, Any], cell: Mapping[str, Any] | None) -> str:
        if cell is None:
            return "–"
        if cell["value"] is None:
            return self._say("not_applicable")
        unit = row["unit"]
        text = shown(cell["value"], unit)
        if cell["interval"]:
            low, high = cell["interval"]
            text += f" [{shown_interval((low, high), unit)}]"
        if cell["above_chance"] is False:
            text += f" {self._say('not_above_chance')}"
        if change := cell["change"]:
            p = f", {numbers.shown_p(change['p'])}" if change["p"] is not None else ""
            moved = numbers.shown_change(change["mean"], unit)
            text += f"; {self._say(change['verdict'])} {moved}{p}"
        elif not cell["comparable"]:
            text += f"; {self._say('not_compared')}"
        return text

    def _samples(self) -> Iterator[str]:
        if not self._values["samples"]:
            return
        yield f"## {self._say('samples')}"
        for sample in self._values["samples"]:
            yield f"### {_line(sample['prompt'])}"
            for name, answer in zip(self._names, sample["answers"], strict=True):
                if answer is not None:
                    lines = [_line(line) for line in answer.strip().split("\n")]
                    quoted = "\n".join(f"> {line}".rstrip() for line in lines)
                    yield f"**{escape_markdown(name)}**\n\n{quoted}"

    def _cost(self) -> str:
        keys = ("stage", "parameters", "steps", "tokens", "hours", "hardware", "energy", "size")
        rows = []
        for name, stage in zip(self._names, self._values["stages"], strict=True):
            cost = stage["cost"]
            hardware = visible(cost["hardware"] or "–")
            if (cost["devices"] or 1) > 1:
                hardware = f"{cost['devices']} × {hardware}"
            energy = "–" if cost["energy_kwh"] is None else f"{cost['energy_kwh']:.3g} kWh"
            rows.append([
                name, numbers.shown_count(cost["parameters"]) or "–",
                numbers.shown_count(cost["steps"]) or "–", numbers.shown_count(cost["tokens"]) or "–",
                self._one(numbers.shown_hours(cost["hours"])) if cost["steps"] else "–",
                hardware, energy, numbers.shown_bytes(cost["weights_bytes"]),
            ])  # fmt: skip
        return markdown_table([self._say(key) for key in keys], rows)

    def _lineage(self) -> Iterator[str]:
        for name, stage in zip(self._names, self._values["stages"], strict=True):
            yield f"### {escape_markdown(name)}"
            facts = [
                f"- {self._say('folder')}: {_line(stage['folder'])}",
                f"- {self._say('weights')}: {stage['checkpoint_sha256']}",
            ]
            for source in stage["data"]:
                license_ = source["license"] or self._say("license_unknown")
                tokens = numbers.shown_count(source["tokens"]) or "–"
                facts.append(
                    f"- {self._say('data')}: {_line(source['name'])}; {self._say('license')}: "
                    f"{_line(license_)}; {tokens} {self._say('tokens')}"
                )
            if not stage["data"]:
                facts.append(f"- {self._say('data')}: {self._say('data_unknown')}")
            for each in stage["checked"]:
                found = self._say("not_checked")
                if each["found"] is not None:
                    found = self._say("found_items", count=each["found"])
                shards = _line(each["shards"] or "?")
                facts.append(f"- {self._say('checked_for_exams')}: {shards}: {found}")
            for start in stage["starts"]:
                commit = start.get("commit") or self._say("unknown")
                facts.append(
                    f"- {self._say('command')}: {_line(start.get('command') or '?')}; "
                    f"{_line(start.get('hardware') or '?')}; {self._say('commit')} {_line(commit)}"
                )
            yield "\n".join(facts)

    def _origins(self) -> Iterator[str]:
        for number, origin in enumerate(self._values["origins"], 1):
            versions = " ".join(f"{k} {v}" for k, v in (origin.get("versions") or {}).items())
            facts = [
                origin.get("command") or "?",
                f"{self._say('seed')} {origin.get('seed')}",
                origin.get("hardware") or "?",
                origin.get("dtype") or "?",
                versions,
                f"{self._say('commit')} {origin.get('commit') or self._say('unknown')}",
                f"{self._say('contamination')}: {origin.get('contamination') or '?'}",
            ]
            yield f"{number}. " + "; ".join(_line(fact) for fact in facts)

    def _say(self, key: str, **fields: str | int) -> str:
        return self._one(say(key, **fields))

    def _one(self, text: Both) -> str:
        return text[self._language]


def _line(text: object) -> str:
    return escape_markdown(visible(str(text)))  # what files of runs say may be changed by hand
