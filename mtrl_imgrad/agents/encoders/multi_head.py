"""Multi-head outputs: one trunk, an output layer a task (MTMHSAC)."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.agents.encoders.base import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.layers import TaskLinear, mlp
from mtrl_imgrad.errors import ArgumentError


class MultiHeadEncoder(Encoder):
    """The trunk is shared and sees the one-hot as well; every task owns its last linear layer.

    Source: "Multi-task multi-head SAC" of Meta-World (Yu et al., CoRL 2019, arXiv 1910.10897); layers as in
    rainx0r/metaworld-algorithms at 30c9991. The one-hot stays in the trunk's input because Meta-World's observation
    carries it; ``task_input=False`` leaves it to the heads alone.
    """

    name = "multi_head"

    def __init__(self, spec: NetworkSpec, task_input: bool = True) -> None:
        super().__init__(spec)
        if not spec.net_arch and spec.num_tasks > 1:
            raise ArgumentError(
                "net_arch must have at least one hidden layer for encoder 'multi_head' with several tasks, which would "
                "share nothing; got []"
            )
        self.task_input = task_input and spec.sees_task
        task_features = spec.num_tasks if self.task_input else 0
        in_features = spec.in_features + task_features
        self.trunk = mlp(in_features, spec)
        self.heads = TaskLinear(spec.num_tasks, (in_features, *spec.net_arch)[-1], spec.out_features)

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        seen = torch.cat([inputs, task], dim=-1) if self.task_input else inputs
        return self.heads(self.trunk(seen), task)
