"""SB3's way to the single environments of a vector environment: attributes, methods, wrappers, pictures.

Separate from the stepping because no training needs it: callbacks, videos and ``evaluate_policy`` do.
"""

from __future__ import annotations

from mtrl_imgrad.extras import require

require("MultiTaskVecEnv", "gymnasium", "stable_baselines3")

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import check

_OWN: dict[str, Callable[[EnvAttributes, int], Any]] = {
    "task_name": lambda env, row: env.task_names[env.task_ids[row]],
    "task_id": lambda env, row: int(env.task_ids[row]),
    "render_mode": lambda env, row: env._render_mode,
}
"""Attributes of an environment that are not its object's."""


class EnvAttributes(VecEnv):
    """The part of ``VecEnv`` that reaches into single environments; back-ends with such fill in the hooks."""

    backend: str = "abstract"
    task_names: list[str]
    task_ids: npt.NDArray[np.int64]
    _render_mode: str | None = None

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Attribute of the environments; every back-end has ``task_name``, ``task_id``, ``render_mode``.

        Raises:
            AttributeError: There is no such attribute (SB3's ``has_attr`` relies on it).
            ArgumentError: ``attr_name`` is no name, or there is no environment of an index.
        """
        rows = self._rows(indices)
        if check("attr_name", attr_name, str) in _OWN:
            return [_OWN[attr_name](self, row) for row in rows]
        return self._get_row_attr(attr_name, rows)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environments.

        Raises:
            ArgumentError: The back-end has no per-environment objects, the attribute is fixed, or as `get_attr`.
        """
        if check("attr_name", attr_name, str) in _OWN:
            raise ArgumentError(f"attr_name must not be {attr_name!r}, which is fixed as the environment is made")
        self._set_row_attr(attr_name, value, self._rows(indices))

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the environments; returns a result for each.

        Raises:
            AttributeError: There is no such method.
            ArgumentError: The back-end has no per-environment objects, or as `get_attr`.
        """
        rows = self._rows(indices)
        return self._call_rows(check("method_name", method_name, str), rows, method_args, method_kwargs)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True for SB3's ``Monitor``, whose statistics the episodes have; False for every other wrapper."""
        return [issubclass(check("wrapper_class", wrapper_class, type), Monitor) for _ in self._rows(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """RGB images of the environments, where they render; None for each otherwise."""
        return [None] * self.num_envs

    def _rows(self, indices: VecEnvIndices) -> list[int]:
        """The environments that SB3's ``indices`` name: None for all, one, or several; negative ones from the end."""
        if indices is None:
            return list(range(self.num_envs))
        several = isinstance(indices, Iterable) and not isinstance(indices, str)
        rows: list[Any] = list(indices) if several else [indices]  # type: ignore[arg-type]
        for row in rows:
            is_number = isinstance(row, Integral) and not isinstance(row, bool)
            if not is_number or not -self.num_envs <= row < self.num_envs:
                raise ArgumentError(f"indices must be of the {self.num_envs} environments, from 0 on, got {row!r}")
        return [int(row) % self.num_envs for row in rows]

    def _get_row_attr(self, name: str, rows: list[int]) -> list[Any]:
        """Attribute ``name`` of the given rows; AttributeError where there is none."""
        return [getattr(self, name)] * len(rows)

    def _set_row_attr(self, name: str, value: Any, rows: list[int]) -> None:
        """Set attribute ``name`` of the given rows."""
        raise ArgumentError(f"the {self.backend} back-end has no per-environment objects to set {name!r} on")

    def _call_rows(self, name: str, rows: list[int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """Call method ``name`` of the given rows' environments."""
        raise ArgumentError(f"the {self.backend} back-end has no per-environment objects to call {name!r} on")
