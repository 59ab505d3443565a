"""Nested states to JSON and named tensors and back, exactly and without code.

A state is made of dicts (keys all text or all integers), lists, tuples, None, booleans, numbers, text, tensors and
NumPy arrays. In the JSON a dict with text keys is an object; what JSON does not have is an object of one key:

    {"$tensor": NAME}  {"$array": NAME}  {"$tuple": [...]}  {"$integers": {"0": ...}}  {"$float": "nan"}

A tensor's name is its place in the state, as a JSON pointer (RFC 6901).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError


def split_tree(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Take a state apart.

    Args:
        state: see the module.

    Returns:
        What JSON can hold, and the tensors by name, on the host; they may share memory with the state's.

    Raises:
        ArgumentError: if something in it is of another type, naming the place.
    """
    tensors: dict[str, Tensor] = {}
    return _split(state, "", tensors), tensors


def _split(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, (Tensor, np.ndarray)):
        is_tensor = isinstance(value, Tensor)
        tensor = value.detach() if isinstance(value, Tensor) else _to_tensor(value, place)
        # An array of no axes comes out of ascontiguousarray with one.
        tensors[place] = tensor.cpu().contiguous().reshape(value.shape)
        return {"$tensor" if is_tensor else "$array": place}
    if isinstance(value, (list, tuple)):
        entries = [_split(entry, f"{place}/{i}", tensors) for i, entry in enumerate(value)]
        return entries if isinstance(value, list) else {"$tuple": entries}
    if isinstance(value, Mapping):
        return _split_mapping(value, place, tensors)
    raise ArgumentError(f"{place or 'the state'} is a {type(value).__name__}, which a checkpoint cannot hold")


def _to_tensor(array: np.ndarray, place: str) -> Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except TypeError as error:
        raise ArgumentError(f"{place} is an array of {array.dtype}, which a checkpoint cannot hold") from error


def _split_mapping(value: Mapping[Any, Any], place: str, tensors: dict[str, Tensor]) -> Any:
    entries = {str(key): _split(entry, f"{place}/{_escaped(str(key))}", tensors) for key, entry in value.items()}
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return entries
    if all(isinstance(key, int) and not isinstance(key, bool) for key in value):
        return {"$integers": entries}
    raise ArgumentError(f"{place or 'the state'} has keys that a checkpoint cannot hold: {list(value)[:5]}")


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def join_tree(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put together what `split_tree` took apart.

    Raises:
        ArgumentError: if the two do not belong together, or an object is none that `split_tree` makes.
    """
    unused = dict(tensors)
    state = _join(plain, unused)
    if unused:
        raise ArgumentError(f"nothing refers to the tensor {next(iter(unused))!r}")
    return state


def _join(plain: Any, unused: dict[str, Tensor]) -> Any:
    if isinstance(plain, list):
        return [_join(entry, unused) for entry in plain]
    if not isinstance(plain, dict):
        return plain
    tag = next(iter(plain), "")
    if not tag.startswith("$"):
        if any(key.startswith("$") for key in plain):
            raise ArgumentError(f"an object has the keys {list(plain)[:5]}")
        return {key: _join(entry, unused) for key, entry in plain.items()}
    if len(plain) != 1:
        raise ArgumentError(f"an object has the keys {list(plain)[:5]}")
    return _join_tagged(tag, plain[tag], unused)


def _join_tagged(tag: str, content: Any, unused: dict[str, Tensor]) -> Any:
    if tag in ("$tensor", "$array") and isinstance(content, str):
        if content not in unused:
            raise ArgumentError(f"there is no tensor {content!r}, or it is used twice")
        tensor = unused.pop(content)
        return tensor if tag == "$tensor" else tensor.numpy()
    if tag == "$tuple" and isinstance(content, list):
        return tuple(_join(entry, unused) for entry in content)
    if tag == "$integers" and isinstance(content, dict):
        return {int(key): _join(entry, unused) for key, entry in content.items()}
    if tag == "$float" and content in ("nan", "inf", "-inf"):
        return float(content)
    raise ArgumentError(f"an object is {{{tag!r}: a {type(content).__name__}}}")
