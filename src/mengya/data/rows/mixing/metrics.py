"""The metrics of a mixture: tokens, share and epochs of every source, as functions of the step.

No rank counts anything: the rows of a step follow from its number, so a resumed run logs the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.mixture import Mixture

PREFIX, SHARE = "data/", "/share"


def source_metrics(
    mixture: Mixture, names: Sequence[str], batch_size: BatchSize, since: int, step: int
) -> dict[str, float]:
    """Of every source: tokens and epochs in the steps before `step`, its share of the tokens from `since` on.

    Tokens are those of rows (padding not counted), steps that were skipped included.
    """
    before = mixture.tokens_before(batch_size.first_row(since))
    tokens = mixture.tokens_before(batch_size.first_row(step))
    shares = (tokens - before) / max(1, int((tokens - before).sum()))
    epochs = tokens / mixture.tokens
    values: dict[str, float] = {}
    for name, count, share, passes in zip(
        names, tokens.tolist(), shares.tolist(), epochs.tolist(), strict=True
    ):
        values[f"{PREFIX}{name}/tokens"] = count
        values[f"{PREFIX}{name}{SHARE}"] = share
        values[f"{PREFIX}{name}/epochs"] = passes
    return values
