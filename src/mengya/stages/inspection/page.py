"""The page of `mengya inspect html=FILE`: numbers and samples, everything of the data escaped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, PackageLoader

from mengya.data.inspection import Inspection, Source, histogram
from mengya.runtime.files import write_text
from mengya.stages.inspection.samples import Sample
from mengya.stages.inspection.terminal import summary
from mengya.text.visible import visible


def write_page(path: Path, title: str, numbers: Inspection | None, samples: list[Sample]) -> None:
    """Write the page; it needs no network."""
    page = Environment(loader=PackageLoader("mengya.stages.inspection", "pages"), autoescape=True)
    text = page.get_template("inspect.html").render(
        title=visible(title),
        summary=[] if numbers is None else summary(numbers),
        sources=[] if numbers is None else [_visible_source(source) for source in numbers.sources],
        histograms=[] if numbers is None else _histograms(numbers),
        samples=[_visible(sample) for sample in samples],
    )
    write_text(path, text)


def _visible(sample: Sample) -> Sample:
    return replace(
        sample,
        title=visible(sample.title),
        segments=[replace(s, text=visible(s.text)) for s in sample.segments],
        tokens=[replace(t, text=visible(t.text).replace("\n", "\\n")) for t in sample.tokens],
    )


def _visible_source(source: Source) -> Source:
    return replace(
        source,
        name=visible(source.name),
        license=visible(source.license) if source.license else source.license,
        dropped={visible(reason): count for reason, count in source.dropped.items()},
    )


def _histograms(numbers: Inspection) -> list[tuple[str, list[tuple[str, int, float]]]]:
    found = [("Tokens", histogram(numbers.lengths, powers=True))]
    if numbers.kind == "conversation":
        found.append(
            ("Learned answers of a conversation", histogram(numbers.answers, powers=False))
        )
    return [
        (name, [(b, count, 100 * count / max(c for _, c in bins)) for b, count in bins])
        for name, bins in found
    ]
