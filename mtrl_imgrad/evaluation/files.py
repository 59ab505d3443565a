"""Files of evaluations: NumPy archives without pickle, written atomically."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtrl_imgrad.errors import CheckpointError
from mtrl_imgrad.reporting.atomic_files import write_whole

PathLike = str | os.PathLike[str]
EPISODES = ("successes", "returns", "lengths")
"""Members with an entry for each episode."""


def with_suffix(path: PathLike, suffix: str) -> Path:
    """The path with ``suffix`` in place of ``.npz`` or ``.json``; unlike `Path.with_suffix` it keeps "run.1" whole."""
    path = Path(path)
    stem = path.name.removesuffix(".npz").removesuffix(".json")
    return path.with_name(stem + suffix)


def save_npz(path: Path, **arrays: Any) -> None:
    """Write arrays by name, without pickle."""
    write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def load_npz(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Read arrays by name.

    Raises:
        CheckpointError: if the file is damaged or lacks one of ``names``.
    """
    with path.open("rb") as file:  # here, for numpy leaves a damaged file open
        try:
            with np.load(file, allow_pickle=False) as archive:
                members = {name: archive[name] for name in (*names, *optional) if name in archive}
        except Exception as error:  # what zip, zlib and numpy raise for damaged bytes has no common base
            raise CheckpointError(f"{path} is no readable file of evaluations: {error}") from error
    missing = [name for name in names if name not in members]
    if missing:
        raise CheckpointError(f"{path} lacks {missing}; it holds {list(members)}")
    return members
