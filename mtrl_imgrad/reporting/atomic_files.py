"""Atomic file writes: a file is the old one or the new one, whatever kills the process or fills the disk."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from mtrl_imgrad.errors import CheckpointError
from mtrl_imgrad.validation import checked

TEMPORARY = ".tmp-"
"""Part of the name of a file that is being written; one that is left over was never finished."""


@checked
def write_atomically(target: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its target, sync it, and rename it to the target.

    A reader finds the old file or the new one. After a return the new one survives a loss of power, where the file
    system syncs the names of a folder; some network file systems do not.

    Args:
        target: in a folder that exists.
        write: gets the open file.

    Raises:
        OSError: if the file cannot be written; the target is as it was.
    """
    temporary = target.with_name(f".{target.name}{TEMPORARY}{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


@checked
def write_text(target: Path, text: str) -> None:
    """`write_atomically` of UTF-8.

    Raises:
        CheckpointError: if the file cannot be written, naming it.
    """
    try:
        write_atomically(target, lambda file: file.write(text.encode()))
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error}") from error


def _sync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk, where system and file system can; the new file is in place already."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
