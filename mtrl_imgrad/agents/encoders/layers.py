"""Hidden layers, and layers of which every task owns a row; see `mtrl_imgrad.gradients.TaskModule`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtrl_imgrad.agents.encoders.base import NetworkSpec
from mtrl_imgrad.agents.encoders.dropout import Dropout
from mtrl_imgrad.gradients import TaskModule


def mlp(in_features: int, spec: NetworkSpec, out_features: int | None = None) -> nn.Sequential:
    """The hidden layers of a specification, layer for layer what SB3's ``create_mlp`` builds.

    Dropout stands between the linear layer and the normalization, as in DroQ (Hiraoka et al., arXiv 2110.02034).

    Args:
        in_features: input width.
        spec: hidden widths, non-linearity, dropout, normalization.
        out_features: width of a last linear layer without activation; None ends with the activation.
    """
    layers: list[nn.Module] = []
    for width in spec.net_arch:
        layers.append(nn.Linear(in_features, width))
        if spec.dropout:
            layers.append(Dropout(width, spec.dropout))
        if spec.layer_norm:
            layers.append(nn.LayerNorm(width))
        layers.append(spec.activation_fn())
        in_features = width
    if out_features is not None:
        layers.append(nn.Linear(in_features, out_features))
    return nn.Sequential(*layers)


def row_of_task(task: Tensor) -> Tensor:
    """One-hot ``[N, K]`` to task numbers ``[N]``; observations without a one-hot are those of a single task."""
    if task.shape[-1] == 0:
        return task.new_zeros(task.shape[0], dtype=torch.long)
    return task.argmax(-1)


def rows_of_table(table: Tensor, task: Tensor) -> Tensor:
    """``[K, F]`` and one-hot ``[N, K]`` to ``[N, F]``: to each row what the table holds for its task."""
    if task.shape[-1] == 0:
        return table.expand(task.shape[0], -1)
    return task @ table


class TaskLinear(TaskModule):
    """A linear layer a task: row ``n`` of the input goes through the weights of the task it belongs to.

    Each task's weights are initialised as `torch.nn.Linear` initialises its own.
    """

    def __init__(self, num_tasks: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        self.weight = nn.Parameter(torch.empty(num_tasks, out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_tasks, out_features).uniform_(-bound, bound))

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """``[N, in_features]`` and one-hot ``[N, K]`` to ``[N, out_features]``."""
        if self.weight.ndim == 2:  # one task's row, see TaskModule
            return functional.linear(inputs, self.weight, self.bias)
        index = row_of_task(task)
        return torch.einsum("ni,noi->no", inputs, self.weight[index]) + self.bias[index]


class TaskEmbedding(TaskModule):
    """A learned vector a task, standard normal at first as in `torch.nn.Embedding`."""

    def __init__(self, num_tasks: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_tasks, features))

    def forward(self, task: Tensor) -> Tensor:
        """One-hot ``[N, K]`` to ``[N, features]``."""
        return self.vector(task).expand(task.shape[0], -1)

    def vector(self, task: Tensor) -> Tensor:
        """As `forward`, but one task's vector stays ``[features]``, for what broadcasts it over the rows.

        So what is computed from the vector alone costs one row a task in an update, and not a row of the batch.
        """
        if self.weight.ndim == 1:  # one task's row, see TaskModule
            return self.weight
        return self.weight[row_of_task(task)]
