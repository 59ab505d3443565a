"""A progress bar on the terminal, for anything that is counted; and how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def counting_bar(what: str, total: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar of ``total`` steps; yields a function that advances it by a number of them.

    Args:
        what: in front of the bar, for instance ``"episodes"``.
        total: at its end.
        shown: False shows nothing.
    """
    if not shown:
        yield lambda count: None
        return
    from rich.progress import MofNCompleteColumn, Progress  # tens of milliseconds, for a bar that is rarely shown

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def duration(seconds: float) -> str:
    """``h:mm:ss``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
