"""Presets: configuration files shipped with the library, the source of each value beside it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

from mtrl_imgrad.errors import UnknownNameError
from mtrl_imgrad.validation import checked

__all__ = ["list_presets", "preset_path"]

RunKind = Literal["rl", "supervised"]
FOLDER = Path(str(resources.files("mtrl_imgrad") / "presets"))


def list_presets(kind: RunKind) -> list[str]:
    """Names of the presets for one kind of run.

    >>> list_presets("supervised")
    ['attributes', 'celeba', 'cityscapes', 'demo', 'nyuv2', 'primitives', 'scenes']
    """
    return sorted(path.stem for path in (FOLDER / kind).glob("*.yaml"))


@checked
def preset_path(kind: RunKind, name: str) -> Path:
    """The file of a preset.

    Raises:
        UnknownNameError: if there is no preset of that name.
    """
    if name not in list_presets(kind):
        raise UnknownNameError(f"{kind} preset", name, list_presets(kind))
    return FOLDER / kind / f"{name}.yaml"
