"""What benchmarks/learning.py trains: the runs of each phase, from the results of the phases before.

Takes token counts and results; gives `Run`s, in order of importance. Knows no torch.

    search  26M, one seed, short: rate, decay and schedule of AdamW and of Muon and NorMuon
    width   64M, the same length: the best two settings of each again, at two rates
    final   each shape, three seeds: the best AdamW at T tokens, the best Muon at shares of T, each
            with a schedule of its own that ends there
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ADAMW, MUON = "adamw", "muon"  # families: NorMuon is of the second
PHASES = ("search", "width", "final")


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        optimizer: the keys of OptimizerConfig; `spectral: true` with them scales the updates of
            Muon by sqrt(max(1, O/I)) in place of sqrt(max(O, I)), equal for square matrices.
        decay: share of the steps over which the rate falls to zero (schedule wsd).
        share: of T, in the final phase.
        fp8: feed-forward layers as with precision=fp8.
    """

    phase: str
    shape: str
    optimizer: dict[str, Any] = field(hash=False)
    decay: float
    tokens: int
    seed: int = 0
    share: float = 1.0
    fp8: bool = False

    @property
    def family(self) -> str:
        return ADAMW if self.optimizer["name"] == "adamw" else MUON

    @property
    def name(self) -> str:
        muon = self.optimizer.get("muon", {})
        parts = [self.phase, self.shape, self.optimizer["name"], f"lr{self.optimizer['lr']:g}"]
        parts += [f"{key[:3]}{value:g}" for key, value in muon.items()]
        parts += [f"wd{self.optimizer['weight_decay']:g}", f"decay{self.decay:g}"]
        named = {"name", "lr", "weight_decay", "muon", "spectral"}
        parts += [f"{key}{value:g}" for key, value in self.optimizer.items() if key not in named]
        parts += ["spectral"] if self.optimizer.get("spectral") else []
        parts += ["fp8"] if self.fp8 else []
        return "-".join([*parts, f"{self.tokens / 1e6:g}M", f"seed{self.seed}"])


def search_runs(shape: str, tokens: int) -> list[Run]:
    def run(name: str, lr: float, decay: float = 0.4, wd: float = 0.1, **more: Any) -> Run:
        settings = {"name": name, "lr": lr, "weight_decay": wd, **more}
        return Run("search", shape, settings, decay, tokens)

    return [
        run("normuon", 4e-3),
        run("adamw", 4e-3),
        run("adamw", 2e-3),
        run("normuon", 2e-3),
        run("normuon", 8e-3),
        run("normuon", 1.2e-2),
        run("normuon", 1.6e-2),
        run("adamw", 6e-3),
        run("muon", 4e-3),
        run("adamw", 1e-3),
        run("normuon", 4e-3, decay=0.8),
        run("adamw", 4e-3, decay=0.8),
        run("normuon", 4e-3, wd=0.3),
        run("normuon", 2e-3, muon={"lr": 4e-3}),
        run("muon", 4e-3, spectral=True),
        run("adamw", 1e-2),
    ]


def width_runs(shape: str, tokens: int, best: Mapping[str, Run]) -> list[Run]:
    """The best of each family and the same at a lower rate: wider models want lower ones."""
    return [
        Run("width", shape, _scaled(best[family].optimizer, factor), best[family].decay, tokens)
        for factor in (1.0, 0.5)
        for family in (MUON, ADAMW)
    ]


def final_runs(
    best: Mapping[tuple[str, str], Run], tokens: int, shares: Sequence[float], seeds: int
) -> list[Run]:
    """`best`: by (shape, family). The first share is run with every seed before the others."""
    shapes = list(dict.fromkeys(shape for shape, _ in best))

    def run(shape: str, family: str, share: float, seed: int) -> Run:
        chosen = best[shape, family]
        return Run(
            "final", shape, chosen.optimizer, chosen.decay, round(share * tokens), seed, share
        )

    pairs = [
        run(shape, family, share, seed)
        for seed in range(seeds)
        for shape in shapes
        for family, share in ((ADAMW, 1.0), (MUON, shares[0]))
    ]
    more = [
        run(shape, MUON, share, seed)
        for share in shares[1:]
        for seed in range(seeds)
        for shape in shapes
    ]
    return pairs + more


def share_of(
    runs: Sequence[Run], worker: int, workers: int, cost: Mapping[str, float]
) -> list[Run]:
    """The runs of one worker: each goes, in order, to the one with the least to do so far.

    Args:
        cost: of a token, by shape.
    """
    load = [0.0] * workers
    mine = []
    for run in runs:
        taker = load.index(min(load))
        load[taker] += run.tokens * cost[run.shape]
        if taker == worker:
            mine.append(run)
    return mine


def _scaled(optimizer: Mapping[str, Any], factor: float) -> dict[str, Any]:
    scaled = {**optimizer, "lr": optimizer["lr"] * factor}
    if "lr" in optimizer.get("muon", {}):
        scaled["muon"] = {**optimizer["muon"], "lr": optimizer["muon"]["lr"] * factor}
    return scaled
