"""MOORE: a mixture of experts whose representations are orthogonal to each other."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.agents.encoders.base import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.experts import expert_mlp, mix
from mtrl_imgrad.agents.encoders.layers import TaskEmbedding, TaskLinear
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count

EPSILON = 1e-12
"""Added to squared lengths, so that a vanishing representation has a gradient."""


def orthonormal(vectors: Tensor) -> Tensor:
    """Gram-Schmidt orthonormalization of E vectors a row, in the order of the experts.

    Args:
        vectors: ``[E, N, F]`` with E at most F.

    Returns:
        ``[E, N, F]``: for every row E orthonormal vectors. Each is freed of the earlier ones one by one ("modified"
        Gram-Schmidt), which in exact arithmetic is the textbook's sum and loses less to rounding.
    """
    basis: list[Tensor] = []
    for vector in vectors.unbind():
        for direction in basis:
            vector = vector - (vector * direction).sum(-1, keepdim=True) * direction
        basis.append(vector * (vector.square().sum(-1, keepdim=True) + EPSILON).rsqrt())
    return torch.stack(basis)


class MOOREEncoder(Encoder):
    """E experts encode the state; Gram-Schmidt makes their encodings orthonormal; the task weights and reads them.

    Source: Hendawy, Peters, D'Eramo, "Multi-Task Reinforcement Learning with Mixture of Orthogonal Experts" (ICLR 2024,
    arXiv 2311.11385; code: AhmedMagdyHendawy/MOORE at 35fd925), in its multi-head form for Meta-World:
    ``head_k(tanh(sum_e w_k[e] v_e))`` with a linear last layer in each expert. Experts are shared; a task owns its
    weights ``w_k`` (the authors' linear layer without bias on the one-hot) and its head.

    Args:
        spec: sizes and tasks; ``net_arch`` is that of an expert.
        num_experts: number of experts E; the authors have 4 for MT10, 6 for MT50.

    Raises:
        ArgumentError: if there are more experts than features to be orthogonal in.
    """

    name = "moore"

    def __init__(self, spec: NetworkSpec, num_experts: Count = 4) -> None:
        super().__init__(spec)
        if not spec.net_arch:
            raise ArgumentError("net_arch must have at least one hidden layer for encoder 'moore', got []")
        if num_experts > spec.net_arch[-1]:
            raise ArgumentError(
                f"num_experts must be at most the last width of net_arch, {spec.net_arch[-1]}: no more vectors can be "
                f"orthogonal; got {num_experts}"
            )
        self.experts = expert_mlp(num_experts, spec.in_features, spec.net_arch, spec, activated=False)
        self.weights = TaskEmbedding(spec.num_tasks, num_experts)
        self.heads = TaskLinear(spec.num_tasks, spec.net_arch[-1], spec.out_features)

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        representation = mix(self.weights.vector(task), orthonormal(self.experts(inputs)))
        return self.heads(torch.tanh(representation), task)
