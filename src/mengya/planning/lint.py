"""Lint rules for a plan: each warning gives the number, the rule and the remedy.

Takes a `Plan`; gives `LintWarning`s. A rule is common practice or a fit of a paper: none stops a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mengya.data.rows.mixing.use import SourceUse
from mengya.models.config.validation import untrained_router
from mengya.planning.fit import suggest_fit
from mengya.planning.plan import Plan
from mengya.runtime.checkpoint_names import follow
from mengya.runtime.integers import ceil_div
from mengya.tokenizer.added import read_added
from mengya.tokenizer.load import load_tokenizer

VOCABULARY_SHARE = 0.4  # of all parameters
SHARE_OFF = 0.02  # of a phase's rows
EPOCHS = 4  # Muennighoff et al. 2023, arXiv:2305.16264: repeated tokens are about as good as new
TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022, arXiv:2203.15556
FEW, MANY = 5, 400  # a fourth, and twenty times, of that
BATCH_FACTOR, LR_FACTOR = 4, 5  # from the fit of DeepSeek LLM
HEAD_MULTIPLE, WIDTH_MULTIPLE = 8, 64
TUNING_LR = {
    ("sft", False): (1e-6, 5e-3),
    ("sft", True): (1e-5, 5e-3),
    ("dpo", False): (1e-7, 5e-4),
    ("dpo", True): (1e-6, 2e-3),
}  # (verb, LoRA)


class LintWarning(NamedTuple):
    """rule: its short name. message: the number and the rule. remedy: what to write or do."""

    rule: str
    message: str
    remedy: str


def lint_plan(plan: Plan) -> Iterator[LintWarning]:
    """All warnings, the most serious first."""
    for rule in _RULES:
        yield from rule(plan)


# Of a run that starts now: not what the run itself refuses or finds out, nor figures of speed.
_PLAN_ONLY = ("memory", "batch_split", "data", "peak")


def lint_run(plan: Plan) -> Iterator[LintWarning]:
    """The warnings that concern a run with its data open."""
    yield from (warning for warning in lint_plan(plan) if warning.rule not in _PLAN_ONLY)


def _memory(plan: Plan) -> Iterator[LintWarning]:
    needed, room = plan.memory.needed, plan.device.memory
    if needed > room:
        yield LintWarning(
            "memory",
            f"needs {needed / 2**30:.1f} GiB on each device, {plan.device.name} has "
            f"{room / 2**30:.1f}",
            suggest_fit(plan),
        )


def _batch_split(plan: Plan) -> Iterator[LintWarning]:
    each = plan.config.micro_batch_size * plan.hardware.devices
    if plan.batch_rows % each:
        yield LintWarning(
            "batch_split",
            f"global_batch_size {plan.batch_rows} is not a multiple of micro_batch_size "
            f"{plan.config.micro_batch_size} x {plan.hardware.devices} devices: training refuses it",
            f"write global_batch_size={ceil_div(plan.batch_rows, each) * each}",
        )


def _context(plan: Plan) -> Iterator[LintWarning]:
    S, context = plan.config.data.sequence_length, plan.model.config.context_length
    if context < S:
        yield LintWarning(
            "context",
            f"sequence_length {S:,} is above the {context:,} positions that the model supports "
            "(max_position_embeddings)",
            f"write data.sequence_length={context}, or scale the positions (rope_parameters)",
        )


def _vocabulary(plan: Plan) -> Iterator[LintWarning]:
    counts, config = plan.counts, plan.model.config
    share = counts.embedding / counts.total
    if plan.verb != "pretrain" or plan.config.model_dump().get("model") is None:
        return
    if share > VOCABULARY_SHARE:
        tables = counts.embedding / config.vocab_size
        small = 6400 * tables
        smaller_share = small / (counts.total - counts.embedding + small)
        tie = "" if config.tie_word_embeddings else "tie_word_embeddings=true, or "
        yield LintWarning(
            "vocabulary",
            f"the vocabulary of {config.vocab_size:,} takes {share:.0%} of the parameters (more than "
            f"{VOCABULARY_SHARE:.0%})",
            f"{tie}a tokenizer of your own: with `mengya tokenizer vocab_size=6400` it is "
            f"{smaller_share:.0%}"
            if config.vocab_size > 6400
            else f"{tie}a wider or deeper model, or fewer ids",
        )


def _unused_rows(plan: Plan) -> Iterator[LintWarning]:
    tokenizer: Path | None = getattr(plan.config, "tokenizer", None)
    if not _from_scratch(plan) or tokenizer is None or not tokenizer.is_dir():
        return
    rows, ids = plan.model.config.vocab_size, len(load_tokenizer(tokenizer))
    if rows > ids:
        yield LintWarning(
            "unused_rows",
            f"the vocabulary of {rows:,} has {rows - ids:,} rows more than the tokenizer has ids: "
            f"{(rows - ids) * plan.counts.embedding // rows:,} parameters of no token",
            f"write model.vocab_size={ids}, or leave it out",
        )


def _router(plan: Plan) -> Iterator[LintWarning]:
    # A new model is refused before it is planned; this is one of init_from.
    reason = untrained_router(plan.model.config)
    if reason is not None:
        message, _, remedy = reason.partition("; write ")
        yield LintWarning("router", message, f"{remedy} in the config.json of init_from")


def _widths(plan: Plan) -> Iterator[LintWarning]:
    config = plan.model.config
    odd = {
        name: (value, multiple)
        for name, value, multiple in (
            ("head_dim", config.head_width, HEAD_MULTIPLE),
            ("v_head_dim", config.v_head_dim or HEAD_MULTIPLE, HEAD_MULTIPLE),
            ("hidden_size", config.hidden_size, WIDTH_MULTIPLE),
            ("intermediate_size", config.intermediate_size, WIDTH_MULTIPLE),
            ("moe_intermediate_size", config.moe_intermediate_size or 0, WIDTH_MULTIPLE),
        )
        if value % multiple
    }
    if odd and plan.device.kind == "cuda":
        said = ", ".join(f"{name} {value} of {multiple}" for name, (value, multiple) in odd.items())
        near = ", ".join(
            f"{name}={ceil_div(value, multiple) * multiple}"
            for name, (value, multiple) in odd.items()
        )
        yield LintWarning(
            "widths",
            f"not a multiple: {said}; matrix products and attention of odd widths leave the fast paths",
            f"for example {near}",
        )


def _epochs(plan: Plan) -> Iterator[LintWarning]:
    if plan.verb == "pretrain" and plan.epochs is not None and plan.epochs > EPOCHS * 1.01:
        yield LintWarning(
            "epochs",
            f"{plan.epochs:.1f} passes over the data; after {EPOCHS} repeated tokens are worth "
            "clearly less than new ones (arXiv:2305.16264)",
            f"more text, or {_shorter(plan, EPOCHS / plan.epochs)}",
        )


def _shorter(plan: Plan, factor: float) -> str:
    """A length of the run to write, by the key that the recipe has."""
    if plan.config.epochs is not None:
        return f"epochs={math.floor(100 * plan.config.epochs * factor) / 100:g}"
    return f"max_steps={max(1, math.floor((plan.steps or 0) * factor))}"


def _source_epochs(plan: Plan) -> Iterator[LintWarning]:
    use = plan.data.use
    for number, source in enumerate(use.sources if len(use.sources) > 1 else ()):
        if source.max_epochs is not None or source.epochs <= EPOCHS * 1.01:
            continue
        if any(p.shares and p.shares[number] > 0.999 for p in use.phases):
            remedy = f"more of {source.name}, or a shorter phase in which it is alone"
        elif (room := _rows_worth_taking(use.sources)) >= use.rows:
            remedy = f"write data.train[{number}].max_epochs={EPOCHS}, which gives its share to the others"
        else:
            remedy = (
                f"more data, or {_shorter(plan, room / use.rows)}, for which all of it is enough"
            )
        yield LintWarning(
            "source_epochs",
            f"{source.name} is repeated {source.epochs:.1f} times; after {EPOCHS} passes repeated tokens are "
            "worth clearly less than new ones (arXiv:2305.16264)",
            remedy,
        )


def _rows_worth_taking(sources: Sequence[SourceUse]) -> int:
    """Rows of all sources, each as often as its cap allows, or as repetition is worth it."""
    return sum(int(s.rows * (EPOCHS if s.max_epochs is None else s.max_epochs)) for s in sources)


def _capped(plan: Plan) -> Iterator[LintWarning]:
    for number, source in enumerate(plan.data.use.sources):
        if source.max_epochs is None or source.share >= 0.99 * source.wanted:
            continue
        if source.max_epochs >= EPOCHS:
            continue  # so many passes are what `source_epochs` advises
        needed = math.ceil(source.max_epochs * source.wanted / max(source.share, 1e-9))
        yield LintWarning(
            "capped",
            f"max_epochs {source.max_epochs:g} leaves {source.name} {source.share:.1%} of the rows, and not "
            f"the {source.wanted:.1%} of its weight: the others take the rest in proportion",
            f"more of {source.name}, or data.train[{number}].max_epochs={min(needed, EPOCHS)} for "
            + ("its full weight" if needed <= EPOCHS else "as much as repeating is worth"),
        )


def _first_pass(plan: Plan) -> Iterator[LintWarning]:
    for number, source in enumerate(plan.data.use.sources):
        order = plan.config.data.train[number].order
        if order != "shuffled" and source.epochs < 0.99:
            hard = "the longest documents" if order == "short_first" else "the most turns"
            yield LintWarning(
                "first_pass",
                f"order={order} puts the rows of {source.name} with {hard} last, and the run ends at "
                f"{source.epochs:.0%} of its first pass: they never come",
                f"write data.train[{number}].order=shuffled, or train for a full pass",
            )


def _phases(plan: Plan) -> Iterator[LintWarning]:
    phases = plan.data.use.phases
    for number, phase in enumerate(phases if plan.steps is not None else ()):
        if phase.shares:
            continue
        if number and phase.start == plan.steps and phases[number - 1].shares:
            earlier = max(2, phases[number - 1].start + 2, phase.start // 2)
            why = "the phase before it ends with the run or later"
            remedy = f"write data.phases[{number - 1}].until={earlier}, or more steps"
        else:
            why = f"it ends where it begins, at step {phase.start:,} of {plan.steps:,}"
            remedy = f"earlier ends before it, a later data.phases[{number}].until, or leave it out"
        yield LintWarning("phase", f"data.phases[{number}] never comes: {why}", remedy)


def _shares(plan: Plan) -> Iterator[LintWarning]:
    """A phase of a few rows: they are the first of a shuffled order that has its weights in the long run."""
    use = plan.data.use
    if any(s.max_epochs is not None and s.share < 0.99 * s.wanted for s in use.sources):
        return  # `capped` says so
    for number, phase in enumerate(use.phases if plan.config.data.phases else ()):
        off = [abs(a - b) for a, b in zip(phase.shares, phase.wanted, strict=False)]
        if not off or max(off) < SHARE_OFF:
            continue
        at = off.index(max(off))
        yield LintWarning(
            "shares",
            f"data.phases[{number}] takes {phase.rows:,} rows, {phase.shares[at]:.1%} of them of "
            f"{use.sources[at].name} and not {phase.wanted[at]:.1%}: weights hold over a thousand rows, "
            "fewer are a draw",
            "a longer phase, or another seed",
        )


def _from_scratch(plan: Plan) -> bool:
    return plan.verb == "pretrain" and getattr(plan.config, "init_from", None) is None


def _tokens(plan: Plan) -> Iterator[LintWarning]:
    if plan.tokens is None or not _from_scratch(plan):
        return
    ratio, wanted = plan.tokens / plan.counts.total, TOKENS_PER_PARAMETER * plan.counts.total
    if ratio < FEW:
        yield LintWarning(
            "tokens",
            f"{ratio:.1f} tokens per parameter, far below the {TOKENS_PER_PARAMETER} that use the "
            "FLOPs best (arXiv:2203.15556)",
            f"about {wanted:,.0f} tokens, or a model of about "
            f"{plan.tokens / TOKENS_PER_PARAMETER:,.0f} parameters",
        )
    elif ratio > MANY:
        yield LintWarning(
            "tokens",
            f"{ratio:,.0f} tokens per parameter, far above the {TOKENS_PER_PARAMETER} that use the "
            "FLOPs best (arXiv:2203.15556)",
            "right where the model must be small to serve; otherwise a larger model learns more "
            "from the same FLOPs",
        )


def _compute(plan: Plan) -> float | None:
    """C of DeepSeek LLM (arXiv:2401.02954): FLOPs of the run without the vocabulary."""
    if plan.tokens is None or not _from_scratch(plan):
        return None
    return (plan.flops.layers + plan.flops.attention) * plan.tokens


def _batch(plan: Plan) -> Iterator[LintWarning]:
    compute = _compute(plan)
    if compute is None:
        return
    usual = 0.2920 * compute**0.3271
    S = plan.config.data.sequence_length
    tokens = plan.batch_rows * S
    if not usual / BATCH_FACTOR <= tokens <= usual * BATCH_FACTOR:
        small = tokens < usual
        each = plan.config.micro_batch_size * plan.hardware.devices
        rows = max(1, round(usual / S / each)) * each
        yield LintWarning(
            "batch",
            f"{tokens:,} tokens a step are far {'below' if small else 'above'} the {usual:,.0f} that "
            "suit a run of these FLOPs (0.292 C^0.3271, arXiv:2401.02954): "
            + (
                "noisy steps, an idle GPU"
                if small
                else "few steps, each hardly better than a smaller"
            ),
            f"for example global_batch_size={rows}",
        )


def _learning_rate(plan: Plan) -> Iterator[LintWarning]:
    optimizer, lora = plan.config.optimizer, getattr(plan.config, "lora", None) is not None
    compute = _compute(plan)
    low = high = None
    where = ""
    if plan.verb != "pretrain":
        low, high = TUNING_LR[plan.verb, lora]
        where = f"{plan.verb} with LoRA" if lora else plan.verb
    elif compute is not None:
        usual = 0.3118 * compute**-0.1250
        low, high = usual / LR_FACTOR, usual * LR_FACTOR
        where = "a run of these FLOPs (0.3118 C^-0.125, arXiv:2401.02954)"
    if low is None or high is None:
        return
    rates = {"optimizer.lr": optimizer.lr}
    if optimizer.name in ("muon", "normuon") and optimizer.muon.lr is not None:
        rates["optimizer.muon.lr"] = optimizer.muon.lr  # in AdamW's units
    for key, rate in rates.items():
        if not low <= rate <= high:
            yield LintWarning(
                "learning_rate",
                f"{key} {rate:g} is outside of {low:.1g} to {high:.1g}, usual for {where}",
                f"for example {key}={(low * high) ** 0.5:.1g}",
            )


def _warmup(plan: Plan) -> Iterator[LintWarning]:
    warmup = plan.config.schedule.warmup_steps
    if warmup is not None and plan.steps is not None and warmup >= plan.steps:
        yield LintWarning(
            "warmup",
            f"schedule.warmup_steps {warmup} is not shorter than the run of {plan.steps} steps: the "
            "peak rate is never reached",
            f"write schedule.warmup_steps={max(1, plan.steps // 50)}",
        )


def _data(plan: Plan) -> Iterator[LintWarning]:
    if plan.data.missing:
        names = ", ".join(str(path) for path in plan.data.missing)
        known = plan.data.rows is not None or plan.config.max_steps is not None
        yield LintWarning(
            "data",
            f"{names} does not exist yet: rows are taken as full and one document each",
            "make it with `mengya prepare` for the real figures"
            + ("" if known else ", or give --data-tokens N (of one epoch) for hours and cost"),
        )


def _peak(plan: Plan) -> Iterator[LintWarning]:
    if plan.device.peak_flops is None:
        yield LintWarning(
            "peak",
            f"the peak of {plan.device.name} is not known: no speed, hours or cost",
            "write --peak-tflops from its data sheet (dense, in the precision of the run)",
        )


def _untrained_tokens(plan: Plan) -> Iterator[LintWarning]:
    lora, start = getattr(plan.config, "lora", None), getattr(plan.config, "init_from", None)
    if lora is None or lora.trainable_tokens is not None or start is None:
        return
    added = read_added(follow(start))
    if added is not None and added.untrained:
        yield LintWarning(
            "untrained_tokens",
            f"{len(added.untrained):,} tokens that `mengya extend` added to {start} were never trained, and "
            "LoRA leaves their rows as they are",
            "write lora.trainable_tokens=added",
        )


def _too_long(plan: Plan) -> Iterator[LintWarning]:
    for message, remedy in plan.data.too_long:
        yield LintWarning("too_long", message, remedy)


_RULES: list[Callable[[Plan], Iterator[LintWarning]]] = [
    _memory, _batch_split, _context, _vocabulary, _unused_rows, _router, _epochs, _source_epochs,
    _capped, _first_pass, _phases, _shares, _tokens, _batch,
    _learning_rate, _untrained_tokens, _warmup, _widths, _data, _too_long, _peak,
]  # fmt: skip
