"""The state of a combiner as a whole: saved, loaded, taken back for a step; and the seed of its random numbers.

A method keeps something by assigning a part (a `TaskTable`, a ``torch.Generator``, ...) to an attribute, whose name it
has in the state; see `mtrl_imgrad.combiners.state.parts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch

from mtrl_imgrad.combiners.state import parts
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Seed, checked


class Stateful:
    """An object with a state made of parts; the base of a method."""

    name: ClassVar[str]
    """Registry name."""
    seed: int | None = None
    """That random numbers follow from, as it was given; see `set_random_seed`."""
    _generator: torch.Generator
    """Of the methods that draw; a part of their state."""
    ranks_agree = False
    """Whether the ranks of a group were found to start from the same state."""

    @checked
    def set_random_seed(self, seed: Seed) -> None:
        """Draw from a run's seed, unless the constructor was given a ``seed``; nothing for methods that draw nothing.

        Agents and the supervised trainer call this, with a stream of the run's seed for each of their combiners. In a
        loop of your own call it with the loop's seed: without it a combiner draws as with seed 0.

        A combiner of your own with a generator of its own may override this.

        Args:
            seed: an integer in [0, 2^63).
        """
        if hasattr(self, "_generator") and self.seed is None:
            self._generator.manual_seed(seed)

    def _seed_generator(self, seed: int | None) -> torch.Generator:
        """A generator on the host for all that the combiner draws, to be kept as ``_generator``."""
        self.seed = seed
        return torch.Generator().manual_seed(self.seed or 0)

    def state_dict(self) -> dict[str, Any]:
        """A state that continues this combiner bit for bit; empty for stateless methods.

        A method keeps something by assigning a part (a `TaskTable`, a ``torch.Generator``, ...) to an attribute, whose
        name it has in the state; see `mtrl_imgrad.combiners.state.parts`.
        """
        return parts.get_state(self)

    def restore_point(self) -> Callable[[], None]:
        """A function that undoes the next step, for a step whose gradient turns out not to be finite.

        Costs less than `state_dict` where a part has a ``restore_point`` of its own.
        """
        return parts.restore_point(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`. After an error the combiner is what it was.

        Raises:
            ArgumentError: if ``state`` is not that of a combiner with the same arguments.
        """
        if not isinstance(state, Mapping):
            raise ArgumentError(f"state must be a mapping from names to parts, got {type(state).__name__}")
        before = self.state_dict()
        if not before and state:
            raise ArgumentError(f"{self.name} keeps no state, but state has {sorted(state)}")
        if set(state) != set(before):
            raise ArgumentError(
                f"the state of {self!r} has the parts {sorted(before)}, but the one given has {sorted(state)}"
            )
        self.ranks_agree = False
        try:
            parts.set_state(self, state)
        except ArgumentError as error:
            parts.set_state(self, before)
            raise ArgumentError(f"the state of {self.name} has a wrong part {error}") from error
