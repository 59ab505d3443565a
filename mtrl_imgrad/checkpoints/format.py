"""The checkpoint format: a folder of members under a manifest; reading one runs no code.

    manifest.json                     format, version, and of every member its file, size and SHA-256
    state-<digest>.json               the state without its tensors, see `mtrl_imgrad.checkpoints.state_tree`
    tensors-<digest>.safetensors      its tensors and arrays

Each file is written beside its target, synced and renamed: first the members, named by their content, then the
manifest; then the members of the manifest before it are removed. So at every instant the folder holds the old
checkpoint or the new one. A folder without a manifest holds none.

Nothing is read before its length is what the manifest says, nothing is parsed before its SHA-256 is. The hashes find
accidents, not forgery: who can write the members can write the manifest. Against forged files stands that no parser
here runs code: JSON, safetensors, and in version 1 npy arrays of plain numbers.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from mtrl_imgrad.checkpoints.state_tree import join_tree, split_tree
from mtrl_imgrad.errors import ArgumentError, CheckpointError
from mtrl_imgrad.reporting.atomic_files import TEMPORARY, write_atomically

MANIFEST = "manifest.json"
FORMAT = "mtrl_imgrad.checkpoint"
VERSION = 2
"""Version 1, of release 0.1.0, has one more member for each large array: ``<name>-<digest>.npy``."""
LARGEST_MANIFEST = 2**16
LARGEST_STATE = 2**23
"""Bytes of JSON, without the tensors. That of an agent on MT50 takes less than a fiftieth of this."""
SUFFIXES = {"state": ".json", "tensors": ".safetensors"}
"""Of the members of a checkpoint; version 1 also has arrays."""
ARRAY_NAME = re.compile(r"[a-z][a-z_]{0,30}")
MEMBER_FILE = re.compile(r"[a-z][a-z_]{0,30}-[0-9a-f]{16}\.(json|safetensors|npy)")
MEMBER_KEYS = {"file", "bytes", "sha256"}


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, or replace the one that is there.

    Args:
        folder: made with its parents if need be; one that holds anything but a checkpoint is refused.
        state: nested values, see `mtrl_imgrad.checkpoints.state_tree`.

    Raises:
        CheckpointError: if it cannot be written, naming the path and the bytes; the one before is still there.
        ArgumentError: if the state cannot be held, naming the place; nothing is written then.
    """
    plain, tensors = split_tree(state)
    content = _canonical(plain)
    if len(content) > LARGEST_STATE:
        raise ArgumentError(
            f"the state takes {len(content)} bytes beside its tensors; a checkpoint holds at most {LARGEST_STATE}"
        )
    _check_folder(folder)
    before = set(os.listdir(folder)) if folder.is_dir() else set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            members = {
                "state": _write_member(folder, "state", content),
                "tensors": _write_member(folder, "tensors", _serialize(tensors)),
            }
            manifest = {"format": FORMAT, "version": VERSION, "members": members}
            signed = _canonical({**manifest, "sha256": _digest(_canonical(manifest))})
            write_atomically(folder / MANIFEST, lambda file: file.write(signed))
        except BaseException:
            _sweep(folder, keep=before)
            raise
        _sweep(folder, keep={member["file"] for member in members.values()})
    except OSError as error:
        path = error.filename or folder
        raise CheckpointError(f"checkpoint {folder} cannot be written: {path}: {error.strerror or error}") from error


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Read a checkpoint; tensors lie on the host. Runs no code from it.

    Returns:
        The state. One of version 1 has the arrays under ``"arrays"``.

    Raises:
        CheckpointError: if it is missing, damaged or not of this format, naming the member.
    """
    version, members = _read_manifest(folder)
    arrays = {name: _read_array(folder, name, members[name]) for name in members if name not in SUFFIXES}
    plain = _parse(_read_member(folder, "state", members["state"], LARGEST_STATE), f"{folder}: member 'state'")
    content = _read_member(folder, "tensors", members["tensors"])
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"{folder}: member 'tensors' is not a safetensors file: {error}") from error
    try:
        state = join_tree(plain, tensors)
    except (ArgumentError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{folder}: member 'state' is not a state: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{folder}: member 'state' is not a state: it is a {type(state).__name__}")
    return {**state, "arrays": arrays} if version == 1 else state


def is_checkpoint(folder: Path) -> bool:
    """Whether a checkpoint was written there; it may be damaged since."""
    return (folder / MANIFEST).is_file()


def delete_checkpoint(folder: Path) -> None:
    """Remove a checkpoint, its manifest first, so that no half of it is ever taken for one."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------------- writing


def _check_folder(folder: Path) -> None:
    """Refuse to mix with, or to remove, what is not a checkpoint's."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint {folder} cannot be written: there is a file of this name")
    foreign = [name for name in os.listdir(folder) if not _is_ours(name)]
    if foreign and not is_checkpoint(folder):
        raise CheckpointError(
            f"checkpoint {folder} cannot be written: the folder holds {sorted(foreign)[0]!r} and no checkpoint; give "
            "a folder of its own"
        )


def _is_ours(name: str) -> bool:
    return name == MANIFEST or MEMBER_FILE.fullmatch(name) is not None or (name[:1] == "." and TEMPORARY in name)


def _write_member(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    digest = _digest(content)
    file = f"{name}-{digest[:16]}{SUFFIXES[name]}"
    try:
        write_atomically(folder / file, lambda opened: opened.write(content))
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {folder} cannot be written: {folder / file}, {len(content)} bytes: {error.strerror or error} "
            f"({shutil.disk_usage(folder).free} bytes are free there)"
        ) from error
    return {"file": file, "bytes": len(content), "sha256": digest}


def _serialize(tensors: dict[str, Tensor]) -> bytes:
    """Tensors that share their memory are written apart, which safetensors does not do by itself."""
    storages: set[int] = set()
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        if pointer in storages:
            tensors[name] = tensor.clone()
        storages.add(pointer)
    return safetensors.torch.save(tensors)


def _canonical(plain: Any) -> bytes:
    """The one way to write it, so that not a bit of the file is free."""
    return json.dumps(plain, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sweep(folder: Path, keep: set[str]) -> None:
    """Remove members of earlier checkpoints, and what interrupted writes left."""
    for name in os.listdir(folder):
        if _is_ours(name) and name != MANIFEST and name not in keep:
            (folder / name).unlink(missing_ok=True)


# ---------------------------------------------------------------------- reading


def _read_manifest(folder: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """The version, and the members' entries by name."""
    place = f"{folder}: {MANIFEST}"
    content = _read(folder / MANIFEST, place, LARGEST_MANIFEST)
    manifest = _parse(content, place)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{place} is not that of a checkpoint of this library")
    version = manifest.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        newer = isinstance(version, int) and version > VERSION
        hint = ": a newer mtrl-imgrad wrote it, upgrade to read it" if newer else ""
        raise CheckpointError(f"{place} is of version {version!r} of the format; 1 to {VERSION} expected{hint}")
    digest = manifest.pop("sha256", None)
    if digest != _digest(_canonical(manifest)) or content != _canonical({**manifest, "sha256": digest}):
        raise CheckpointError(f"{place} is damaged: its SHA-256 does not match")
    members: Any = manifest.get("members")
    names = set(members) if isinstance(members, dict) else set()
    if not names >= set(SUFFIXES) or (version > 1 and len(names) > len(SUFFIXES)):
        raise CheckpointError(f"{place} must list the members {sorted(SUFFIXES)}")
    for name, entry in members.items():
        _check_entry(name, entry, place)
    return version, members


def _check_entry(name: str, entry: Any, place: str) -> None:
    """A member's file lies in the folder, under a name that follows from its own and its hash."""
    if not (ARRAY_NAME.fullmatch(name) and isinstance(entry, dict) and set(entry) == MEMBER_KEYS):
        raise CheckpointError(f"{place} has a malformed entry for member {name[:40]!r}")
    size, digest = entry["bytes"], entry["sha256"]
    if type(size) is not int or size < 0 or not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
        raise CheckpointError(f"{place} has a malformed entry for member {name!r}")
    expected = f"{name}-{digest[:16]}{SUFFIXES.get(name, '.npy')}"
    if entry["file"] != expected:
        raise CheckpointError(f"{place} has member {name!r} in {str(entry['file'])[:80]!r}; {expected!r} expected")


def _read_member(folder: Path, name: str, entry: dict[str, Any], largest: int | None = None) -> bytes:
    place = f"{folder}: member {name!r}"
    content = _read(folder / entry["file"], place, largest, entry["bytes"])
    if _digest(content) != entry["sha256"]:
        raise CheckpointError(f"{place} is damaged: {entry['file']} does not have the SHA-256 of the manifest")
    return content


def _read(path: Path, place: str, largest: int | None = None, expected: int | None = None) -> bytes:
    """The content of a regular file of the expected size; links are not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise CheckpointError(f"{place} is not a regular file")
            if expected is not None and about.st_size != expected:
                raise CheckpointError(f"{place} is damaged: {about.st_size} bytes, the manifest says {expected}")
            if largest is not None and about.st_size > largest:
                raise CheckpointError(f"{place} has {about.st_size} bytes; at most {largest} are read")
            return _read_exactly(file, about.st_size)
    except (OSError, MemoryError) as error:
        raise CheckpointError(f"{place} cannot be read: {error}") from error


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size + 1)
    if len(content) != size:
        raise OSError(f"{len(content)} bytes came, {size} expected: the file changes while it is read")
    return content


def _parse(content: bytes, place: str) -> Any:
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{place} is not JSON: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _read_array(folder: Path, name: str, entry: dict[str, Any]) -> NDArray:
    """An npy of version 1: plain numbers, no more of them in its header than in the file."""
    place = f"{folder}: member {name!r}"
    content = _read_member(folder, name, entry)
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"version {version}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # NumPy documents ValueError; a crafted header also raises others
        raise CheckpointError(f"{place} is not an npy file: {error}") from error
    start = stream.tell()
    fits = min(shape, default=0) >= 0 and math.prod(shape) * dtype.itemsize == len(content) - start
    if dtype.kind not in "biuf" or fortran or not fits:
        raise CheckpointError(f"{place} says it holds {dtype}{list(shape)}, which its {len(content)} bytes do not")
    return np.ndarray(shape, dtype, buffer=content, offset=start).copy()
