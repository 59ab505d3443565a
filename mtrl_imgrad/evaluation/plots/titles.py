"""Titles, captions and names of lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mtrl_imgrad.reporting.figures import INK, QUIET

DPI = 150


def set_titles(axes: Axes, detail: str, env: str, combiner: str, seed: int | None) -> None:
    """The run in bold and, below, lines of detail."""
    title = "  ·  ".join(filter(None, [env, combiner, "" if seed is None else f"seed {seed}"]))
    axes.set_title(detail, loc="left", fontsize=9, color=QUIET)
    if title:
        above = 8 + 12 * len(detail.splitlines())
        axes.annotate(
            title, (0, 1), (0, above), xycoords="axes fraction", textcoords="offset points", fontsize=12.5,
            fontweight="bold", color=INK, va="bottom", annotation_clip=False,
        )  # fmt: skip


def count_episodes(count: int) -> str:
    """For instance ``"20 episodes"``."""
    return f"{count} episode{'s' if count > 1 else ''}"


def name_ends(axes: Axes, ends: Sequence[float], names: Sequence[str], styles: Sequence[dict[str, Any]]) -> None:
    """At the right edge the lines' last values and names, led to them where they would meet."""
    heights = spread(ends, gap=0.052)
    where = axes.get_yaxis_transform()
    for name, end, height, style in zip(names, ends, heights, styles, strict=True):
        axes.plot(
            [1.0, 1.02, 1.045], [end, height, height], linewidth=1.4, **style, transform=where, clip_on=False,
            solid_capstyle="butt",
        )  # fmt: skip
        axes.annotate(
            f"{end:.2f}  {name}", (1.052, height), xycoords=where, va="center", fontsize=8.5, color=INK,
            annotation_clip=False,
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float) -> NDArray[np.float64]:
    """Heights as near to the given ones as may be, at least ``gap`` apart, from -0.02 to 1.02 where they fit.

    Neighbours that collide are pooled and centred on their mean: least squares under the constraint.
    """
    # Of equal heights the first goes on top, as in a list.
    order = np.lexsort((-np.arange(len(heights)), np.asarray(heights)))
    wanted = np.asarray(heights, np.float64)[order] - gap * np.arange(len(order))
    pools: list[tuple[float, int]] = []
    for height in wanted:
        pools.append((float(height), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (low, m), (high, n) = pools[-2:]
            pools[-2:] = [((low * m + high * n) / (m + n), m + n)]
    top = max(1.02 - gap * (len(order) - 1), -0.02)
    placed = np.clip(np.concatenate([np.full(n, height) for height, n in pools]), -0.02, top)
    places = np.empty(len(order))
    places[order] = placed + gap * np.arange(len(order))
    return places
