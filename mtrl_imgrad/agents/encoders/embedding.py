"""Learned task embedding: a vector a task beside the state."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.agents.encoders.base import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.layers import TaskEmbedding, mlp
from mtrl_imgrad.validation import Count


class EmbeddingEncoder(Encoder):
    """A learned vector stands for the task and is appended to the input in place of the one-hot.

    Source: "SAC + task encoder" of Sodhani, Zhang, Pineau, "Multi-Task Reinforcement Learning with Context-based
    Representations" (ICML 2021, arXiv 2102.06177), without what stands behind the embedding in the authors' code (mtrl
    at e282c3f: a ReLU and three linear layers): the first layer of the trunk does that work. The vectors are the tasks'
    own parameters.

    Args:
        spec: sizes and tasks.
        embedding_dim: length of a task's vector.
    """

    name = "embedding"

    def __init__(self, spec: NetworkSpec, embedding_dim: Count = 50) -> None:
        super().__init__(spec)
        self.embedding = TaskEmbedding(spec.num_tasks, embedding_dim)
        self.trunk = mlp(spec.in_features + embedding_dim, spec, spec.out_features)

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        return self.trunk(torch.cat([inputs, self.embedding(task)], dim=-1))
