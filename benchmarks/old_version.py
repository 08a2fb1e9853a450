"""This version reads what an older one wrote: shards open, a run resumes bit for bit, to the same end.

    python benchmarks/old_version.py [--commit 39e0b2c] [--fixture FOLDER]

Checks the commit out next to the clone, lets it prepare a corpus and train twelve steps (dense, LoRA,
mixture), once without a stop and once stopped at step six; then this version resumes the stopped run. Fails
where any byte of the final model differs. With --fixture the stopped dense run and the end it must reach are
copied there (tests/fixtures/old_run): what CI resumes without git.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "vocab_size": 300,
}  # fmt: skip
MIXTURE = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1,
    "scoring_func": "sigmoid",
}  # fmt: skip
STOP, STEPS = 6, 12


def mengya(source: Path, folder: Path, *arguments: str) -> None:
    """Run a verb with the code under `source`, in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mengya", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} in {source}:\n{done.stderr}")


def write_corpus(folder: Path) -> None:
    """Sentences of a few words: what is in them does not matter."""
    rng = random.Random(0)
    words = [
        "春天",
        "小猫",
        "桃花",
        "院子",
        "早上",
        "学校",
        "读书",
        "下雨",
        "看见",
        "喜欢",
        "因为",
        "所以",
    ]
    with (folder / "text.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(400):
            text = "".join(rng.choices(words, k=rng.randint(8, 40))) + "。"
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    with (folder / "chat.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(120):
            question, answer = ("".join(rng.choices(words, k=rng.randint(3, 9))) for _ in range(2))
            turns = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")


def settings(run_dir: str, shards: str, max_steps: int = STEPS) -> list[str]:
    return [
        f"run_dir={run_dir}", f"data.train={shards}", "data.sequence_length=64", "micro_batch_size=2",
        "global_batch_size=4", f"max_steps={max_steps}", "loop.save_every=3", "loop.eval_every=6",
        "loop.log_every=1", "device=cpu", "precision=fp32", "trackers=[]", "schedule.warmup_steps=2",
    ]  # fmt: skip


def runs() -> dict[str, tuple[str, list[str], str]]:
    """Name -> (verb, its own settings, shards)."""
    mixture = {**SHAPE, **MIXTURE, "qk_norm": False}
    return {
        "dense": ("pretrain", ["tokenizer=tokenizer", *_model(SHAPE)], "shards"),
        "moe": ("pretrain", ["tokenizer=tokenizer", *_model(mixture)], "shards"),
        # Rows that hold every chat: longer ones were cut by another rule in 39e0b2c.
        "lora": (
            "sft",
            ["init_from=dense/checkpoints/latest", "lora.rank=4", "data.sequence_length=128"],
            "chat_shards",
        ),
    }


def _model(shape: Mapping[str, object]) -> list[str]:
    return [f"model.{key}={json.dumps(value)}" for key, value in shape.items()]


def stop_at(run: Path, step: int) -> None:
    """Make a finished run look as one that was killed after `step` was saved."""
    for folder in (run / "checkpoints").glob("step-*"):
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)
    for link in ("latest", "best"):
        path = run / "checkpoints" / link
        if path.is_symlink():
            path.unlink()
            path.symlink_to(f"step-{step:06d}")


def final_files(run: Path) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{STEPS:06d}"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", default="39e0b2c")
    parser.add_argument("--fixture", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, old = Path(temporary), Path(temporary) / "old_code"
        subprocess.run(
            ["git", "worktree", "add", "--quiet", "--detach", str(old), arguments.commit],
            cwd=ROOT, check=True,
        )  # fmt: skip
        try:
            compare(old, folder, arguments.fixture)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=True)


def compare(old: Path, folder: Path, fixture: Path | None) -> None:
    write_corpus(folder)
    mengya(old, folder, "tokenizer", "out=tokenizer", "sources=text.jsonl", "vocab_size=300")
    for kind, out, source in (("text", "shards", "text"), ("conversation", "chat_shards", "chat")):
        mengya(
            old, folder, "prepare", f"kind={kind}", f"out={out}", "tokenizer=tokenizer",
            f"sources={source}.jsonl", "workers=1",
        )  # fmt: skip
    wrong = []
    for name, (verb, own, shards) in runs().items():
        mengya(old, folder, verb, *settings(name, shards), *own)
        expected = final_files(folder / name)
        stopped = folder / name
        stop_at(stopped, STOP)
        if fixture is not None and name == "dense":
            keep(folder, expected, fixture)
        mengya(ROOT, folder, verb, *settings(name, shards), *own, "resume=true")
        same = expected and final_files(stopped) == expected
        print(
            f"{name}: {verb} of {old.name} resumed at step {STOP}, bytes {'equal' if same else 'DIFFER'}"
        )
        if not same:
            wrong.append(name)
    if wrong:
        sys.exit(f"not bit for bit: {', '.join(wrong)}")


def keep(folder: Path, expected: dict[str, bytes], fixture: Path) -> None:
    """The stopped run, its data, and what it must end in."""
    shutil.rmtree(fixture, ignore_errors=True)
    for name in ("tokenizer", "shards"):
        shutil.copytree(folder / name, fixture / name)
    shutil.copytree(folder / "dense", fixture / "dense", symlinks=True, ignore=_unneeded)
    for name, content in expected.items():
        (fixture / f"expected_{name}").write_bytes(content)


def _unneeded(path: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("step-000003", "report.html", "tensorboard")]


if __name__ == "__main__":
    main()
