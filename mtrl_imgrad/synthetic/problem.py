"""Two losses of two parameters on which plain descent gets stuck, and their gradients, written out.

Liu, Liu, Jin, Stone, Liu, "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021, arXiv 2110.14048
(its synthetic example), used since by Nash-MTL (arXiv 2202.01017), Aligned-MTL (arXiv 2305.19000), FAMO and IMGrad
(arXiv 2503.08006). With x = (x1, x2):

    f1(x) = c1 l(x) + c2 q(x),     f2(x1, x2) = f1(-x1, x2)
    l = log max(|tanh x2 - (x1 + 7) / 2|, 5e-6) + 6,   q = ((x1 - 7)^2 + (x2 + 8)^2 / 10) / 10 - 20
    c1 = max(tanh(x2 / 2), 0),   c2 = max(-tanh(x2 / 2), 0)

For x2 > 0 the losses are logarithms with a narrow valley each, for x2 < 0 two bowls. In an imbalanced scenario with
share s the tasks are ``s f1`` and ``(1 - s) f2`` (Aligned-MTL, IMGrad).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import checked

Start = tuple[float, float]

STARTS: dict[str, tuple[Start, ...]] = {
    "five": ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0)),
    "three": ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0)),
}
"""The starts of Nash-MTL's code (five; also of Aligned-MTL's and FAMO's) and of CAGrad's (three)."""

LOWER_BOUND = -21.0
"""Below both losses everywhere; FAMO's code takes the same number."""

_CLAMP = 5e-6
_CENTRE = 7.0


def evaluate(points: Tensor) -> tuple[Tensor, Tensor]:
    """Both losses and their gradients.

    At the edges of the clamps, where there is no derivative, those of both sides are added, as autograd does.

    Args:
        points: ``[..., 2]`` float64.

    Returns:
        Losses ``[..., 2]``, and the Jacobian ``[..., 2, 2]`` whose row k is the gradient of loss k.
    """
    check_points(points)
    sign = points.new_tensor([1.0, -1.0])
    u = points[..., :1] * sign  # f2 is f1 of the mirrored point
    y = points[..., 1:]
    tanh, half = y.tanh(), (y / 2).tanh()
    upper, lower = half.clamp_min(0), (-half).clamp_min(0)
    slope = (1 - half * half) / 2
    upper_slope, lower_slope = slope * (half >= 0), -slope * (half <= 0)

    gap = tanh - (u + _CENTRE) / 2
    size = gap.abs()
    log = size.clamp_min(_CLAMP).log() + 6
    log_slope = torch.where(size >= _CLAMP, gap.reciprocal(), 0.0)
    bowl = ((u - _CENTRE).square() + (y + 8).square() / 10) / 10 - 20

    losses = upper * log + lower * bowl
    along = -upper * log_slope / 2 + lower * (u - _CENTRE) / 5
    down = (
        upper_slope * log
        + upper * log_slope * (1 - tanh * tanh)
        + lower_slope * bowl
        + lower * (y + 8) / 50
    )  # fmt: skip
    return losses, torch.stack([sign * along, down], -1)


def check_points(points: Tensor) -> None:
    """Check the shape of points."""
    if points.ndim < 1 or points.shape[-1] != 2 or not points.is_floating_point():
        raise ArgumentError(f"points must be [..., 2] floating point, got {list(points.shape)} {points.dtype}")


@checked
def task_weights(shares: Sequence[float]) -> Tensor:
    """``[S, 2]`` float64 factors ``(s, 1 - s)`` of the two losses."""
    s = torch.tensor(check_shares(shares), dtype=torch.float64)
    return torch.stack([s, 1 - s], -1)


@checked
def check_shares(shares: Sequence[float]) -> tuple[float, ...]:
    """``shares`` as floats."""
    numbers = tuple(float(s) for s in shares)
    if not numbers or not all(0 < s < 1 for s in numbers) or len(set(numbers)) < len(numbers):
        raise ArgumentError(f"shares must hold different numbers s between 0 and 1, the first task's, got {numbers}")
    return numbers


@checked
def check_starts(starts: str | Sequence[Start]) -> tuple[Start, ...]:
    """Starts from the name of a set in `STARTS`, or from points.

    Raises:
        ArgumentError: if the name is not known, there is no start, or one is not two finite numbers.
    """
    if isinstance(starts, str):
        if starts not in STARTS:
            raise ArgumentError(f"starts must be {', '.join(map(repr, STARTS))} or points (x1, x2), got {starts!r}")
        return STARTS[starts]
    points = tuple(tuple(float(number) for number in start) for start in starts)
    if not points or any(len(point) != 2 for point in points) or not torch.tensor(points).isfinite().all():
        raise ArgumentError(f"starts must hold points (x1, x2) of two finite numbers, got {points}")
    return points  # type: ignore[return-value]
