"""Numbers of the authors' own code, to hold ours against; `authors_table` lists all comparisons.

`tests/data/authors_golden.json` holds what the authors' published functions returned on fixed inputs, with repository
and commit. Where an update is the answer of an optimization problem there may be two values: "published", the function
as it is, and "tight", the same function with its solver's tolerances made tight. Random draws are given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.support.paths import DATA

FILE = DATA / "authors_golden.json"
DECADES = "scaled"
"""Kind of the problems whose gradients' norms lie over three decades."""


class Comparison(NamedTuple):
    """One number of ours beside one of theirs.

    Attributes:
        part: what is compared; a row of the table.
        deviation: relative; absolute where theirs is zero.
        allowed: largest deviation that passes; infinity where we depart, or where theirs did not converge.
        departs: the largest deviation among all cases of this part must reach it, where we depart on purpose.
    """

    part: str
    deviation: float
    allowed: float
    departs: float = 0.0


Comparisons = Iterator[Comparison]
Facts = dict[str, Any]


@cache
def golden() -> Facts:
    """The file: ``about`` and ``cases``, by method."""
    facts: Facts = json.loads(FILE.read_text(encoding="utf-8"))
    return facts


def double(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def deviation(ours: Any, theirs: Any) -> float:
    """Norm of the difference, relative to that of theirs."""
    ours, theirs = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (ours, theirs))
    return float((ours - theirs).norm() / (theirs.norm() or 1.0))
