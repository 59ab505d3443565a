"""SB3's way to the single environments of a vector environment: attributes, methods, wrappers, pictures.

Separate from the stepping because no training needs it: callbacks, videos and ``evaluate_policy`` do.
"""

from __future__ import annotations

from mtrl_imgrad.extras import require

require("MultiTaskVecEnv", "gymnasium", "stable_baselines3")

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from mtrl_imgrad.errors import ArgumentError


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
        """
        rows = list(self._get_indices(indices))
        own = {
            "task_name": lambda row: self.task_names[self.task_ids[row]],
            "task_id": lambda row: int(self.task_ids[row]),
            "render_mode": lambda row: self._render_mode,
        }
        if attr_name in own:
            return [own[attr_name](row) for row in rows]
        return self._get_row_attr(attr_name, rows)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environments.

        Raises:
            ArgumentError: The back-end has no per-environment objects.
        """
        self._set_row_attr(attr_name, value, list(self._get_indices(indices)))

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the environments; returns a result for each.

        Raises:
            ArgumentError: The back-end has no per-environment objects.
        """
        return self._call_rows(method_name, list(self._get_indices(indices)), method_args, method_kwargs)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True for SB3's ``Monitor``, whose statistics the episodes have; False for every other wrapper."""
        return [issubclass(wrapper_class, Monitor) for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """RGB images of the environments, where they render; None for each otherwise."""
        return [None] * self.num_envs

    def _get_row_attr(self, name: str, rows: list[int]) -> list[Any]:
        """Attribute ``name`` of the given rows; AttributeError where there is none."""
        return [getattr(self, name)] * len(rows)

    def _set_row_attr(self, name: str, value: Any, rows: list[int]) -> None:
        """Set attribute ``name`` of the given rows."""
        raise ArgumentError(f"the {self.backend} back-end has no per-environment objects to set {name!r} on")

    def _call_rows(self, name: str, rows: list[int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """Call method ``name`` of the given rows' environments."""
        raise ArgumentError(f"the {self.backend} back-end has no per-environment objects to call {name!r} on")
