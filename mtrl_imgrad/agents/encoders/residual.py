"""Residual blocks with layer normalization (BroNet), told the task by an embedding: the network of BRC."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtrl_imgrad.agents.encoders.base import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.dropout import Dropout
from mtrl_imgrad.agents.encoders.layers import TaskEmbedding
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count


class ResidualEncoder(Encoder):
    """Linear, norm, activation; then a residual block for each further width; then a linear output layer.

    Source: Nauman et al., "Bigger, Regularized, Categorical" (2025, arXiv 2505.23150; code:
    naumix/BiggerRegularizedCategorical at 19701bf), whose critic is the BroNet of Nauman et al. (NeurIPS 2024, arXiv
    2405.16158) beside a learned task embedding of unit length. ``net_arch`` of three equal widths is its critic (two
    blocks), of two its actor (one block). Blocks are shared; a task's own is its embedding. Every linear layer but the
    last is normalized, whatever the policy's ``layer_norm``: without its norms this is no BroNet. With ``dropout`` each
    drops units before it is normalized; ``x`` itself passes whole.

    Args:
        spec: sizes and tasks; ``net_arch`` is the width of the first layer, then one width a block.
        embedding_dim: length of a task's embedding.
    """

    name = "residual"

    def __init__(self, spec: NetworkSpec, embedding_dim: Count = 32) -> None:
        super().__init__(spec)
        if not spec.net_arch:
            raise ArgumentError("net_arch must have at least one hidden layer for encoder 'residual', got []")
        self.embedding = TaskEmbedding(spec.num_tasks, embedding_dim)
        width = spec.net_arch[0]
        layers: list[nn.Module] = [
            *_normalized(spec.in_features + embedding_dim, width, spec.dropout),
            spec.activation_fn(),
        ]
        for next_width in spec.net_arch[1:]:
            layers.append(_Block(width, next_width, spec))
            width = next_width
        self.trunk = nn.Sequential(*layers, nn.Linear(width, spec.out_features))

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        embedding = functional.normalize(self.embedding.vector(task), dim=-1)
        return self.trunk(torch.cat([inputs, embedding.expand(inputs.shape[0], -1)], dim=-1))


class _Block(nn.Module):
    """``x + norm(linear(activation(norm(linear(x)))))``; where the width changes, ``x`` goes through a linear layer."""

    def __init__(self, in_features: int, width: int, spec: NetworkSpec) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_normalized(in_features, width, spec.dropout),
            spec.activation_fn(),
            *_normalized(width, width, spec.dropout),
        )
        self.shortcut = nn.Identity() if in_features == width else nn.Linear(in_features, width, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.shortcut(inputs) + self.branch(inputs)


def _normalized(in_features: int, width: int, dropout: float) -> list[nn.Module]:
    dropouts = [Dropout(width, dropout)] if dropout else []
    return [nn.Linear(in_features, width), *dropouts, nn.LayerNorm(width)]
