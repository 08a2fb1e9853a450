"""Does cleaned text train a better model than raw text? Equal tokens, held-out text of every domain.

Takes a folder of JSONL files ({"text": ...}), a file a domain. Of every file about one document in fifty is
held back as it is; what is left is prepared raw, and once more with `filters=standard` and near-duplicates
dropped. Documents near to a held-out one leave both. A model of each is trained for every seed on the same
number of tokens, and measured in bits per character on every domain.

    python benchmarks/factory_gain.py --sources data/pretrain --tokenizer runs/tokenizer --out runs/gain \\
        --model '{hidden_size: 512, num_hidden_layers: 8, ...}' --tokens 60e6 --seeds 0 1

Prints a table and writes OUT/gain.json. What is prepared and trained stays in OUT; the same command resumes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from mengya import load
from mengya.data.shards import TokenShards
from mengya.evaluation.likelihood.bits_per_char import bits_per_char
from mengya.text.clean import CleanConfig, clean_text
from mengya.text.duplicates import squeeze, text_hash
from mengya.text.filters.config import FilterConfig
from mengya.text.filters.pipeline import TextFilters
from mengya.text.near_duplicates.config import NearDuplicateConfig
from mengya.text.near_duplicates.index import KeyIndex
from mengya.text.near_duplicates.method import keys, near, signatures

HELD_OUT_OF, HELD_OUT_MOST = 50, 150  # one document of so many, at most so many of a domain
FACTORY = ["filters=standard", "near_duplicates.action=drop"]


def documents(path: Path) -> Iterator[str]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def split(sources: Path, out: Path) -> None:
    """Write OUT/train/DOMAIN.jsonl and OUT/held_out/DOMAIN.jsonl."""
    files = sorted(path for path in sources.iterdir() if ".jsonl" in path.name)
    held: dict[str, list[str]] = {}
    for path in files:
        chosen = (text for text in documents(path) if _is_held_out(text))
        held[_domain(path)] = [text for text, _ in zip(chosen, range(HELD_OUT_MOST), strict=False)]
    held_out = HeldOut([text for texts in held.values() for text in texts])
    for path in files:
        domain = _domain(path)
        rest = (text for text in documents(path) if not _is_held_out(text))
        _write(out / "train" / f"{domain}.jsonl", held_out.unlike(rest))
        _write(out / "held_out" / f"{domain}.jsonl", held[domain])


class HeldOut:
    """Held-out texts, and which others are no near-duplicates of them."""

    def __init__(self, texts: list[str]) -> None:
        self.config = NearDuplicateConfig()
        self.signatures = signatures(texts, self.config)
        self.index = KeyIndex()
        self.index.add(keys(self.signatures, self.config))

    def unlike(self, texts: Iterable[str]) -> Iterator[str]:
        remaining = iter(texts)
        while batch := list(islice(remaining, 500)):
            signed = signatures(batch, self.config)
            pairs = self.index.candidates(keys(signed, self.config)).earlier
            alike = near(signed[pairs[:, 0]], self.signatures[pairs[:, 1]], self.config) > 0
            left_out = set(pairs[alike, 0].tolist())
            yield from (text for row, text in enumerate(batch) if row not in left_out)


def _is_held_out(text: str) -> bool:
    return text_hash(squeeze(text)) % HELD_OUT_OF == 0


def _domain(path: Path) -> str:
    return path.name.split(".")[0]


def _write(path: Path, texts: Iterator[str] | list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


def mengya(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "mengya", *arguments], check=True)


def prepare(out: Path, tokenizer: Path, name: str, *settings: str) -> Path:
    shards = out / "shards" / name
    mengya(
        "prepare", f"out={shards}", f"tokenizer={tokenizer}", f"sources={out / 'train'}", *settings
    )
    return shards


def pretrain(options: argparse.Namespace, shards: Path, seed: int) -> Path:
    """The checkpoint of a run of `options.tokens` tokens."""
    run = options.out / "runs" / f"{shards.name}-{seed}"
    steps = round(options.tokens / (options.batch * options.sequence_length))
    if (finished := run / "checkpoints" / f"step-{steps:06d}").is_dir():
        return finished
    mengya(
        "pretrain", f"run_dir={run}", f"tokenizer={options.tokenizer}", f"model={options.model}",
        f"data={{train: [{shards}], sequence_length: {options.sequence_length}}}",
        f"max_steps={steps}", f"global_batch_size={options.batch}", f"seed={seed}",
        f"micro_batch_size={min(options.batch, options.micro_batch)}",
        "optimizer={name: normuon, lr: 8e-3}",
        "schedule={name: wsd, decay_ratio: 0.4, min_lr_ratio: 0.0, warmup_ratio: 0.05}",
        f"resume={str((run / 'checkpoints').is_dir()).lower()}",
        "loop={log_every: 20, save_every: 200, keep_last: 1}",
        "trackers=[]",
    )  # fmt: skip
    return finished


def cleaned(texts: Iterable[str]) -> Iterator[str]:
    """What `filters=standard` makes of them; those that it drops are left out."""
    filters = TextFilters(FilterConfig(base="standard"))
    for text in texts:
        edited = filters.edit(clean_text(text, CleanConfig())).text
        if edited and filters.reason(edited) is None:
            yield edited


def measure(checkpoint: Path, held_out: Path) -> dict[str, dict[str, float]]:
    """Bits per character of every domain, of the text as it is and of the cleaned text."""
    loaded = load(str(checkpoint))
    files = sorted(held_out.glob("*.jsonl"))

    def bits(texts: Iterable[str]) -> float:
        return bits_per_char(loaded.network, loaded.tokenizer, texts).bits_per_char

    return {
        "as it is": {path.stem: bits(documents(path)) for path in files},
        "cleaned": {path.stem: bits(cleaned(documents(path))) for path in files},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", required=True, help="values of `model`, as YAML")
    parser.add_argument("--tokens", type=float, required=True)
    parser.add_argument("--batch", type=int, default=32, help="rows a step")
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    held_out = options.out / "held_out"
    if not held_out.is_dir():
        split(options.sources, options.out)
    variants = {
        "raw": prepare(options.out, options.tokenizer, "raw"),
        "factory": prepare(options.out, options.tokenizer, "factory", *FACTORY),
    }
    figures = {
        f"{name}-{seed}": measure(pretrain(options, shards, seed), held_out)
        for seed in options.seeds
        for name, shards in variants.items()
    }
    tokens = {name: TokenShards(shards).manifest["tokens"] for name, shards in variants.items()}
    result = {"tokens": tokens, "trained_on": options.tokens, "bits_per_char": figures}
    (options.out / "gain.json").write_text(json.dumps(result, ensure_ascii=False, indent=2))
    for kind in ("as it is", "cleaned"):
        print(f"held-out text {kind}")
        _print({name: both[kind] for name, both in figures.items()}, options.seeds)


def _print(figures: dict[str, dict[str, float]], seeds: list[int]) -> None:
    """A row a domain: bits per character of both, averaged over the seeds, and the gain of each seed."""
    print("domain | raw | factory | gain of each seed")
    domains = list(next(iter(figures.values())))
    for domain in domains:
        raw, ours = (
            [figures[f"{name}-{seed}"][domain] for seed in seeds] for name in ("raw", "factory")
        )
        gains = " ".join(f"{a - b:+.3f}" for a, b in zip(raw, ours, strict=True))
        means = (sum(values) / len(seeds) for values in (raw, ours))
        print(" | ".join([domain, *(f"{mean:.3f}" for mean in means), gains]))


if __name__ == "__main__":
    main()
