"""What several layouts ask of tensors, shapes and values of a configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mengya.errors import UserError, shown
from mengya.kernels.quantized.weight import Scheme

BITS = (2, 3, 4, 8)


def of_type(tensors: Mapping[str, Tensor], part: str, *dtypes: torch.dtype) -> Tensor:
    """A tensor that is there, of one of these dtypes.

    Raises:
        UserError: it is of another.
    """
    tensor = tensors[part]
    if tensor.dtype not in dtypes:
        names = " or ".join(_name(dtype) for dtype in dtypes)
        raise UserError(f"{part} is {_name(tensor.dtype)}, not {names}")
    return tensor


def scales(tensors: Mapping[str, Tensor], part: str) -> Tensor:
    """Scales in fp32.

    Raises:
        UserError: they are no floating-point numbers, or not all finite.
    """
    floats = (torch.float32, torch.float16, torch.bfloat16)
    found = of_type(tensors, part, *floats).float()
    if not found.isfinite().all():
        raise UserError(f"{part} holds numbers that are not finite")
    return found


def groups(tensor_I: Tensor, part: str, count: int) -> Tensor:
    """The group of each column, int32.

    Raises:
        UserError: a number that is no group.
    """
    found = of_type({part: tensor_I}, part, torch.int32, torch.int64).to(torch.int32)
    if found.numel() and not 0 <= int(found.min()) <= int(found.max()) < count:
        raise UserError(f"{part} holds numbers outside 0 to {count - 1}, the groups of a row")
    return found


def one_of(values: Mapping[str, Any], key: str, *allowed: object, default: object = None) -> Any:
    """The value of a key of `quantization_config`.

    Raises:
        UserError: it is none of `allowed`.
    """
    value = values.get(key, default)
    if value not in allowed or type(value) not in map(type, allowed):
        known = ", ".join(map(repr, allowed))
        raise UserError(f"{key} {shown(value)} is not supported (only {known})")
    return value


def group_size(value: object, key: str = "group_size") -> int | None:
    """A group size as configurations write it: -1 or null for all of a row.

    Raises:
        UserError: it is no such number.
    """
    if value is None or value == -1:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{key} {shown(value)} must be a number above 0, or -1 for all of a row")
    return value


def check_groups(scheme: Scheme, shape: tuple[int, int]) -> None:
    """
    Raises:
        UserError: the groups do not divide a row.
    """
    size, width = scheme.group_size, shape[1]
    if size is not None and width % size:
        fitting = [n for n in (128, 64, 32, 16) if width % n == 0]
        choice = ", ".join(map(str, fitting)) or "all of a row"
        raise UserError(f"groups of {size} do not divide rows of {width} inputs; take {choice}")


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression for the beginning of a name.

    Raises:
        UserError: it is none.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"the pattern {shown(text)} is not valid: {error}") from error


def names(values: Mapping[str, Any], key: str) -> list[str]:
    """A list of names or patterns; none for null.

    Raises:
        UserError: it is something else.
    """
    value = values.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise UserError(f"{key} {shown(value)} must be a list of names")
    return value


def mapping(values: object, key: str) -> Mapping[str, Any]:
    """
    Raises:
        UserError: it is no mapping with names as keys.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{key} {shown(values)} must be a mapping")
    return values


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
