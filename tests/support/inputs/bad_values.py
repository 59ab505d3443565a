"""What is put in place of a valid argument, and when accepting it counts as a failure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

NAN, INF = float("nan"), float("inf")


def bad_values() -> Iterator[tuple[str, Any]]:
    """Name and value; made anew each time, since some can be changed."""
    yield "None", None
    yield "text", "no such thing"
    yield "bytes", b"bytes"
    yield "list", []
    yield "dict", {}
    yield "object", object()
    yield "bool", True
    yield "zero", 0
    yield "negative", -1
    yield "fraction", 0.5
    yield "NaN", NAN
    yield "infinity", INF
    yield "huge", 1e308
    yield "long", 10**30
    yield "complex", 1j
    yield "list of NaN", [NAN]
    yield "list of text", ["no such thing"]
    yield "nested", [[]]
    yield "foreign keys", {"no such thing": None}
    yield "class", object
    yield "empty tensor", torch.zeros(0)
    yield "integers", torch.ones(2, 3, dtype=torch.int64)
    yield "wrong shape", torch.ones(2, 3, 4, 5)
    yield "tensor of NaN", torch.full((3, 3), NAN)
    yield "array", np.ones((2, 3, 4, 5))


NO_NUMBER = {
    "text",
    "bytes",
    "list",
    "dict",
    "object",
    "bool",
    "NaN",
    "complex",
    "list of NaN",
    "list of text",
    "nested",
}
NO_NUMBER |= {"foreign keys", "class", "empty tensor", "integers", "wrong shape", "tensor of NaN", "array"}
REFUSED = {
    "float": NO_NUMBER | {"None"},
    "int": NO_NUMBER | {"None", "fraction", "infinity", "huge", "long"},
    "bool": (NO_NUMBER | {"None", "fraction", "infinity", "huge", "long", "zero", "negative"}) - {"bool"},
    "str": (NO_NUMBER | {"None", "fraction", "infinity", "huge", "long", "zero", "negative"}) - {"text"},
    "Literal": NO_NUMBER | {"None", "fraction", "infinity", "huge", "long", "negative"},
}
"""What must not be accepted for a plain type, by the names above."""


def must_refuse(annotation: str, value: str) -> bool:
    """Whether accepting the value is a failure, as far as the annotation is one of plain types and None."""
    kinds = [re.sub(r"\[.*\]", "", kind).strip() for kind in re.sub(r"\[[^\]]*\]", "", annotation).split("|")]
    plain = [kind for kind in kinds if kind != "None"]
    if "None" in kinds and value == "None":
        return False
    return bool(plain) and all(kind in REFUSED and value in REFUSED[kind] for kind in plain)
