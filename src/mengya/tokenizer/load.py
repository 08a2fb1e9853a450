"""Tokenizer folders, ours or any fast Hugging Face one: load, save, identify, encode raw text.

Never runs code from a folder.
"""

import hashlib
import importlib.util
import json
import re
import shlex
import shutil
from functools import lru_cache
from pathlib import Path
from typing import cast

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.runtime.optional import install_command

# The files of a tokenizer folder, whichever of them a tokenizer happens to have.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
)
# What ends an assistant's turn in the usual templates, besides the tokenizer's own eos.
TURN_END_TOKENS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>")


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a Hugging Face folder.

    Raises:
        UserError: no such folder, no tokenizer in it, or none that works without its own code.
    """
    folder = Path(path)
    _check_exists(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(
            f"{str(folder)!r} holds no tokenizer: no tokenizer.json, tokenizer_config.json, vocab.txt "
            f"or tokenizer.model{_conversion(folder)}"
        )
    _check_converter(folder)
    if not any((folder / name).is_file() for name in (*_SAY_HOW, "config.json")):
        # transformers would guess what the file does not say, and give other ids than its library.
        raise UserError(
            f"{str(folder)!r} holds no tokenizer.json, and no tokenizer_config.json that says what its "
            f"vocabulary is{_conversion(folder)}"
        )
    config_file = folder / "tokenizer_config.json"
    try:
        config = json.loads(config_file.read_text("utf-8")) if config_file.is_file() else {}
        if "auto_map" in config and (folder / "tokenizer.json").is_file():
            # The folder asks to run its own code; its tokenizer.json says the same without any.
            loaded = _load_without_code(folder, config)
        elif _names_its_class(folder, config):
            loaded = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        else:
            from transformers import AutoTokenizer  # imports torch

            loaded = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # transformers raises many kinds for a broken folder
        raise UserError(
            f"cannot load a tokenizer from {str(folder)!r}: {_first_line(error)}. "
            f"A folder with a tokenizer.json is what works everywhere{_conversion(folder)}"
        ) from error
    if not isinstance(loaded, PreTrainedTokenizerFast):
        raise UserError(
            f"{str(folder)!r} holds a slow tokenizer ({type(loaded).__name__}); "
            "it needs a tokenizer.json next to it"
        )
    return loaded


# Files that decide how a text becomes ids, besides a bare vocabulary.
_SAY_HOW = ("tokenizer.json", "tokenizer_config.json", "vocab.json")


def _conversion(folder: Path) -> str:
    """The command that converts the folder's vocabulary file, where there is one."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".model", ".tiktoken"))
    if not files:
        return "; train one with `mengya tokenizer`"
    return f"; convert its vocabulary: mengya tokenizer convert {shlex.quote(str(files[0]))} out=FOLDER"


_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+")


def _check_converter(folder: Path) -> None:
    """Name the package that turns the folder's vocabulary into a tokenizer.json, where it is missing:
    transformers tries one after another and names the last."""
    others = ("tokenizer.json", "vocab.json", "vocab.txt")
    if any((folder / name).is_file() for name in others):
        return
    for file in (folder / "tokenizer.model", folder / "spiece.model"):
        if not file.is_file():
            continue
        with file.open("rb") as start:
            is_tiktoken = _TIKTOKEN_LINE.fullmatch(start.readline(1000).strip()) is not None
        package, name = (
            ("tiktoken", "tiktoken") if is_tiktoken else ("sentencepiece", "SentencePiece")
        )
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{file} is a vocabulary of {name}, and the package {package}, which reads it, is not "
                f"installed; {install_command(package)}, or use a folder with a tokenizer.json"
            )
        return


def _load_without_code(folder: Path, config: dict) -> PreTrainedTokenizerFast:
    names = ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template")
    kept = {name: config[name] for name in names if isinstance(config.get(name), str)}
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for token_id, added in sorted(
        config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0])
    ):
        add = backend.add_special_tokens if added.get("special") else backend.add_tokens
        add([added["content"]])
        if backend.token_to_id(added["content"]) != int(token_id):
            raise ValueError(
                f"added token {added['content']!r} should have id {token_id}, "
                f"tokenizer.json gives {backend.token_to_id(added['content'])}"
            )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **kept
    )


def _names_its_class(folder: Path, config: dict) -> bool:
    """Whether a tokenizer folder says what `AutoTokenizer` would find, which takes a second to import.

    In a model folder the type of the model has a say too.
    """
    general = config.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")
    return (
        general and (folder / "tokenizer.json").is_file() and not (folder / "config.json").exists()
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(". ")


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, directory: str | Path) -> None:
    """Write a standard folder that transformers 4.57 and 5 both read."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(directory))
    config_file = directory / "tokenizer_config.json"
    config = json.loads(config_file.read_text("utf-8"))
    # transformers 5 writes its own base class, which 4.x does not know, and settings that only its
    # loader uses.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name in ("backend", "is_local", "local_files_only", "name_or_path"):
        config.pop(name, None)
    config_file.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", "utf-8")


def copy_tokenizer(source: str | Path, destination: str | Path) -> None:
    """Copy the tokenizer files of a folder, byte for byte. Raises UserError when it has none."""
    source, destination = Path(source), Path(destination)
    files = [source / name for name in TOKENIZER_FILES if (source / name).is_file()]
    if not files:
        raise UserError(f"{str(source)!r} holds no tokenizer files to copy")
    destination.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (destination / file.name).exists() or not (destination / file.name).samefile(file):
            shutil.copyfile(file, destination / file.name)


def _check_exists(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(
            f"tokenizer folder {str(folder)!r} does not exist. Train one with `mengya tokenizer`, or "
            "fetch one: hf download OWNER/NAME --include 'tokenizer*' --local-dir FOLDER"
        )


def tokenizer_hash(path: str | Path) -> str:
    """sha256 of what decides the ids of a text: tokenizer.json, else the vocabulary files.

    The chat template is not in it. Raises UserError when there is no tokenizer.
    """
    folder = Path(path)
    _check_exists(folder)
    names = [
        n for n in TOKENIZER_FILES if n not in ("tokenizer_config.json", "chat_template.jinja")
    ]
    if (folder / "tokenizer.json").is_file():
        names = ["tokenizer.json"]
    files = [folder / name for name in names if (folder / name).is_file()]
    if not files:
        raise UserError(f"{str(folder)!r} holds no tokenizer to identify: no tokenizer.json")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def document_token_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id that opens and closes a text document: bos, else `<|endoftext|>`, else eos.

    A bos that opens a chat turn (`<|im_start|>`, as some folders declare) is skipped: a document
    is not a turn.
    """
    vocabulary = tokenizer.get_vocab()
    for token in (tokenizer.bos_token, "<|endoftext|>", tokenizer.eos_token):
        if token in vocabulary and token != "<|im_start|>":
            return vocabulary[cast(str, token)]
    raise UserError(
        "the tokenizer has neither a bos nor an eos token to separate documents; "
        'name one in its tokenizer_config.json, for example "eos_token": "<|endoftext|>"'
    )


def stop_token_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids that end a completion, sorted: eos, turn ends of common templates, the document token."""
    vocabulary = tokenizer.get_vocab()
    control = set(control_tokens(tokenizer))
    found = {vocabulary[t] for t in TURN_END_TOKENS if t in vocabulary and t in control}
    if tokenizer.eos_token_id is not None:
        found.add(cast(int, tokenizer.eos_token_id))
    found.add(document_token_id(tokenizer))
    return sorted(found)


def control_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """What must not become a control id when a person typed it: special and `<tag>`-like tokens.

    Other added tokens (runs of spaces in some vocabularies) are text like any other.
    """
    return tuple(
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (token.content[:1] == "<" and token.content[-1:] == ">")
    )


@lru_cache(maxsize=8)
def plain_backend(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """The tokenizer without its control tokens: whatever a text says, its ids are ids of text."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    control = set(control_tokens(tokenizer))
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in control]
    state["post_processor"] = None
    state["padding"] = state["truncation"] = None
    return Tokenizer.from_str(json.dumps(state))


def encode_texts(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """Ids of raw texts: nothing added, and control tokens written inside a text stay text."""
    return [
        e.ids for e in plain_backend(tokenizer).encode_batch_fast(texts, add_special_tokens=False)
    ]
