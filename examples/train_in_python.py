"""From generated sentences to a language model, in Python: tokenizer, shards, training, text, a score.

    python examples/train_in_python.py [FOLDER]

Half a minute on a CPU; everything is written to FOLDER (default: runs/python). The same functions train
models of any size: pass the path of a recipe (recipes/) first, and only the keys that differ.
"""

import itertools
import json
import sys
from pathlib import Path

import mengya


def main(folder: Path) -> None:
    people, things = (
        ["小满", "阿木", "春生", "秋棠", "大河", "云朵"],
        ["苹果", "毛笔", "雨伞", "风筝"],
    )
    feelings = ["很高兴", "很满意", "笑了", "唱起歌来"]
    drawn = itertools.product(people, range(2, 8), things, feelings)
    texts = [f"{a}在集市上买了{n}个{b}，{a}{c}。" for a, n, b, c in drawn]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "sentences.jsonl"
    file.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")

    tokenizer = mengya.train_tokenizer(out=folder / "tokenizer", sources=file, vocab_size=320)
    shards = mengya.prepare(
        out=folder / "shards", tokenizer=tokenizer, sources=file, validation_fraction=0.1
    )
    run = mengya.pretrain(
        run_dir=folder / "pretrain",
        tokenizer=tokenizer,
        model={
            "vocab_size": 320,
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
        },
        data={"train": shards["train"], "validation": shards["validation"], "sequence_length": 64},
        max_steps=80,
        optimizer={"lr": 5e-3},
        device="cpu",
    )
    model = mengya.load(run.checkpoint, device="cpu")
    print("阿木" + model.generate("阿木", max_new_tokens=32, temperature=0))
    score = mengya.evaluate(run.checkpoint, text_shards=shards["validation"], device="cpu")
    print(f"{score['text']['bits_per_char']:.3f} bits per character on held-out sentences")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/python"))
    except mengya.UserError as error:  # a second time, say: nothing is overwritten
        sys.exit(f"{error}\n(python examples/train_in_python.py FOLDER writes elsewhere)")
