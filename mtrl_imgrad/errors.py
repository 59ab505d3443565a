"""The library's own exceptions: one family, so that ``except MtrlImgradError`` catches whatever we raise.

Every message names what was wrong (the argument, and where known the task, the environment index and the
step), what was found, and what was expected. Errors about arguments are also ``ValueError``; errors from running
environments are also ``RuntimeError``; so code that knows nothing of this module still catches them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "DatasetError",
    "EnvironmentFaultError",
    "LearningInterruptedError",
    "MissingDependencyError",
    "MtrlImgradError",
    "NonFiniteError",
    "TaskMismatchError",
    "UnknownNameError",
    "UnsupportedError",
    "WorkerError",
]


class MtrlImgradError(Exception):
    """Base of every exception that ``mtrl_imgrad`` raises on its own account."""


class ArgumentError(MtrlImgradError, ValueError):
    """An argument has a wrong type, shape or value.

    Every constructor and entry point raises it for an argument that does not fit its annotation; ``Raises:`` in their
    docstrings names only what goes beyond.
    """


class UnknownNameError(ArgumentError):
    """A name (of a task, a combiner, an encoder, a preset) that is not in its registry.

    Args:
        kind: What the name was looked up as, for instance ``"combiner"``.
        name: What was asked for.
        known: The names that exist; the closest ones are proposed.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        known = list(known)
        close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        hint = f" Did you mean {', '.join(map(repr, close))}?" if close else ""
        super().__init__(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)}")


class UnsupportedError(ArgumentError):
    """Something that Stable-Baselines3's agents take and these refuse; ``docs/sb3.md`` lists all of it.

    Args:
        owner: the agent or policy that was asked.
        what: what it was given, for instance ``"use_sde=True"``.
        reason: why not, and what to do instead.
    """

    def __init__(self, owner: str, what: str, reason: str) -> None:
        super().__init__(f"{owner} does not support {what}: {reason}")


class TaskMismatchError(ArgumentError):
    """Two things that must be of the same tasks are not (agent and environment, labels and weights)."""


class MissingDependencyError(MtrlImgradError, ImportError):
    """An optional package is needed for what was asked; the message says how to install it."""


class NonFiniteError(MtrlImgradError, ValueError):
    """A NaN or an infinity was found where it entered; the message names the place."""


class EnvironmentFaultError(MtrlImgradError, RuntimeError):
    """An environment produced something that no training may use, such as a NaN reward.

    The message names the task, the environment index and the step of its episode.
    """


class WorkerError(MtrlImgradError, RuntimeError):
    """A worker process of a vector environment raised, exited, was killed or hung; names its tasks."""


class CheckpointError(MtrlImgradError, RuntimeError):
    """A checkpoint cannot be written or read; the message names the file and the member."""


class LearningInterruptedError(MtrlImgradError, KeyboardInterrupt):
    """Learning was told to stop by a signal, and stopped where a checkpoint could be written.

    Args:
        message: what was saved where.
        number: of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class DatasetError(MtrlImgradError, ValueError):
    """A dataset's folder or file is not what its format says; names the file and what was expected there."""
