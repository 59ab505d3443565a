"""Workers that are started anew where one of them fails, and go on as if none had.

A simulator's state is lost with its process. But its rows follow from what their last resets drew and from
the actions since (see ``restoring.py``), so new workers repeat these; the request that failed is then made again. It is
made again *once*: what fails twice in a row fails by itself, and becomes the error that it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from mtrl_imgrad.envs.workers.processes import Pool, WorkerPool
from mtrl_imgrad.errors import EnvironmentFaultError, WorkerError

_CHANGING = ("set", "call")
"""Requests that may change a row in a way that no reset and no action repeats."""


class RestartingPool(Pool):
    """A ``WorkerPool`` that is built anew, a few times at most, where one of its workers failed.

    Each restart is told by a warning that names worker, tasks and cause. There is none where the rows could not be
    brought back exactly; the error then says so.

    Args:
        build: Builds the pool.
        restore: Called with a new pool in place: brings its rows to where those of the old one were, and raises
            ``EnvironmentFaultError`` if they come out elsewhere.
        restarts: How often, at most, over the life of this object.
    """

    def __init__(self, build: Callable[[], WorkerPool], restore: Callable[[], None], restarts: int) -> None:
        self._build = build
        self._restore = restore
        self._allowed = self._left = restarts
        self._restarting = False
        self._changed_by: str | None = None
        self._last: tuple[Any, ...] = ()
        self._failure: str | None = None
        self._pool = build()

    def __len__(self) -> int:
        return len(self._pool)

    @property
    def pids(self) -> list[int | None]:
        """Process ids of the workers."""
        return self._pool.pids

    def send(self, method: str, arguments: Sequence[tuple[Any, ...]], only: Sequence[int] | None = None) -> None:
        """As `Pool.send`; makes the request again where it failed."""
        if self._failure is not None:
            raise WorkerError(self._failure)
        self._last = (method, arguments, only)
        try:
            self._pool.send(*self._last)
        except WorkerError as error:
            self._repeat(error)
        if method in _CHANGING and arguments[0][0] != "render":
            self._changed_by = "set_attr" if method == "set" else f"env_method({arguments[0][0]!r})"

    def receive(self, only: Sequence[int] | None = None) -> list[Any]:
        """As `Pool.receive`; makes the request again where it failed.

        Raises:
            WorkerError: It failed again, or there are no restarts left, or the rows could not be brought back.
        """
        try:
            return self._pool.receive(only)
        except WorkerError as error:
            self._repeat(error)
        try:
            return self._pool.receive(only)
        except WorkerError as error:
            raise WorkerError(
                f"{error}\nThe same request had just failed before the workers were restarted: not tried again"
            ) from None

    def close(self) -> None:
        """Stop the workers."""
        self._pool.close()

    def _repeat(self, error: WorkerError) -> None:
        """Send the last request to workers started anew."""
        if self._restarting or not self._left:
            raise error
        request = self._last
        self._restart(error)
        self._last = request
        self._pool.send(*request)

    def _restart(self, error: WorkerError) -> None:
        if self._changed_by is not None:
            raise WorkerError(
                f"{error}\nThe workers were not restarted: {self._changed_by} may have changed their environments in a "
                "way that cannot be repeated"
            ) from error
        self._left -= 1
        self._restarting = True
        try:
            self._pool = self._build()
            self._restore()
        except (EnvironmentFaultError, WorkerError) as second:
            self._pool.close()
            self._failure = (
                f"{error}\nThe workers were restarted, but their episodes could not be brought back: {second}"
            )
            raise WorkerError(self._failure) from error
        finally:
            self._restarting = False
        warnings.warn(
            f"{error}. The workers were restarted ({self._allowed - self._left} of {self._allowed} times) and their "
            "episodes are where they were, bit for bit",
            stacklevel=2,
        )
