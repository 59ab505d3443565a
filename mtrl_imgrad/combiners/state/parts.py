"""The state of a combiner: its attributes that are parts, saved, loaded and taken back together.

A part is whatever has ``get_state`` and ``set_state``: the tables of `mtrl_imgrad.combiners.state`, a
``torch.Generator``, a `Parts`. Its name is that of its attribute, without a leading underscore.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError


@runtime_checkable
class Part(Protocol):
    """A part of a state; one with a ``restore_point`` can undo a step for less than a copy of itself."""

    def get_state(self) -> Any:
        """A state that continues this part bit for bit."""

    def set_state(self, new_state: Any, /) -> Any:
        """Restore `get_state`."""


def parts_of(owner: object) -> dict[str, Part]:
    """The attributes of ``owner`` that are parts, by name."""
    return {name.removeprefix("_"): value for name, value in vars(owner).items() if isinstance(value, Part)}


def get_state(owner: object) -> dict[str, Any]:
    """The states of the parts by name."""
    return {name: part.get_state() for name, part in parts_of(owner).items()}


def set_state(owner: object, state: Mapping[str, Any]) -> None:
    """Restore `get_state`, part by part; an error names the part, and those before it are restored."""
    for name, part in parts_of(owner).items():
        value = state[name]
        if isinstance(part, torch.Generator) and isinstance(value, Tensor):
            value = value.cpu()  # wherever a checkpoint was loaded to
        try:
            part.set_state(value)
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
            raise ArgumentError(f"{name!r}: {error}") from error


def restore_point(owner: object) -> Callable[[], None]:
    """A function that restores the parts as they are now, after one step."""
    undo: list[Callable[[], Any]] = []
    for part in parts_of(owner).values():
        own_way = getattr(part, "restore_point", None)
        undo.append(partial(part.set_state, part.get_state()) if own_way is None else own_way())

    def restore() -> None:
        for restore_part in undo:
            restore_part()

    return restore


class Parts:
    """Several parts under one name; the base of those made of more than one table."""

    def get_state(self) -> dict[str, Any]:
        """The states of the parts by name."""
        return get_state(self)

    def set_state(self, new_state: Any, /) -> None:
        """Restore `get_state`."""
        names = sorted(parts_of(self))
        if not isinstance(new_state, dict) or sorted(new_state) != names:
            raise ArgumentError(f"it must have the parts {names}, got {new_state!r}")
        set_state(self, new_state)
