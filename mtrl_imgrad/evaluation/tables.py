"""Success rates as text: tables for the terminal, and the same in markdown. A change has its sign, not a colour."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.report_table import report_markdown, report_table
from mtrl_imgrad.validation import checked


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
        TaskMismatchError: if ``before`` is of other tasks.
    """
    return report_table(report, before, width, ascii_only)


@checked
def markdown_table(report: SuccessReport, before: SuccessReport | None = None, *, bar: int = 20) -> str:
    """The table of `success_table` as GitHub markdown.

    Args:
        report: what to show.
        before: the same tasks, earlier or by another agent.
        bar: characters of a bar; 0 for none.

    Raises:
        TaskMismatchError: if ``before`` is of other tasks.
    """
    return report_markdown(report, before, bar)


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
