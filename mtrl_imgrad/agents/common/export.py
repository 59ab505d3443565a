"""A policy as an ONNX file: states and task numbers in, actions in the environment's units out."""

from __future__ import annotations

import copy
import io
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mtrl_imgrad.errors import ArgumentError, MissingDependencyError
from mtrl_imgrad.reporting.atomic_files import write_whole

if TYPE_CHECKING:
    from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm


OPSET = 17
"""Of ONNX 1.12 (2022): what every runtime of today reads."""


class _Acting(nn.Module):
    """``predict(..., deterministic=True)`` as one graph."""

    low: Tensor
    high: Tensor

    def __init__(self, actor: Any, num_tasks: int, action_space: spaces.Box, squashed: bool) -> None:
        super().__init__()
        self.actor, self.num_tasks, self.squashed = actor, num_tasks, squashed
        self.shape = action_space.shape
        for name in ("low", "high"):
            self.register_buffer(name, torch.as_tensor(getattr(action_space, name), dtype=torch.float32))

    def forward(self, state: Tensor, task: Tensor | None = None) -> Tensor:
        if task is not None:
            state = torch.cat([state, one_hot(task, self.num_tasks).to(state.dtype)], dim=-1)
        action = self.actor._predict(state, deterministic=True).reshape(-1, *self.shape)
        if self.squashed:  # from (-1, 1), as SB3's unscale_action
            return self.low + 0.5 * (action + 1.0) * (self.high - self.low)
        return torch.maximum(torch.minimum(action, self.high), self.low)


def export_policy(agent: MultiTaskAlgorithm, path: Path) -> Path:
    """See `MultiTaskAlgorithm.export`."""
    if path.suffix.lower() != ".onnx":
        raise ArgumentError(f"path must end in .onnx, got {str(path)!r}")
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("export needs the package onnx: pip install 'mtrl-imgrad[export]'") from error
    policy, tasks = agent.policy, agent.tasks
    assert isinstance(agent.action_space, spaces.Box)
    actor: Any = copy.deepcopy(policy.actor).cpu()
    actor.set_training_mode(False)
    acting = _Acting(actor, tasks.num_tasks, agent.action_space, policy.squash_output).eval()
    width = int(np.prod(agent.observation_space.shape)) - (tasks.num_tasks if tasks.one_hot else 0)  # type: ignore[arg-type]
    # Two rows: of one the graph could take its number for a constant.
    example = (torch.zeros(2, width), torch.zeros(2, dtype=torch.int64))[: 1 + tasks.one_hot]
    names = ["state", "task"][: len(example)]
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # torch's newer exporter needs one package more, and says so of this one
        warnings.simplefilter("ignore")
        torch.onnx.export(
            acting,
            example,
            buffer,  # type: ignore[arg-type]  # the older exporter writes to a file object
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["action"],
            dynamic_axes={name: {0: "n"} for name in (*names, "action")},
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(
        model, {"task_names": json.dumps(list(tasks.names)), "agent": type(agent).__name__, "made_by": "mtrl_imgrad"}
    )
    onnx.checker.check_model(model)
    write_whole(path, lambda file: file.write(model.SerializeToString()))
    return path
