"""Whether a finished folder holds what would be made, and what differs where it does not.

Takes the request of prepare.json and that of now. A folder of an earlier version that did something otherwise
can be used as it is, and says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from mengya.data.prepare.build import TRAIN, VALIDATION
from mengya.data.prepare.config import REQUEST, PrepareConfig
from mengya.data.prepare.request.inputs import REPEATED_TEXT_VERSION, VERSION, Inputs
from mengya.data.prepare.request.moved import (
    changed_facts,
    check_manifest,
    content,
    in_earlier_order,
    only_order_differs,
    write_facts,
)
from mengya.data.prepare.request.saved import SavedRequest
from mengya.data.shards import TokenShards
from mengya.errors import UserError, shown
from mengya.text.near_duplicates.config import NearDuplicateConfig

MAX_LISTED = 20  # lines of a message
_NEAR_BY_DEFAULT = NearDuplicateConfig().settings()


def is_up_to_date(
    config: PrepareConfig, saved: SavedRequest, inputs: Inputs, console: Console
) -> bool:
    """Whether OUT holds what would be made; with overwrite=true all its bytes are checked.

    Raises:
        UserError: overwrite is false, and it holds something else, or files are missing or have wrong sizes.
    """
    older = _what_was_otherwise(saved.request, inputs.request)
    if older and config.overwrite:
        return False
    before = _in_words_of_today(saved.request, inputs.request)
    if content(before) != content(inputs.request):
        if config.overwrite:
            return False
        raise _other_request(config, before, inputs.request)
    splits = (TRAIN, VALIDATION) if config.validation_fraction > 0 else (".",)
    try:
        for split in splits:
            shards = TokenShards(config.out / split)
            if changed_facts(before, inputs.request):
                check_manifest(shards.manifest, before)
            if config.overwrite:
                shards.verify()
    except UserError as error:
        if not config.overwrite:
            raise UserError(f"write overwrite=true to make {config.out} again: {error}") from error
        message = f"{error}\nmaking {config.out} again"
        console.print(message, markup=False, soft_wrap=True, highlight=False)
        return False
    if older:
        message = (
            f"{config.out} was made by an earlier version of mengya, which {older}; it can be used as it "
            "is, overwrite=true makes it again"
        )
        console.print(message, markup=False, soft_wrap=True, highlight=False)
    return True


def note_moved(folder: Path, saved: SavedRequest, inputs: Inputs, console: Console) -> bool:
    """Where the same content lies elsewhere now, or is called otherwise, say so and correct the manifests.

    Returns:
        Whether that is so; what else of `folder` has the names is still to be corrected.
    """
    lines = changed_facts(saved.request, inputs.request)
    if not lines or _what_was_otherwise(saved.request, inputs.request):
        return False
    write_facts(folder, inputs.request)
    inputs.save(folder / REQUEST)
    more = f"\n  and {len(lines) - MAX_LISTED} more" if len(lines) > MAX_LISTED else ""
    listed = "\n".join(f"  {line}" for line in lines[:MAX_LISTED])
    message = f"the same content as before, noted in the manifest:\n{listed}{more}"
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    return True


def _other_request(config: PrepareConfig, before: dict[str, Any], now: dict[str, Any]) -> UserError:
    lines = "\n".join(f"  - {line}" for line in differences(before, now)[:MAX_LISTED])
    text = f"{config.out} was made with other settings or files:\n{lines}\n"
    if only_order_differs(before, now):
        text += "These are the same files, read in another order: a folder is read by name"
        earlier = in_earlier_order(before, now)
        plain = all(source.model_fields_set <= {"path"} for source in config.sources)
        if plain and len(earlier) <= MAX_LISTED:
            text += (
                f"; for the earlier one write sources='{json.dumps(earlier, ensure_ascii=False)}'"
            )
        text += "\n"
    return UserError(f"{text}write overwrite=true to make it again, or choose another out=")


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Where two requests differ, one line each: "clean.min_characters: 5 -> 10"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            line
            for k in keys
            for line in differences(old.get(k), new.get(k), f"{key}.{k}" if key else k)
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for i, pair in enumerate(zip(old, new, strict=True))
            for line in differences(*pair, f"{key}.{i}")
        ]
    if old == new:
        return []
    return [f"{key}: {_entries(old)} -> {_entries(new)}"]


def _what_was_otherwise(request: dict[str, Any], now: dict[str, Any]) -> str:
    """What an earlier version, which made a request, did otherwise with settings of now; or ""."""
    if request["version"] < VERSION:
        return "read some records in another way (docs/data_format.md)"
    if _before_passages_stayed(request) and "repeated_text" in now:
        return (
            "lost passages whose first document was dropped: some are nowhere in the shards "
            "(docs/data_factory.md)"
        )
    if _before_near_duplicates(request) and now.get("near_duplicates") == _NEAR_BY_DEFAULT:
        return (
            "kept only exact duplicates apart: validation may hold texts that nearly equal one of training "
            "(docs/data_factory.md)"
        )
    return ""


def _in_words_of_today(request: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A request of an earlier version; a setting that did not exist then has its default."""
    if request["version"] < VERSION:
        clean = {"white_space": "indentation", **request["clean"]}
        request = {"train_on": "all_turns", **request, "clean": clean, "version": VERSION}
    if _before_passages_stayed(request):
        repeated = {**request["repeated_text"], "version": REPEATED_TEXT_VERSION}
        request = {**request, "repeated_text": repeated}
    if not _before_near_duplicates(request):
        return request
    default = now.get("near_duplicates") == _NEAR_BY_DEFAULT
    return request | {"near_duplicates": _NEAR_BY_DEFAULT if default else {"action": "ignore"}}


def _before_near_duplicates(request: dict[str, Any]) -> bool:
    """Whether it is of a version that knew of none, and has a split that they matter for."""
    return request["validation_fraction"] > 0 and "near_duplicates" not in request


def _before_passages_stayed(request: dict[str, Any]) -> bool:
    return "repeated_text" in request and "version" not in request["repeated_text"]


def _entries(value: Any) -> str:
    if not isinstance(value, list):
        return shown(value)
    return "1 entry" if len(value) == 1 else f"{len(value)} entries"
