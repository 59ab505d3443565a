"""SB3's ``save`` and ``load``: a file is the old one or the new one, and what ``save`` did not write is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from stable_baselines3.common.base_class import BaseAlgorithm

from mtrl_imgrad.errors import ArgumentError, CheckpointError
from mtrl_imgrad.reporting.atomic_files import write_atomically


def save_to(path: Any, suffix: str, write: Callable[[Any], object]) -> None:
    """Write what SB3 saves: to an open file, or atomically to a path, with the suffix where it has none.

    Raises:
        CheckpointError: if the path cannot be written; what it held before is still there.
    """
    if not isinstance(path, (str, os.PathLike)):
        write(path)
        return
    target = Path(path)
    target = target if target.suffix else Path(f"{target}.{suffix}")
    target = target.resolve() if target.is_symlink() else target  # a link stays one
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, write)
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written, and is as it was: {error.strerror or error}") from error


class Saving(BaseAlgorithm):
    """The part of an agent that SB3 writes to a file, and reads."""

    def save(self, path: Any, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """As in SB3, but a file that was there stays until the new one is whole.

        Raises:
            CheckpointError: if the path cannot be written; what it held before is still there.
        """
        write = super().save
        save_to(path, "zip", lambda file: write(file, exclude, include))

    @classmethod
    def load(cls, path: Any, *arguments: Any, **kwargs: Any) -> Self:
        """As in SB3; what ``save`` did not write is an `ArgumentError`."""
        try:
            return super().load(path, *arguments, **kwargs)
        except (AssertionError, ValueError) as error:
            if "policy kwargs do not equal" in str(error):
                raise ArgumentError(f"policy_kwargs must be those of the saved agent: {error}") from error
            if "in the saved file" not in str(error) and "wasn't a zip-file" not in str(error):
                raise
            raise ArgumentError(f"path must be of what {cls.__name__}.save wrote, got {path}: {error}") from error
