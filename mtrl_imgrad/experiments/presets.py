"""Presets: configuration files shipped with the library, the source of each value beside it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from mtrl_imgrad.errors import UnknownNameError
from mtrl_imgrad.reporting.narrow import print_item
from mtrl_imgrad.validation import checked

RunKind = Literal["rl", "supervised"]
OPTIONS: dict[RunKind, str] = {"rl": "train --preset", "supervised": "supervised --data"}
FOLDER = Path(str(resources.files("mtrl_imgrad") / "presets"))


@dataclass(frozen=True)
class Presets:
    """Options of ``presets``: none."""

    def __call__(self) -> None:
        """Print names, what they are for, and files."""
        console = Console(highlight=False)
        for kind, option in OPTIONS.items():
            for name in list_presets(kind):
                path = preset_path(kind, name)
                summary = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
                print_item(console, f"{option} {name}", summary)
                console.print(escape(f"    {path}"), soft_wrap=True)


@checked
def list_presets(kind: RunKind) -> list[str]:
    """Names of the presets for one kind of run.

    >>> "mt10" in list_presets("rl")
    True
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
