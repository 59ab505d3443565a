"""Files that are either the old one or the new one, and checkpoints that run no code when they are read."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from mtrl_imgrad.errors import CheckpointError
from mtrl_imgrad.reporting.atomic_files import write_atomically

__all__ = ["load_checkpoint", "save_checkpoint", "write_text", "write_whole"]


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace a file at once: a crash, or a full disk, leaves the old one.

    Args:
        path: of the file.
        write: writes the contents to the open file it is given.

    Raises:
        CheckpointError: if it cannot be written.
    """
    try:
        write_atomically(path, write)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error})") from error


def write_text(path: Path, text: str) -> None:
    """`write_whole` for text."""
    write_whole(path, lambda file: file.write(text.encode("utf-8")))


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, text, lists and dictionaries.

    Raises:
        CheckpointError: if it cannot be written.
    """
    write_whole(path, lambda file: torch.save(dict(state), file))


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read `save_checkpoint`; the file's contents cannot run code.

    Raises:
        CheckpointError: if it is missing, damaged, or holds anything else.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({error})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, no checkpoint")
    return state
