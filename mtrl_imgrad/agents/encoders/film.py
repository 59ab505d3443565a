"""FiLM: the task scales and shifts every hidden feature."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from mtrl_imgrad.agents.encoders.base import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.dropout import Dropout
from mtrl_imgrad.agents.encoders.layers import TaskEmbedding
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count


class FiLMEncoder(Encoder):
    """A shared trunk whose hidden layers are modulated by the task: ``activation((1 + gamma) * h + beta)``.

    Source: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer" (AAAI 2018, arXiv 1709.07871):
    one scale and one shift a feature, from a linear layer, before the activation (after dropout and normalization,
    if there are any); the scale is predicted as a difference to 1. A task's own are its vector; the linear layer that
    makes scales and shifts of it is shared.

    Args:
        spec: sizes and tasks.
        embedding_dim: length of a task's vector.
    """

    name = "film"

    def __init__(self, spec: NetworkSpec, embedding_dim: Count = 50) -> None:
        super().__init__(spec)
        if not spec.net_arch:
            raise ArgumentError("net_arch must have at least one hidden layer for encoder 'film', got []")
        self.embedding = TaskEmbedding(spec.num_tasks, embedding_dim)
        self.modulation = nn.Linear(embedding_dim, 2 * sum(spec.net_arch))
        widths = (spec.in_features, *spec.net_arch)
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.dropouts = nn.ModuleList(Dropout(width, spec.dropout) for width in spec.net_arch)
        norms = [nn.LayerNorm(width) if spec.layer_norm else nn.Identity() for width in spec.net_arch]
        self.norms = nn.ModuleList(norms)
        self.activation = spec.activation_fn()
        self.output = nn.Linear(widths[-1], spec.out_features)

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        gammas, betas = self.modulation(self.embedding.vector(task)).chunk(2, dim=-1)
        widths = list(self.spec.net_arch)
        modulations = zip(gammas.split(widths, -1), betas.split(widths, -1), strict=True)
        layers = zip(self.hidden, self.dropouts, self.norms, modulations, strict=True)
        for linear, dropout, norm, (gamma, beta) in layers:
            inputs = self.activation((1 + gamma) * norm(dropout(linear(inputs))) + beta)
        return self.output(inputs)
