"""Titles and captions of the pictures of a run."""

from __future__ import annotations

from matplotlib.axes import Axes

from mtrl_imgrad.reporting.figures import INK, QUIET

__all__ = ["DPI", "count_episodes", "set_titles"]

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
