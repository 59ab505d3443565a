"""``meta.json``, a folder's description of itself. The published sets have none; ours state that they are simulated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtrl_imgrad.errors import DatasetError

META_NAME = "meta.json"


def read_meta(root: Path) -> dict[str, Any]:
    """The contents of ``root/meta.json``; empty where there is none.

    Raises:
        DatasetError: The file is no JSON object.
    """
    path = root / META_NAME
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(meta, dict):
        raise DatasetError(f"{path}: expected a JSON object, found a {type(meta).__name__}")
    return meta


def write_meta(root: Path, meta: Mapping[str, Any]) -> None:
    """Write ``meta`` to ``root/meta.json``."""
    (root / META_NAME).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def class_names(root: Path, default: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the classes: ``"classes"`` of ``root/meta.json``, else ``default``.

    Raises:
        DatasetError: ``"classes"`` is no list of two names or more.
    """
    names = read_meta(root).get("classes")
    if names is None:
        return default
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise DatasetError(f"{root / META_NAME}: 'classes' is {names!r}; expected a list of two names or more")
    return tuple(names)


def depth_is_stated(root: Path) -> bool:
    """Whether ``root/meta.json`` says ``"depth_unit": "metres"``, or that we made it; then depth of any size is metres.

    Raises:
        DatasetError: ``"depth_unit"`` is anything else.
    """
    meta = read_meta(root)
    if meta.get("depth_unit", "metres") != "metres":
        raise DatasetError(f"{root / META_NAME}: 'depth_unit' is {meta['depth_unit']!r}; expected 'metres'")
    return "depth_unit" in meta or bool(meta.get("simulated", False))
