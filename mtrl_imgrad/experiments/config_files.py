"""Configurations as YAML files, for all kinds of runs: a run's ``config.yaml`` holds every value and repeats it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.reporting.atomic_files import write_text
from mtrl_imgrad.validation import checked

Config = TypeVar("Config")

STRICT = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
"""A key of a configuration file that no field has is an error, not a silent default; so is NaN."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where PyYAML was built with it, is ten times as fast; a comparison reads its plan for every run."""


def read_sections(path: str | Path) -> dict[str, Any]:
    """The contents of a configuration file, before its values are checked.

    Raises:
        ArgumentError: if the file cannot be read, or holds no mapping.
    """
    try:
        data = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no UTF-8, or a date that does not exist
        raise ArgumentError(f"config {path}: {error}") from error
    if not isinstance(data, dict):
        raise ArgumentError(f"config {path}: expected a mapping of sections, got {data!r}")
    data.pop("ran_with", None)  # a record, not a setting
    return data


def validated(path: str | Path, data: dict[str, Any], kind: type[Config]) -> Config:
    """A configuration from the contents of its file.

    Raises:
        ArgumentError: if it holds a key or a value that does not exist; names ``path`` and the key.
    """
    try:
        return _reader(kind).validate_python(data)  # type: ignore[arg-type]  # a class is hashable
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}, got {problem['input']!r}"
            for problem in error.errors()
        )
        raise ArgumentError(f"config {path}: {problems}") from None


@functools.cache
def _reader(kind: type[Config]) -> pydantic.TypeAdapter[Config]:
    """Reader of a kind of configuration; making one takes much longer than reading."""
    return pydantic.TypeAdapter(kind)


@checked
def save_config(config: Config, path: Path, ran_with: dict[str, Any]) -> None:
    """Write a configuration so that `load_config` repeats it.

    Args:
        config: a dataclass; its ``run_dir`` is left out, since a repetition has a folder of its own.
        path: of the YAML file.
        ran_with: versions, back-ends and device, kept as a record.

    Raises:
        CheckpointError: if the file cannot be written; there is no half of it then.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ArgumentError(f"config must be a dataclass such as TrainConfig, got {config!r}")
    data = plain(dataclasses.asdict(dataclasses.replace(config, run_dir=None)))
    write_text(path, yaml.safe_dump({**data, "ran_with": ran_with}, sort_keys=False))


def plain(value: Any) -> Any:
    """As YAML writes it: lists for tuples, text for paths."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def config_hash(config: Any) -> str:
    """Sixteen hexadecimal digits that differ where two configurations do; seed and run folder do not count."""
    data = plain(dataclasses.asdict(config))
    data = {key: value for key, value in data.items() if key not in ("seed", "run_dir")}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """``section.key: old value there, new value given`` for each value in which two nested mappings differ."""
    changes = []
    for key in dict.fromkeys((*old, *new)):
        before, after = (data.get(key, "nothing") for data in (old, new))
        if isinstance(before, dict) and isinstance(after, dict) and before and after:
            changes += [f"{key}.{difference}" for difference in differences(before, after)]
        elif before != after:
            changes.append(f"{key}: {before!r} there, {after!r} given")
    return changes
