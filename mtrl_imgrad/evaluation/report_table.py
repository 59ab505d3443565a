"""The table of a report, as rich draws it and in markdown; `mtrl_imgrad.evaluation.tables` is what users call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from mtrl_imgrad.errors import TaskMismatchError
from mtrl_imgrad.evaluation.bars import ASCII, BLOCKS, interval_bar
from mtrl_imgrad.reporting.tables import html_table, markdown_rows, plain_table

if TYPE_CHECKING:
    from mtrl_imgrad.evaluation.report import SuccessReport  # which prints itself by this table

_MIN_BAR, _MAX_BAR = 8, 40
_GAP = 2  # blanks between two columns


def report_table(report: SuccessReport, before: SuccessReport | None, width: int, ascii_only: bool = False) -> Table:
    """See `mtrl_imgrad.evaluation.tables.success_table`."""
    header, rows = _cells(report, before)
    sizes = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    others = sum(sizes[1:]) + _GAP * len(header)
    bar = min(max(width - others - sizes[0], _MIN_BAR), _MAX_BAR)
    name = min(sizes[0], max(width - others - bar, _MIN_BAR))
    table = plain_table()
    table.title, table.title_style, table.title_justify = _title(report, before), "bold", "left"
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


def report_markdown(report: SuccessReport, before: SuccessReport | None, bar: int) -> str:
    """See `mtrl_imgrad.evaluation.tables.markdown_table`."""
    header, rows = _cells(report, before)
    rows = [[" ".join(cell.split()).replace("[ ", "[") for cell in row] for row in rows]
    rows[-1] = [f"**{cell}**" for cell in rows[-1]]
    if bar:
        header = [*header, ""]
        for row, ends in zip(rows, _all_rates(report), strict=True):
            row.append("" if np.isnan(ends[0]) else f"`{interval_bar(*ends, bar)}`")
    body = markdown_rows(header, rows, last=":--" if bar else "--:")
    title = _title(report, before).replace("\n", "; ")
    note = _note(report)
    return f"{title}\n\n{body}\n" + (f"\n{note}\n" if note else "")


def report_html(report: SuccessReport) -> str:
    """The table as HTML, for notebooks: the mean in the last row, bars of the rates with their intervals."""
    header, rows = _cells(report, None)
    drawn = [interval_bar(*ends, 20) for ends in _all_rates(report)]
    title = "\n".join(filter(None, [_title(report, None), _note(report)]))
    return html_table(title, [*header, ""], [[*row, bar] for row, bar in zip(rows, drawn, strict=True)])


def _title(report: SuccessReport, before: SuccessReport | None) -> str:
    """A title that explains the numbers: episodes, kind of interval, how the episodes were run."""
    level = f"{100 * report.confidence:g} % intervals"
    if before is None:
        first = f"success in %, {_episodes(report.num_episodes)}, {level}"
    elif before.num_episodes == report.num_episodes:
        first = f"success before and after in %, {_episodes(report.num_episodes)}, {level}"
    else:
        counts = f"before ({_episodes(before.num_episodes)}) and after ({report.num_episodes})"
        first = f"success {counts} in %, {level}"
    return "\n".join(filter(None, [first, str(report.protocol)]))


def _episodes(count: int) -> str:
    """For instance ``"20 episodes a task"``."""
    return f"{count} episode{'s' if count > 1 else ''} a task"


def _legend(report: SuccessReport, ascii_only: bool) -> str:
    full, dense, light, _ = ASCII if ascii_only else BLOCKS
    bar = f"bar: {full} up to the interval's lower end, {dense} to the rate, {light} to its upper end"
    return "\n".join(filter(None, ["" if np.isnan(report.mean_success) else bar, _note(report)]))


def _note(report: SuccessReport) -> str:
    """A note on the meaning of "-", where there is one."""
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
