"""Optima of the synthetic problem: that of each weighted sum, and the Pareto front that they trace.

In the lower half the weighted sum ``s f1 + (1 - s) f2`` is ``-tanh(x2 / 2)`` times one bowl, which for any x2 is lowest
at ``x1 = 7 (2 s - 1)``; along that line there is one stationary point in x2, found by bisection. No point of the upper
half competes: there both losses are above ``log 5e-6 + 6 > -6.3``, while (-15, -15) is reached below. A Pareto point is
stationary for some weighted sum, so that these optima, s from 0 to 1, are the whole front.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from mtrl_imgrad.synthetic.problem import check_points, evaluate
from mtrl_imgrad.validation import Count, checked

_END = 7.0
_BRACKET = (-9.0, -8.0)
_HALVINGS = 60
_TABLE = 2001


@checked
def minimiser(shares: Tensor) -> Tensor:
    """The global minimum of ``s f1 + (1 - s) f2``.

    Args:
        shares: ``[...]`` float64 s in [0, 1].

    Returns:
        ``[..., 2]``.
    """
    weights = torch.stack([shares, 1 - shares], -1)
    x1 = _END * (2 * shares - 1)
    low, high = (torch.full_like(x1, end) for end in _BRACKET)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = (evaluate(torch.stack([x1, middle], -1))[1][..., 1] * weights).sum(-1)
        low, high = torch.where(slope < 0, middle, low), torch.where(slope < 0, high, middle)
    return torch.stack([x1, (low + high) / 2], -1)


@checked
def front(count: Count = 201) -> Tensor:
    """``[count, 2]`` points of the Pareto front, from the optimum of f2 to that of f1."""
    return _front(count).clone()


@cache  # every figure and distance asks for it
def _front(count: int) -> Tensor:
    return minimiser(torch.linspace(0, 1, count, dtype=torch.float64))


@checked
def distance_to_front(points: Tensor) -> Tensor:
    """``[...]`` distance of ``points`` [..., 2] to the front's point of the same x1, or to its nearer end.

    The front is a nearly straight line along x1 (its slope stays below 0.03), so this is the distance to the front to
    within a thousandth. Between the points of a table the front is interpolated.
    """
    check_points(points)
    points = points.double()
    table = _front(_TABLE)[:, 1]
    x1 = points[..., 0].clamp(-_END, _END)
    place = (x1 + _END) / (2 * _END) * (_TABLE - 1)
    before = place.floor().clamp_max(_TABLE - 2)
    height = torch.lerp(table[before.long()], table[before.long() + 1], place - before)
    return torch.hypot(points[..., 0] - x1, points[..., 1] - height)


def lowest_loss() -> float:
    """The least value of f1, which by symmetry is that of f2."""
    best = minimiser(torch.ones((), dtype=torch.float64))
    return float(evaluate(best)[0][0])
