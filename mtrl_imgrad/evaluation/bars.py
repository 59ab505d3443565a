"""Success rates as bars of characters; nothing relies on colour.

A bar of a rate with its interval, 72 % [58, 83]::

    ███████████▓▓▓░░····
    solid to the interval's lower end, dense to the rate, light to its upper end
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.table import Table
from rich.text import Text

from mtrl_imgrad.errors import ArgumentError

BLOCKS, ASCII = ("█", "▓", "░", "·"), ("#", "=", "-", ".")
"""Characters up to the interval's lower end, to the rate, to the upper end, and beyond."""


def interval_bar(rate: float, low: float, high: float, width: int, *, ascii_only: bool = False) -> str:
    """A rate and its interval as ``width`` characters.

    Args:
        rate: in [0, 1]; NaN for none, which leaves blanks.
        low: lower end of its interval; NaN for none.
        high: upper end of its interval; NaN for none.
        width: number of characters.
        ascii_only: use ``#=-.`` in place of blocks.

    >>> interval_bar(0.5, 0.3, 0.7, 10)
    '███▓▓░░···'
    """
    if np.isnan(rate):
        return " " * width
    # NaN compares false, so that an unknown interval leaves a plain bar.
    ends = [low if low <= rate else rate, rate, high if high >= rate else rate]
    first, second, third = (int(width * end + 0.5) for end in ends)
    full, dense, light, empty = ASCII if ascii_only else BLOCKS
    return full * first + dense * (second - first) + light * (third - second) + empty * (width - third)


def rate_grid(rates: Mapping[str, float | None], width: int = 80, *, ascii_only: bool = False) -> Table:
    """Names, short bars and rates in as many columns as fit, read column by column: a training's live view.

    Args:
        rates: name to rate in [0, 1], or None where there is none yet.
        width: in characters.
        ascii_only: for terminals that cannot show blocks.

    Raises:
        ArgumentError: if ``rates`` is empty.
    """
    if not rates:
        raise ArgumentError("rates must not be empty")
    name, bar, gap = max(map(len, rates)), 8, 2
    columns = max(1, min((width + gap) // (name + 1 + bar + 5 + gap), -(-len(rates) // 5)))
    depth = -(-len(rates) // columns)
    cells = [_grid_cell(task, rate, name, bar, ascii_only) for task, rate in rates.items()]
    grid = Table.grid(padding=(0, gap, 0, 0), pad_edge=False)
    for _ in range(columns):
        grid.add_column(no_wrap=True)
    for i in range(depth):
        grid.add_row(*cells[i::depth])
    return grid


def _grid_cell(task: str, rate: float | None, name: int, bar: int, ascii_only: bool) -> Text:
    drawn = interval_bar(rate or 0.0, float("nan"), float("nan"), bar, ascii_only=ascii_only)
    value = "   -" if rate is None else f"{rate:4.2f}"
    return Text.assemble(f"{task:<{name}} ", (drawn, "cyan"), f" {value}")
