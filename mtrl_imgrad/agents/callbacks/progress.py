"""A live view of a training: progress, speed, and the success of every task."""

from __future__ import annotations

import importlib.util
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.type_aliases import MaybeCallback

from mtrl_imgrad.agents.common.learning import as_callbacks
from mtrl_imgrad.agents.common.task_log import task_names_of
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.evaluation.bars import rate_grid
from mtrl_imgrad.reporting.progress import duration
from mtrl_imgrad.validation import Count, checked


def _can_redraw(console: Console) -> bool:
    """Whether what was drawn can be drawn over: on a terminal, and in a notebook by rich's widget."""
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


@checked
class MTProgressBarCallback(BaseCallback):
    """Progress, speed, and the success of the latest training episodes, overall and of every task, live.

    On a terminal, and in a notebook that has ipywidgets, this is a bar above a list of the tasks; elsewhere (a file,
    a batch job) it is a line of text now and then. Speed and time left are those of the last minute: updates make
    the steps after warm-up slower, and an average over all would promise too much.

    Args:
        window: latest episodes of each task that its success is taken from.
        refresh: seconds between two pictures on a terminal.
        line_every: seconds between two lines elsewhere.
        console: where to; standard output by default.
    """

    def __init__(
        self, window: Count = 20, refresh: float = 0.5, line_every: float = 60.0, console: Console | None = None
    ) -> None:
        super().__init__()
        self.window = window
        self.refresh = refresh
        self.line_every = line_every
        self.console = console
        self._clock: Callable[[], float] = time.monotonic
        self._live: Live | None = None

    def _on_training_start(self) -> None:
        self.close()
        env = self.training_env
        names = task_names_of(self.model, env)
        self._task_of = [names[i] for i in getattr(env, "task_ids", [0] * env.num_envs)]
        self.successes: dict[str, deque[float]] = {name: deque(maxlen=self.window) for name in names}
        self._total = int(self.locals["total_timesteps"])
        self._began = self._drawn = self._clock()
        self._marks = deque([(self._began, self.num_timesteps)])
        self._console = self.console or Console(file=sys.stdout, highlight=False)
        if _can_redraw(self._console):
            # Refreshed from here, not by a thread: an interrupted training leaves nothing behind that draws.
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
            self._stop = weakref.finalize(self, self._live.stop)

    def _on_step(self) -> bool:
        for i in np.flatnonzero(self.locals["dones"]).tolist():
            success = self.locals["infos"][i].get("is_success")
            if success is not None:
                self.successes[self._task_of[i]].append(float(success))
        now = self._clock()
        if now - self._drawn >= (self.line_every if self._live is None else self.refresh):
            self._draw(now)
        return True

    def _on_training_end(self) -> None:
        self._draw(self._clock())
        self.close()

    def close(self) -> None:
        """Give the terminal back; for a training that ended by an exception. Does nothing a second time."""
        if self._live is not None:
            self._stop()
            self._live = None

    def _draw(self, now: float) -> None:
        self._drawn = now
        self._marks.append((now, self.num_timesteps))
        while len(self._marks) > 2 and now - self._marks[1][0] > 60:
            self._marks.popleft()
        if self._live is None:
            self._console.print(self._line(now), soft_wrap=True)
            return
        width = self._console.width
        ascii_only = not self._console.encoding.lower().startswith("utf")
        view = Table.grid()
        view.add_row(ProgressBar(max(self._total, 1), self.num_timesteps, width=min(width, 80)))
        view.add_row(self._headline(now))
        view.add_row(rate_grid(self._rates(), width, ascii_only=ascii_only))
        self._live.update(view, refresh=True)

    def _rates(self) -> dict[str, float | None]:
        return {name: float(np.mean(window)) if window else None for name, window in self.successes.items()}

    def _headline(self, now: float) -> str:
        (then, steps), done = self._marks[0], self.num_timesteps
        speed = (done - steps) / (now - then) if now > then else 0.0
        left = duration(max(self._total - done, 0) / speed) if speed > 0 else "?"
        known = [rate for rate in self._rates().values() if rate is not None]
        success = f"{np.mean(known):.2f}" if known else "-"
        return (
            f"{_count(done)}/{_count(self._total)} ({done / max(self._total, 1):.0%})  {speed:,.0f} steps/s  "
            f"{duration(now - self._began)} gone, {left} left  success {success}"
        )

    def _line(self, now: float) -> str:
        rates = self._rates()
        if len(rates) <= 12:
            tasks = ", ".join(f"{n} {'-' if rate is None else f'{rate:.2f}'}" for n, rate in rates.items())
        else:
            known = [rate for rate in rates.values() if rate is not None]
            solved, never = sum(rate >= 0.9 for rate in known), sum(rate == 0 for rate in known)
            tasks = f"{solved} of {len(rates)} tasks at 0.9 or more, {never} at 0"
        return f"{self._headline(now)}  ({tasks})"


@contextmanager
def task_progress(callback: MaybeCallback, show: bool) -> Iterator[MaybeCallback]:
    """The callback of a ``learn``, with a `MTProgressBarCallback` beside it where ``show``.

    In place of SB3's own bar, which knows of no tasks. Closed here: SB3 tells callbacks nothing of an exception.
    """
    given = callback if isinstance(callback, list) else [] if callback is None else [callback]
    for one in given:
        if isinstance(one, type) or not (isinstance(one, BaseCallback) or callable(one)):
            raise ArgumentError(f"callback must be a callback, a function or a list of them, got {one!r}")
    if not show:
        yield callback
        return
    bar = MTProgressBarCallback()
    try:
        yield CallbackList([*as_callbacks(callback), bar])
    finally:
        bar.close()


def _count(number: int) -> str:
    return f"{number:,}" if number < 1_000_000 else f"{number / 1e6:.2f}M"
