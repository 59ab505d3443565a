"""Export of a policy to ONNX, and trained agents that are shipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import torch
from stable_baselines3.common.type_aliases import GymEnv

from mtrl_imgrad.agents.common.export import export_policy
from mtrl_imgrad.agents.common.pretrained import load_pretrained
from mtrl_imgrad.validation import checked


class Sharing:
    """Mixed into the agents."""

    @checked
    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write the policy as an ONNX file, which runs without torch and without this library.

        Its inputs are ``state``, float32 ``[n, F]`` (an observation without the one-hot), and ``task``, int64 ``[n]``
        (the task's place in ``task_names``, which are in the file's metadata); agents that do not see the task lack the
        second. Its output ``action``, float32 ``[n, *A]``, is that of ``predict(..., deterministic=True)``: in the
        environment's units, scaled or clipped to the action space.

        Args:
            path: ends in ``.onnx``; folders are made.

        Returns:
            The path.

        Raises:
            ArgumentError: if the path ends otherwise.
            MissingDependencyError: if the package ``onnx`` is not installed.
        """
        agent: Any = self
        return export_policy(agent, Path(path))

    @classmethod
    @checked
    def from_pretrained(cls, name: str, env: GymEnv | None = None, device: torch.device | str = "auto") -> Self:
        """A trained agent that is shipped with the library: to act, or to go on learning with new optimizers.

        Args:
            name: one of `mtrl_imgrad.agents.list_pretrained`.
            env: to learn in, like the one that it was trained in; None is enough to predict.
            device: as in the constructor.

        Raises:
            UnknownNameError: if none of that name is shipped.
            ArgumentError: if it is an agent of another class.
            TaskMismatchError: if ``env`` has other tasks.
        """
        kind: Any = cls
        return load_pretrained(kind, name, env, device)
