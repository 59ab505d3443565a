"""A part of a combiner's state that is made of smaller parts."""

from __future__ import annotations

from typing import Any

from mtrl_imgrad.combiners.state.tables import Kept
from mtrl_imgrad.errors import ArgumentError

__all__ = ["Parts"]


class Parts:
    """Several parts under one name; the base of helpers that keep more than one table.

    Args:
        parts: by name.
    """

    def __init__(self, **parts: Kept) -> None:
        self._parts = parts

    def get_state(self) -> dict[str, Any]:
        """The states of the parts by name."""
        return {name: part.get_state() for name, part in self._parts.items()}

    def set_state(self, new_state: Any, /) -> None:
        """Restore `get_state`.

        Raises:
            ArgumentError: if the parts are others.
        """
        if not isinstance(new_state, dict) or set(new_state) != set(self._parts):
            raise ArgumentError(f"it must have the parts {sorted(self._parts)}, got {new_state!r}")
        for name, part in self._parts.items():
            part.set_state(new_state[name])
