"""What a proof found: every figure with its bound, as parity.json, and what misses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mengya.errors import UserError
from mengya.export.parity.bounds import Bounds
from mengya.export.parity.files import file_hashes
from mengya.runtime.files import write_text
from mengya.version import __version__

FILE = "parity.json"
CheckName = Literal[
    "token_ids", "prompt_ids", "prompts", "stop_tokens",
    "written_error", "logit_error_mean", "logit_error_max", "nats_rise", "greedy_agreement",
]  # fmt: skip
CHECKS: tuple[CheckName, ...] = get_args(CheckName)


@dataclass(frozen=True)
class Check:
    """One question to one program.

    Attributes:
        value: None: the program was not asked, or failed.
        of: how many texts, conversations, stop tokens or positions.
        example: the first difference.
        failure: what the program said when it failed; "" if it did not.
    """

    name: CheckName
    value: float | None
    bound: float | None
    of: int = 0
    example: str = ""
    failure: str = ""

    @property
    def is_missed(self) -> bool:
        if self.bound is None or (self.value is None and not self.failure):
            return False
        if self.value is None:
            return True
        far_off = not self.value >= self.bound if self.is_least else not self.value <= self.bound
        return far_off or math.isnan(self.value)

    @property
    def is_least(self) -> bool:
        """Whether the bound is the least allowed, not the most."""
        return self.name == "greedy_agreement"


@dataclass(frozen=True)
class ReaderResult:
    """The answers of one program.

    Attributes:
        nats_per_token, bits_per_char: of the held-out text; None: it gives no logits.
        first_differs: whether tokens without any before them have other logits, too, more than rounding does.
    """

    program: str
    checks: list[Check]
    nats_per_token: float | None = None
    bits_per_char: float | None = None
    first_differs: bool | None = None

    def check(self, name: CheckName) -> Check | None:
        return next((check for check in self.checks if check.name == name), None)


@dataclass(frozen=True)
class Parity:
    """A proof.

    Attributes:
        source: what was exported: its name and hashes.
        loosened: the bounds that the user set, in place of the format's own.
        held_out: name, characters, tokens and hash of the text that nats are measured on.
        nats_per_token, bits_per_char: of our own engine on it.
    """

    source: Mapping[str, Any]
    bounds: Bounds
    loosened: Mapping[str, Any]
    held_out: Mapping[str, Any]
    nats_per_token: float | None
    bits_per_char: float | None
    readers: list[ReaderResult]

    @property
    def is_passed(self) -> bool:
        return not self.missed() and not self.unanswered()

    def missed(self) -> list[tuple[ReaderResult, Check]]:
        return [(r, check) for r in self.readers for check in r.checks if check.is_missed]

    def unanswered(self) -> list[CheckName]:
        """Checks with a bound that no program answered: nothing is proven of them."""
        answered = {
            c.name for r in self.readers for c in r.checks if c.value is not None or c.failure
        }
        asked = {name for name in CHECKS if getattr(self.bounds, name) is not None}
        return [name for name in CHECKS if name in asked - answered and self._is_asked(name)]

    def _is_asked(self, name: CheckName) -> bool:
        """Prompts are not, where the source has no chat template."""
        checks = [check for r in self.readers if (check := r.check(name))]
        return "prompt" not in name or not checks or any(check.of for check in checks)

    def write(self, directory: Path) -> None:
        """Write parity.json into the folder."""
        values = {**self.values(), "files": file_hashes(directory)}
        text = json.dumps(values, ensure_ascii=False, indent=2)
        write_text(directory / FILE, text + "\n")

    def values(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return _finite({"mengya": __version__, "passed": self.is_passed, **asdict(self)})

    def require(self, out: Path) -> None:
        """Refuse an export that misses a bound.

        Raises:
            UserError: names every bound, the value, the probable cause and what to type.
        """
        if self.is_passed:
            return
        lines = [
            f"  - {_missed_line(reader, check, self.source.get('format'))}"
            for reader, check in self.missed()
        ]
        lines += [
            f"  - {name}: no program that is installed answers it" for name in self.unanswered()
        ]
        head = (
            f"what was written is not the same model, so {out} is not written. Its proof misses {len(lines)} "
            f"bound{'s' if len(lines) > 1 else ''}:\n"
        )
        raise UserError(head + "\n".join(lines) + self._remedy())

    def _remedy(self) -> str:
        worst: dict[str, float] = {}
        for _, check in self.missed():
            if check.value is None or not math.isfinite(check.value):
                return ""
            values = (worst.get(check.name, check.value), check.value)
            worst[check.name] = min(values) if check.is_least else max(values)
        if not worst or self.unanswered():
            return ""
        typed = " ".join(f"parity.bounds.{name}={_loose(name, v)}" for name, v in worst.items())
        return f"\nIf you accept that (it is recorded in {FILE}), write {typed}"


_CAUSES: dict[CheckName, str] = {
    "token_ids": "its tokenizer cuts texts differently: the split rule, a merge or a token is another",
    "prompt_ids": "its tokenizer does not find the special tokens of a prompt, or cuts its text differently",
    "prompts": "its chat template renders conversations differently",
    "stop_tokens": "answers would not end where they end here",
    "written_error": "numbers are read back in another order, or settings of the model are others",
    "logit_error_mean": "weights or settings of the model are others",
    "logit_error_max": "weights or settings of the model are others",
    "nats_rise": "the model lost too much; {more} help",
    "greedy_agreement": "the model answers differently; {more} help",
}  # fmt: skip
# What keeps more of the model, by format; of `mengya quantize` the last.
_MORE = {
    "gguf": "more bits (gguf.type=Q8_0, or F16)",
    "ollama": "more bits (ollama.type=Q8_0, or F16)",
    "onnx": "full weights (onnx.int8=false)",
}
_MORE_BITS = "more bits, smaller groups or calibration text"
_BETWEEN_TOKENS = (
    "single tokens are right, what is between them is not: rope_theta, head_dim, or the order of the rows "
    "of q and k"
)


def _missed_line(reader: ReaderResult, check: Check, format_: object) -> str:
    if check.failure:
        return f"{reader.program}, {check.name}: it fails: {check.failure}"
    rule = "at least" if check.is_least else "at most"
    cause = _CAUSES[check.name].format(more=_MORE.get(str(format_), _MORE_BITS))
    if (
        check.name.endswith(("_error", "_error_mean", "_error_max"))
        and reader.first_differs is False
    ):
        cause = _BETWEEN_TOKENS
    example = f" ({check.example})" if check.example else ""
    return (
        f"{reader.program}, {check.name} is {_number(check.value)} and must be {rule} "
        f"{_number(check.bound)}: {cause}{example}"
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else str(value) if isinstance(value, int) else f"{value:.3g}"


def _loose(name: str, value: float) -> str:
    """A bound that just allows `value`."""
    if isinstance(value, int):
        return str(value)
    digits = 10 ** (1 - math.floor(math.log10(abs(value)))) if value else 1.0
    rounded = (
        math.floor(value * digits) if name == "greedy_agreement" else math.ceil(value * digits)
    )
    return f"{rounded / digits:.6g}"


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: their names."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
