"""Task sets as vector environments in Stable-Baselines3's sense.

``make_vec_env("MT10", seed=0)`` builds one; ``list_tasks("MT10")`` names its tasks. The simulators
(metaworld, mujoco, envpool) are imported when an environment that needs them is built, not before; and the
names below when they are first used, so that a worker process, which needs none, starts without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtrl_imgrad.envs.make import make_vec_env
    from mtrl_imgrad.envs.registry import Backend, list_backends, list_task_sets, list_tasks, register_backend
    from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv

__all__ = [
    "Backend",
    "MultiTaskVecEnv",
    "list_backends",
    "list_task_sets",
    "list_tasks",
    "make_vec_env",
    "register_backend",
]

_HOMES = {
    "Backend": "registry",
    "MultiTaskVecEnv": "vec_env",
    "list_backends": "registry",
    "list_task_sets": "registry",
    "list_tasks": "registry",
    "make_vec_env": "make",
    "register_backend": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
