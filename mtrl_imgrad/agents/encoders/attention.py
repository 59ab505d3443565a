"""Attention over a mixture of encoders: the task is the query, encodings of the state are keys and values."""

from __future__ import annotations

import math

from torch import Tensor

from mtrl_imgrad.agents.encoders.base import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.experts import expert_mlp, mix
from mtrl_imgrad.agents.encoders.layers import TaskEmbedding, mlp
from mtrl_imgrad.validation import Count


class AttentionEncoder(Encoder):
    """E small encoders of the state; attention of the task's query to their encodings; a trunk on the mixture.

    Source: the mixture of encoders of Sodhani, Zhang, Pineau (ICML 2021, arXiv 2102.06177), figure 3, where attention
    scores are taken between each encoding and the task's vector. Here they are scaled dot products, the vector is
    learned, and the trunk sees the mixture only. So the weights depend on task and state. Encoders and trunk are
    shared; a task's own is its query.

    Args:
        spec: sizes and tasks.
        num_experts: number of encoders E.
        encoder_width: width of each of their layers, and so of an encoding.
        encoder_depth: number of their layers.
    """

    name = "attention"

    def __init__(
        self, spec: NetworkSpec, num_experts: Count = 6, encoder_width: Count = 50, encoder_depth: Count = 2
    ) -> None:
        super().__init__(spec)
        self.encoders = expert_mlp(
            num_experts, spec.in_features, [encoder_width] * encoder_depth, spec, activated=False
        )
        self.query = TaskEmbedding(spec.num_tasks, encoder_width)
        self.trunk = mlp(encoder_width, spec, spec.out_features)

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        encodings = self.encoders(inputs)
        query = self.query.vector(task)
        scores = (encodings * query).sum(-1) / math.sqrt(query.shape[-1])
        return self.trunk(mix(scores.softmax(0).t(), encodings))
