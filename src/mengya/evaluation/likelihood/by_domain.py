"""Bits per character and per byte by domain, and over all of them, with intervals over documents.

Takes the costs of documents (bits_per_char.py); gives a YardstickResult. A domain is weighted by its
characters, as is a document: the figure is that of all text put together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

from mengya.errors import UserError
from mengya.evaluation.likelihood.bits_per_char import DocumentCost
from mengya.evaluation.yardstick import YardstickResult
from mengya.measured.intervals import bootstrap_ratio
from mengya.measured.measurement import Measurement


def bits_by_domain(
    costs: Sequence[DocumentCost],
    per_char: str = "bits_per_char",
    per_byte: str = "bits_per_byte",
    apart: Collection[str] = (),
    seed: int = 0,
) -> YardstickResult:
    """Figures PER_CHAR and PER_BYTE over all domains, and PER_CHAR/DOMAIN and PER_BYTE/DOMAIN of each.

    The score of an item is the bits of its document; a comparison of two models divides by "characters".

    Args:
        apart: domains with figures of their own that are no part of those over all; "apart" marks their
            items.

    Raises:
        UserError: no document outside of `apart`.
    """
    ordered = sorted(costs, key=lambda cost: cost.domain)  # stable: documents keep their order
    domains = {name: list(own) for name, own in groupby(ordered, lambda cost: cost.domain)}
    together = [cost for cost in ordered if cost.domain not in apart]
    if not together:
        raise UserError("no text to measure bits per character on: every document was empty")
    measurements = [
        _figure(
            name,
            own,
            unit,
            seed,
            f"without {', '.join(sorted(apart))}" if own is together and apart else "",
        )
        for unit, start in (("bits/char", per_char), ("bits/byte", per_byte))
        for name, own in (
            (start, together),
            *((f"{start}/{domain}", own) for domain, own in domains.items()),
        )
    ]
    items = [
        {
            "part": cost.domain,
            "id": cost.id,
            "score": cost.bits,
            "characters": cost.characters,
            "bytes": cost.bytes,
            **({"apart": True} if cost.domain in apart else {}),
        }
        for cost in ordered
    ]
    return YardstickResult(measurements, items)


def _figure(
    name: str, costs: Sequence[DocumentCost], unit: str, seed: int, note: str
) -> Measurement:
    bits = [cost.bits for cost in costs]
    lengths = [cost.characters if unit == "bits/char" else cost.bytes for cost in costs]
    unknown = sum(cost.unknown_tokens for cost in costs)
    if unknown:
        note = "; ".join(filter(None, [note, f"{unknown:,} unknown tokens: not comparable"]))
    interval = bootstrap_ratio(bits, lengths, seed) if len(costs) > 1 else None
    value = sum(bits) / sum(lengths)
    return Measurement(name, value, interval, len(costs), unit, "lower", note=note)
