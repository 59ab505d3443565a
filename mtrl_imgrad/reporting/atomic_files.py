"""Atomic file writes: a file is the old one or the new one, whatever kills the process or fills the disk."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from mtrl_imgrad.errors import ArgumentError, CheckpointError
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
    _write(target, lambda file: file.write(text.encode()))


@checked
def write_whole(target: Path, write: Callable[[BinaryIO], object]) -> None:
    """`write_atomically` to a folder that is made.

    Raises:
        ArgumentError: if the folder cannot be made.
        CheckpointError: if the file cannot be written, naming it.
    """
    make_folder("path", target.parent)
    _write(target, write)


@checked
def make_folder(argument: str, folder: Path) -> None:
    """Make a folder, and those above it, where there is none.

    Args:
        argument: that names the folder, for the message.
        folder: to make.

    Raises:
        ArgumentError: if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"{argument} {folder} cannot be made ({error}); take another folder") from error


def _write(target: Path, write: Callable[[BinaryIO], object]) -> None:
    try:
        write_atomically(target, write)
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
