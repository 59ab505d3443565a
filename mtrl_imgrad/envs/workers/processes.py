"""Worker processes that step groups of environments; the failure of one becomes one clear error.

A worker that raises, exits, is killed or does not answer in time ends the whole pool: the other workers are
stopped too, and ``WorkerError`` says which tasks it ran and what became of it. Workers are spawned, not
forked (a fork of a process that runs threads of torch or EnvPool may deadlock), ignore Ctrl-C, which is the
parent's to handle, and end by themselves when their pipe closes, so none outlives the parent, even a killed
one.

As with everything that spawns processes, a script that builds such an environment needs the usual
``if __name__ == "__main__":``.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
import traceback
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from mtrl_imgrad.errors import ArgumentError, WorkerError

_STOP = "stop"
_START_TIMEOUT = 120.0  # seconds, at least, for a worker to import its simulator and build its environments
_UNPICKLABLE = (pickle.PicklingError, AttributeError, TypeError)  # what pickle raises, by the kind of object
_GRACE = 2.0  # seconds that a worker is given to end by itself


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    tasks: str


@dataclass
class _Refused:
    """A worker's answer that it has none; nothing was changed, or nothing more than was asked for."""

    error: Exception


class MissingMethodError(AttributeError):
    """Raised by a worker's object that is to call a method of what it holds, and finds none of that name."""


class Pool(ABC):
    """Objects whose methods are called on request; the caller may do something else between request and results."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def send(self, method: str, arguments: Sequence[tuple[Any, ...]], only: Sequence[int] | None = None) -> None:
        """Have objects call ``method``; ``receive`` collects the results.

        Args:
            method: Name of the method.
            arguments: Positional arguments, one tuple for each object asked.
            only: Numbers of the objects to ask; None asks all.
        """

    @abstractmethod
    def receive(self, only: Sequence[int] | None = None) -> list[Any]:
        """Results of the last ``send``, in the order of the objects asked."""

    @abstractmethod
    def close(self) -> None:
        """Close the objects."""

    def request(
        self, method: str, arguments: Sequence[tuple[Any, ...]], only: Sequence[int] | None = None
    ) -> list[Any]:
        """``send`` and ``receive``."""
        self.send(method, arguments, only)
        return self.receive(only)


class InProcess(Pool):
    """A single object that lives in this process.

    Args:
        target: The object whose methods are called.
    """

    def __init__(self, target: Any) -> None:
        self._target = target
        self._request: tuple[str, tuple[Any, ...]] | None = None

    def __len__(self) -> int:
        return 1

    def send(self, method: str, arguments: Sequence[tuple[Any, ...]], only: Sequence[int] | None = None) -> None:
        """Note what is to be called; `receive` calls it."""
        self._request = (method, arguments[0])

    def receive(self, only: Sequence[int] | None = None) -> list[Any]:
        """Call what `send` noted; a list with its result."""
        assert self._request is not None
        method, args = self._request
        return [getattr(self._target, method)(*args)]

    def close(self) -> None:
        """Close the object."""
        self._target.close()


class WorkerPool(Pool):
    """Processes that each hold one object and call its methods on request.

    Args:
        factory: Picklable; builds a worker's object from one of ``configs``.
        configs: One a worker.
        tasks: What each worker runs, in words, for messages.
        timeout: Seconds within which a worker has to answer.

    Raises:
        WorkerError: A worker failed to build its object.
    """

    def __init__(
        self, factory: Callable[[Any], Any], configs: Sequence[Any], tasks: Sequence[str], timeout: float
    ) -> None:
        self._timeout = timeout
        self._workers: list[_Worker] = []
        self._failure: str | None = None
        self._ticket = 0  # of the last request; what answers an older one (it was interrupted) is dropped
        # Also runs when nobody closes the pool: as it is collected, or as the interpreter ends.
        self._finalizer = weakref.finalize(self, _shut_down, self._workers)
        context = multiprocessing.get_context("spawn")
        for number, (config, words) in enumerate(zip(configs, tasks, strict=True)):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(theirs, factory, config), name=f"mtrl-imgrad-worker-{number}", daemon=True
            )
            process.start()
            theirs.close()  # else the pipe would stay open after the worker's death
            self._workers.append(_Worker(process, ours, words))
        # Every worker reports that it is built.
        deadline = time.monotonic() + max(timeout, _START_TIMEOUT)
        for number in range(len(self._workers)):
            self._answer(number, deadline)

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def pids(self) -> list[int | None]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def send(self, method: str, arguments: Sequence[tuple[Any, ...]], only: Sequence[int] | None = None) -> None:
        """As `Pool.send`.

        Raises:
            WorkerError: A worker is gone, or the pool has failed before.
            ArgumentError: An argument cannot be pickled; no worker was asked.
        """
        if self._failure is not None:
            raise WorkerError(self._failure)
        self._ticket += 1
        asked = range(len(self._workers)) if only is None else only
        for number, args in zip(asked, arguments, strict=True):
            try:
                self._workers[number].pipe.send((self._ticket, method, args))
            except OSError:
                self._fail(number, self._exit_in_words(number))
            except _UNPICKLABLE as error:  # before anything is sent; the arguments of the first worker are the others'
                raise ArgumentError(
                    f"what is sent to worker processes must be picklable, got an argument that is not: {error}. "
                    "vector_strategy='sync' has the environments in this process"
                ) from error

    def receive(self, only: Sequence[int] | None = None) -> list[Any]:
        """As `Pool.receive`.

        Raises:
            WorkerError: A worker raised, died or was too late; all workers are then stopped.
            AttributeError: What was asked for is missing.
            ArgumentError: An answer cannot be pickled.
        """
        deadline = time.monotonic() + self._timeout
        asked = range(len(self._workers)) if only is None else only
        answers = [self._answer(number, deadline) for number in asked]
        # Only now, with every answer read: one left in its pipe would be taken for the next request's.
        for answer in answers:
            if isinstance(answer, _Refused):
                raise answer.error
        return answers

    def close(self) -> None:
        """Stop the workers, by force those that do not stop by themselves; a second call does nothing."""
        self._finalizer()

    def _answer(self, number: int, deadline: float) -> Any:
        worker = self._workers[number]
        try:
            ticket = -1
            while ticket != self._ticket:
                # A dead worker's pipe is at its end, which counts as ready: death is noticed at once.
                if not worker.pipe.poll(max(0.0, deadline - time.monotonic())):
                    self._fail(number, f"did not answer within {self._timeout:g} s")
                ticket, kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            kind, value = "gone", None
        if kind == "gone":
            self._fail(number, self._exit_in_words(number))
        if kind == "raised":
            self._fail(number, f"raised\n{value}")
        if kind == "missing":
            return _Refused(AttributeError(value))
        if kind == "unpicklable":
            return _Refused(
                ArgumentError(
                    f"what worker processes answer must be picklable, got an answer that is not: {value}. "
                    "vector_strategy='sync' has the environments in this process"
                )
            )
        return value

    def _exit_in_words(self, number: int) -> str:
        process = self._workers[number].process
        process.join(_GRACE)
        code = process.exitcode
        if code is None:
            return "closed its pipe"
        return (
            f"was killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exited with code {code}"
        )

    def _fail(self, number: int, what: str) -> None:
        worker = self._workers[number]
        self._failure = f"worker {number} (process {worker.process.pid}, tasks {worker.tasks}) {what}"
        _stop_by_force(self._workers)
        raise WorkerError(self._failure)


def _shut_down(workers: list[_Worker]) -> None:
    """Ask the workers to stop, and kill those that have not within a moment."""
    for worker in workers:
        with suppress(OSError):
            worker.pipe.send((0, _STOP, ()))
    deadline = time.monotonic() + _GRACE
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
    _stop_by_force(workers)


def _stop_by_force(workers: list[_Worker]) -> None:
    for worker in workers:
        if worker.process.is_alive():
            worker.process.kill()
    for worker in workers:
        worker.process.join()
        worker.pipe.close()
    workers.clear()


def _work(pipe: Connection, factory: Callable[[Any], Any], config: Any) -> None:
    """Main function of a worker process: build its object, then answer requests until told to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ticket = 0
    try:
        target = factory(config)
        pipe.send((ticket, "done", None))
        while True:
            ticket, method, args = pipe.recv()
            if method == _STOP:
                target.close()
                return
            reply = _reply(target, method, args)
            try:
                pipe.send((ticket, *reply))
            except _UNPICKLABLE as error:
                pipe.send((ticket, "unpicklable", str(error)))
    except (EOFError, BrokenPipeError):
        return  # the parent is gone
    except BaseException:
        with suppress(OSError):
            pipe.send((ticket, "raised", traceback.format_exc()))


def _reply(target: Any, method: str, args: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "done", getattr(target, method)(*args)
    except AttributeError as error:
        if method != "get" and not isinstance(error, MissingMethodError):
            raise
        return "missing", str(error)  # an honest answer to "has it this attribute?"


def available_cores() -> int:
    """Cores that this process may use, which is what counts in a container or under ``taskset``."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
