"""A picture of one step: the gradients of two tasks in the plane, their mean, and what a combiner makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl_imgrad.combiners import Combiner
from mtrl_imgrad.reporting.figures import PALETTE

SIZE, MARGIN = 230, 34


@dataclass(frozen=True)
class Case:
    """A problem in the plane.

    Attributes:
        title: above the picture.
        gradients: ``[2, 2]``, a row a task.
        losses: ``[2]``.
    """

    title: str
    gradients: Sequence[Sequence[float]]
    losses: Sequence[float]


CASES = (
    Case("Agreement", [[1.0, 0.2], [0.4, 0.9]], [1.0, 1.0]),
    Case("Conflict", [[1.0, 0.25], [-0.6, 0.8]], [1.0, 1.0]),
    Case("Conflict and imbalance", [[2.0, 0.1], [-0.35, 0.35]], [2.0, 0.5]),
)


@dataclass(frozen=True)
class Arrow:
    """A vector ``[2]`` from the origin, its label and its class in the style sheet."""

    label: str
    end: Sequence[float]
    kind: str
    colour: str = "currentColor"


def one_step(combiner: Combiner, case: Case) -> tuple[str, str]:
    """The picture of a new combiner's step, and a line of what it does to each task."""
    gradients = torch.tensor(case.gradients, dtype=torch.float64)
    found = combiner(gradients, torch.tensor(case.losses, dtype=torch.float64))
    assert isinstance(found.gradient, Tensor)
    arrows = [
        Arrow(f"g{number}", row, "gradient", PALETTE[number - 1]) for number, row in enumerate(gradients.tolist(), 1)
    ]
    arrows += [Arrow("mean", gradients.mean(0).tolist(), "mean"), Arrow("d", found.gradient.tolist(), "update")]
    change = [round(value, 3) + 0.0 for value in (gradients @ found.gradient).tolist()]
    words = "; ".join(
        f"loss {number} {'falls' if value > 0 else 'rises' if value < 0 else 'stays'}"
        for number, value in enumerate(change, 1)
    )
    weights = "" if found.weights is None else "weights " + ", ".join(f"{w:.2f}" for w in found.weights.tolist()) + "; "
    return svg(case.title, arrows), f"{weights}{words}"


def svg(title: str, arrows: Sequence[Arrow]) -> str:
    """A drawing with the same scale on both axes, in the colours of the page around it.

    Args:
        title: what a screen reader says.
        arrows: drawn in their order, from the origin.
    """
    points = [(0.0, 0.0), *((arrow.end[0], arrow.end[1]) for arrow in arrows)]
    low, high = [min(axis) for axis in zip(*points, strict=True)], [max(axis) for axis in zip(*points, strict=True)]
    scale = (SIZE - 2 * MARGIN) / max(high[0] - low[0], high[1] - low[1])
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]

    def place(point: Sequence[float]) -> tuple[float, float]:
        return SIZE / 2 + scale * (point[0] - middle[0]), SIZE / 2 - scale * (point[1] - middle[1])

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="{title}" '
        'font-family="sans-serif" font-size="13">'
    ]
    lines += [_drawn(arrow, place((0.0, 0.0)), place(arrow.end)) for arrow in arrows]
    return "\n".join([*lines, "</svg>"])


def _drawn(arrow: Arrow, start: tuple[float, float], end: tuple[float, float]) -> str:
    width = {"gradient": 2.5, "mean": 1.5, "update": 4.0}[arrow.kind]
    dashes = ' stroke-dasharray="5 4"' if arrow.kind == "mean" else ""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    ux, uy = dx / length, dy / length
    head = min(5 + 1.5 * width, length / 2)
    neck = (end[0] - head * ux, end[1] - head * uy)
    corners = [end, *((neck[0] - sign * head * uy / 2, neck[1] + sign * head * ux / 2) for sign in (1, -1))]
    text = (end[0] + 13 * ux, end[1] + 13 * uy + 4)
    if arrow.kind == "mean":  # beside the arrow: the update often ends near it
        text = (start[0] + 0.6 * dx - 16 * uy, start[1] + 0.6 * dy + 16 * ux + 4)
    polygon = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{neck[0]:.1f}" y2="{neck[1]:.1f}" '
        f'stroke="{arrow.colour}" stroke-width="{width}"{dashes}/>'
        f'<polygon points="{polygon}" fill="{arrow.colour}"/>'
        f'<text x="{text[0]:.1f}" y="{text[1]:.1f}" fill="{arrow.colour}" text-anchor="middle">{arrow.label}</text>'
    )
