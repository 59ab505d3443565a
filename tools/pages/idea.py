"""The two figures of docs/idea.md: ``python -m tools.pages.idea`` writes them to docs/idea."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mtrl_imgrad.combiners import make_combiner
from mtrl_imgrad.reporting.figures import PALETTE, QUIET, line_style, new_figure, plain_axes, save_figure

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "idea"
ANGLE = torch.tensor(130.0).deg2rad()
BALL_RADIUS = 0.8
ARROW = {"arrowstyle": "-|>", "lw": 2, "shrinkA": 0, "shrinkB": 0}
METHODS = {
    "mean": ("linear_scalarization", {}),
    "MGDA": ("mgda", {}),
    "CAGrad, c = 0.8": ("cagrad", {"c": BALL_RADIUS}),
    "IMGrad, c = 0.8": ("imgrad", {"c": BALL_RADIUS}),
}


def gradients(ratio: float) -> Tensor:
    """Two gradients ``[2, 2]`` at 130 degrees, the first ``ratio`` times as long as the second."""
    rows = [[ratio, 0.0], [float(ANGLE.cos()), float(ANGLE.sin())]]
    return torch.tensor(rows, dtype=torch.float64)


def draw_ball(path: Path) -> None:
    """The ball around the mean in which IMGrad and CAGrad look for the update, for three ratios of lengths."""
    figure = new_figure(9, 2.9)
    for axes, ratio in zip(figure.subplots(1, 3), (1.0, 1.6, 4.0), strict=True):
        G = gradients(ratio)
        mean = G.mean(0)
        found = make_combiner("imgrad", c=BALL_RADIUS, rescale=False)(G)
        angles = torch.linspace(0, 2 * torch.pi, 100)
        ball = mean + BALL_RADIUS * mean.norm() * torch.stack([angles.cos(), angles.sin()], 1)
        axes.plot(*ball.T.tolist(), color=QUIET, linewidth=0.8, linestyle=(0, (2, 2)))
        arrows = [("g1", G[0], PALETTE[0]), ("g2", G[1], PALETTE[1]), ("mean", mean, QUIET), ("d", found.gradient, "k")]
        for label, end, colour in arrows:
            x, y = end.tolist()
            axes.annotate(
                "",
                (x, y),
                (0, 0),
                arrowprops={**ARROW, "color": colour},
            )
            beyond = 0.14 * max(1.0, ratio / 2) * end / end.norm()
            axes.plot(x + float(beyond[0]), y + float(beyond[1]), alpha=0)  # makes room for the label
            axes.text(*(end + beyond).tolist(), label, color=colour, ha="center", va="center")
        axes.set_title(f"|g1| = {ratio:g} |g2|, cos theta = {float(found.extras['mu']):.2f}", fontsize=10)
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.08)
        axes.axis("off")
    save_figure(figure, path)


def draw_growth(path: Path) -> None:
    """What the update does to the task of the short gradient, and the measure of imbalance, as the other one grows."""
    ratios = torch.logspace(0, 1.3, 60).tolist()
    figure = new_figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    for index, (label, (name, arguments)) in enumerate(METHODS.items()):
        combiner = make_combiner(name, **arguments)
        cosines = []
        for ratio in ratios:
            G = gradients(ratio)
            d = combiner(G, torch.ones(2, dtype=torch.float64)).gradient
            cosines.append(float(d @ G[1] / (d.norm() * G[1].norm())))
        left.plot(ratios, cosines, label=label, **line_style(index), linewidth=4 if name == "cagrad" else 1.8)
    left.axhline(0, color=QUIET, linewidth=0.8)
    left.set(xscale="log", xlabel="|g1| / |g2|", ylabel="cosine of the update and g2")
    left.legend(frameon=False, fontsize=8)
    imgrad = make_combiner("imgrad", c=BALL_RADIUS)
    mu = [float(imgrad(gradients(ratio)).extras["mu"]) for ratio in ratios]
    right.plot(ratios, mu, color="k", label="cos theta")
    right.plot(ratios, [m / (1.5 - m) for m in mu], **line_style(3), label="kappa = cos theta / (1.5 - cos theta)")
    right.set(xscale="log", xlabel="|g1| / |g2|", ylim=(0, 2.1))
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        plain_axes(axes, "both")
    save_figure(figure, path)


if __name__ == "__main__":
    draw_ball(FOLDER / "ball.png")
    draw_growth(FOLDER / "growth.png")
