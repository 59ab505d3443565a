"""One-hot trunk: the task enters as K more inputs of a plain perceptron (MT-SAC)."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.agents.encoders.base import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.layers import mlp


class OneHotEncoder(Encoder):
    """All parameters are shared; the one-hot is appended to the input.

    Source: "Multi-task SAC" of Meta-World (Yu et al., CoRL 2019, arXiv 1910.10897); layers as in
    rainx0r/metaworld-algorithms at 30c9991. Where the observation does not carry the task (one task, or
    ``one_hot=False``), this is SB3's SAC network.
    """

    name = "one_hot"
    needs_task = False

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        task_features = spec.num_tasks if spec.sees_task else 0
        self.trunk = mlp(spec.in_features + task_features, spec, spec.out_features)

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        return self.trunk(torch.cat([inputs, task], dim=-1))
