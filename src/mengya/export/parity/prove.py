"""The proof of an export: what was written, read back by other programs, answers as the source does.

parity = prove(model, tokenizer, readers, bounds)
parity.write(directory)
parity.require(out)
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.export.parity.bounds import Bounds
from mengya.export.parity.compare import Sequences, compare, failure_text
from mengya.export.parity.held_out import HeldOut, own_held_out
from mengya.export.parity.logits import LogitDistance
from mengya.export.parity.reference import Reference
from mengya.export.parity.result import CHECKS, Check, Parity, ReaderResult
from mengya.export.reader import Reader
from mengya.models.causal_lm import CausalLM


def prove(
    model: CausalLM,
    tokenizer: PreTrainedTokenizerFast,
    readers: Iterable[Reader],
    bounds: Bounds,
    held_out: HeldOut | None = None,
    *,
    written: CausalLM | None = None,
    source: Mapping[str, Any] | None = None,
    loosened: Mapping[str, Any] | None = None,
) -> Parity:
    """Compare what other programs read with the source; shows a progress bar in a terminal.

    Args:
        model: the source, in evaluation mode and fp32, on any device.
        readers: opened one after another; a generator may open each when it is asked for.
        bounds: of the format; `loosened` are those of the user in it.
        held_out: None: the text that ships with mengya.
        written: the source with the numbers that were written; None: they are its own, or cannot be known.
        source: what parity.json says of the source (`identity.identify`).

    Raises:
        UserError: there is nothing to compare; a bound that is missed is in the result.
    """
    held_out = held_out or own_held_out()
    reference = Reference(model, tokenizer)
    rounded = None if written is None else Reference(written, tokenizer)
    if rounded is None:
        bounds = replace(bounds, written_error=None)
    texts, chats = reference.sequences(held_out), reference.chat_sequences()
    sequences = Sequences(texts, chats, held_out.characters)
    results = []
    for reader in _opened(readers):
        if isinstance(reader, ReaderResult):
            results.append(reader)
            continue
        with _advancing(f"proof by {reader.program}", len(sequences)) as advance:
            results.append(compare(reference, reader, bounds, sequences, advance, rounded))
    ours = _own_nats(reference, sequences)
    tokens = sum(len(ids) - 1 for ids in texts)
    return Parity(
        source=dict(source or {}),
        bounds=bounds,
        loosened=dict(loosened or {}),
        held_out={
            "name": held_out.name,
            "documents": len(held_out.texts),
            "characters": held_out.characters,
            "tokens": tokens,
            "sha256": held_out.sha256,
        },
        nats_per_token=ours / max(tokens, 1),
        bits_per_char=ours / math.log(2) / held_out.characters,
        readers=results,
    )


def _opened(readers: Iterable[Reader]) -> Iterator[Reader | ReaderResult]:
    """Every reader; one that cannot be opened is a result in which every check failed."""
    left = iter(readers)
    while True:
        try:
            yield next(left)
        except StopIteration:
            return
        except UserError:
            raise
        except Exception as error:
            if os.environ.get("MENGYA_TRACEBACK"):
                raise
            failure = f"what was written cannot be opened: {failure_text(error)}"
            yield ReaderResult("a reader", [Check(CHECKS[0], None, 0, failure=failure)])
            return


@contextmanager
def _advancing(text: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr, in a terminal; yields what moves it by one."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)


def _own_nats(reference: Reference, sequences: Sequences) -> float:
    """Nats of the held-out text in all."""
    distance = LogitDistance()
    for ids, labels in sequences.labelled():
        if labels is not None:
            ours = reference.logits(ids)
            distance.add(ours, ours, labels)
    return distance.ours_nats
