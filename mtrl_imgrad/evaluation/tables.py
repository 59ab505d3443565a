"""Success rates as text: tables for the terminal, the same in markdown, and bars that show their interval.

Nothing here relies on colour: a bar's three shades are three characters, a change has its sign.

A bar of a rate with its interval, 72 % [58, 83]::

    ███████████▓▓▓░░····
    solid to the interval's lower end, dense to the rate, light to its upper end
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtrl_imgrad.errors import ArgumentError, TaskMismatchError
from mtrl_imgrad.evaluation.reports import SuccessReport
from mtrl_imgrad.validation import checked

__all__ = [
    "interval_bar",
    "markdown_table",
    "print_success",
    "rate_grid",
    "render_text",
    "success_table",
]

_BLOCKS, _ASCII = ("█", "▓", "░", "·"), ("#", "=", "-", ".")
_MIN_BAR, _MAX_BAR = 8, 40
_GAP = 2  # blanks between two columns


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
    full, dense, light, empty = _ASCII if ascii_only else _BLOCKS
    return full * first + dense * (second - first) + light * (third - second) + empty * (width - third)


@checked
def success_table(
    report: SuccessReport,
    before: SuccessReport | None = None,
    *,
    width: int = 80,
    ascii_only: bool = False,
) -> Table:
    """Per-task success with intervals and bars, and where ``before`` is given, what changed.

    Args:
        report: what to show.
        before: the same tasks, earlier or by another agent.
        width: of the table, in characters; long task names are cut where it would not fit.
        ascii_only: for terminals that cannot show blocks.

    Raises:
        TaskMismatchError: if ``before`` speaks of other tasks.
    """
    header, rows = _cells(report, before)
    sizes = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    others = sum(sizes[1:]) + _GAP * len(header)
    bar = min(max(width - others - sizes[0], _MIN_BAR), _MAX_BAR)
    name = min(sizes[0], max(width - others - bar, _MIN_BAR))
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.title, table.title_style, table.title_justify = title_of(report, before), "bold", "left"
    table.caption, table.caption_style, table.caption_justify = _legend(report, ascii_only), "dim", "left"
    table.add_column(header[0], width=name, no_wrap=True, overflow="crop" if ascii_only else "ellipsis")
    for text, size in zip(header[1:], sizes[1:], strict=True):
        table.add_column(text, width=size, justify="right", no_wrap=True)
    table.add_column("", width=bar, no_wrap=True)
    for row, ends in zip(rows, _all_rates(report), strict=True):
        last = row is rows[-1]
        if last:
            table.add_section()
        drawn = Text(interval_bar(*ends, bar, ascii_only=ascii_only), style="cyan")
        table.add_row(*(Text(cell) for cell in row), drawn, style="bold" if last else None)
    return table


@checked
def markdown_table(report: SuccessReport, before: SuccessReport | None = None, *, bar: int = 20) -> str:
    """The table of `success_table` as GitHub markdown.

    Args:
        report: what to show.
        before: the same tasks, earlier or by another agent.
        bar: characters of a bar; 0 for none.

    Raises:
        TaskMismatchError: if ``before`` speaks of other tasks.
    """
    header, rows = _cells(report, before)
    rows = [[" ".join(cell.split()).replace("[ ", "[").replace("|", "\\|") for cell in row] for row in rows]
    rows[-1] = [f"**{cell}**" for cell in rows[-1]]
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    if bar:
        drawn = ["" if np.isnan(ends[0]) else f"`{interval_bar(*ends, bar)}`" for ends in _all_rates(report)]
        lines = [[*row, cell] for row, cell in zip(lines, ["", ":--", *drawn], strict=True)]
    body = "\n".join(f"| {' | '.join(row)} |" for row in lines)
    title = title_of(report, before).replace("\n", "; ")
    note = _note(report)
    return f"{title}\n\n{body}\n" + (f"\n{note}\n" if note else "")


@checked
def print_success(report: SuccessReport, before: SuccessReport | None = None, console: Console | None = None) -> None:
    """Print `success_table` as wide as the terminal, in colour where there is one.

    Args:
        report: what to show.
        before: the same tasks, earlier or by another agent.
        console: where to; standard output by default.
    """
    console = console or Console(file=sys.stdout, highlight=False)
    ascii_only = not console.encoding.lower().startswith("utf")
    console.print(success_table(report, before, width=min(console.width, 120), ascii_only=ascii_only))


def render_text(table: Table, width: int = 80) -> str:
    """A table as plain text, whatever the terminal; no line is longer than ``width`` nor ends in blanks."""
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


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


def title_of(report: SuccessReport, before: SuccessReport | None) -> str:
    """What the numbers are: how many episodes, what kind of interval, and how the episodes were run."""
    level = f"{100 * report.confidence:g} % intervals"
    if before is None:
        first = f"success in %, {episodes_in_words(report.num_episodes)}, {level}"
    elif before.num_episodes == report.num_episodes:
        first = f"success before and after in %, {episodes_in_words(report.num_episodes)}, {level}"
    else:
        counts = f"before ({episodes_in_words(before.num_episodes)}) and after ({report.num_episodes})"
        first = f"success {counts} in %, {level}"
    return "\n".join(filter(None, [first, str(report.protocol)]))


def episodes_in_words(count: int) -> str:
    """For instance ``"20 episodes a task"``."""
    return f"{count} episode{'s' if count > 1 else ''} a task"


def _legend(report: SuccessReport, ascii_only: bool) -> str:
    full, dense, light, _ = _ASCII if ascii_only else _BLOCKS
    bar = f"bar: {full} up to the interval's lower end, {dense} to the rate, {light} to its upper end"
    return "\n".join(filter(None, ["" if np.isnan(report.mean_success) else bar, _note(report)]))


def _note(report: SuccessReport) -> str:
    """What "-" means, where there is one."""
    count = int(np.isfinite(report.success_rate).sum())
    if count == len(report.task_names):
        return ""
    rest = "; mean of the others" if count else ""
    return f"-: the environment says nothing of success{rest}"


def _all_rates(report: SuccessReport) -> list[tuple[float, float, float]]:
    """Rate and interval of every task, then of the mean."""
    tasks = zip(report.success_rate.tolist(), report.intervals.tolist(), strict=True)
    return [*((rate, low, high) for rate, (low, high) in tasks), (report.mean_success, *report.mean_interval)]


def _cells(report: SuccessReport, before: SuccessReport | None) -> tuple[list[str], list[list[str]]]:
    """The header and the rows, mean last, as text; returns stand beside where a task has no notion of success."""
    names = [*report.task_names, "mean"]
    now = _all_rates(report)
    if before is None:
        lengths = [*report.lengths.mean(axis=1), report.lengths.mean()]
        parts = zip(names, now, _returns(report), lengths, strict=True)
        return (
            ["task", "success", "return", "length"],
            [[name, _percent(*rate), ret, f"{length:.4g}"] for name, rate, ret, length in parts],
        )
    if before.task_names != report.task_names:
        raise TaskMismatchError(f"before is of {before.task_names}, the report of {report.task_names}")
    pairs = zip(names, _all_rates(before), now, strict=True)
    header = ["task", "before", "after", "change"]
    rows = [[name, _percent(*old), _percent(*new), _change(old[0], new[0])] for name, old, new in pairs]
    if np.isnan(report.success_rate).any():
        header.append("return")
        for row, old, new in zip(rows, _returns(before), _returns(report), strict=True):
            row.append(f"{old} to {new}")
    return header, rows


def _returns(report: SuccessReport) -> list[str]:
    return [f"{value:.4g}" for value in [*report.returns.mean(axis=1), report.returns.mean()]]


def _percent(rate: float, low: float, high: float) -> str:
    if np.isnan(rate):
        return "-"
    return f"{100 * rate:.0f} [{100 * low:3.0f}, {100 * high:3.0f}]"


def _change(old: float, new: float) -> str:
    if np.isnan(old) or np.isnan(new):
        return "-"
    points = int(f"{100 * new:.0f}") - int(f"{100 * old:.0f}")  # of the numbers shown
    return f"{points:+d}" if points else "0"
