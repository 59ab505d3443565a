"""Experts: networks of the same shape side by side, whose parameters all tasks share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtrl_imgrad.agents.encoders.base import NetworkSpec
from mtrl_imgrad.agents.encoders.dropout import Dropout


class ExpertLinear(nn.Module):
    """E linear layers in one, each initialised as `torch.nn.Linear` initialises its own.

    Rows that all experts see go through one wide product. Rows of their own go through a product an expert: batched
    products would copy the weights once a task under per-task gradients.
    """

    def __init__(self, num_experts: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        self.weight = nn.Parameter(torch.empty(num_experts, out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_experts, out_features).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        """``[N, in_features]`` for all experts, or ``[E, N, in_features]``, to ``[E, N, out_features]``."""
        if inputs.ndim == 2:
            outputs = functional.linear(inputs, self.weight.flatten(0, 1), self.bias.flatten())
            return outputs.unflatten(-1, self.bias.shape).movedim(1, 0)
        layers = zip(inputs.unbind(), self.weight.unbind(), self.bias.unbind(), strict=True)
        return torch.stack([functional.linear(rows, weight, bias) for rows, weight, bias in layers])


class ExpertLayerNorm(nn.LayerNorm):
    """Layer normalization of ``[E, N, features]`` with a scale and a shift an expert."""

    def __init__(self, num_experts: int, features: int) -> None:
        super().__init__(features)
        self.weight = nn.Parameter(torch.ones(num_experts, 1, features))
        self.bias = nn.Parameter(torch.zeros(num_experts, 1, features))

    def forward(self, inputs: Tensor) -> Tensor:
        """``[E, N, features]`` to the same shape."""
        normalized = functional.layer_norm(inputs, self.normalized_shape, eps=self.eps)
        return normalized * self.weight + self.bias


def expert_mlp(
    num_experts: int, in_features: int, widths: Sequence[int], spec: NetworkSpec, activated: bool = True
) -> nn.Sequential:
    """As `mtrl_imgrad.agents.encoders.layers.mlp`, for E experts.

    Args:
        num_experts: E.
        in_features: input width.
        widths: of the layers.
        spec: its non-linearity, dropout and normalization.
        activated: whether the last layer is a hidden layer as the others are, or linear.
    """
    layers: list[nn.Module] = []
    for depth, width in enumerate(widths, start=1):
        if activated or depth < len(widths):
            layers += expert_layer(num_experts, in_features, width, spec)
        else:
            layers.append(ExpertLinear(num_experts, in_features, width))
        in_features = width
    return nn.Sequential(*layers)


def expert_layer(num_experts: int, in_features: int, width: int, spec: NetworkSpec) -> list[nn.Module]:
    """The parts of a hidden layer of E experts, in their order."""
    layers: list[nn.Module] = [ExpertLinear(num_experts, in_features, width)]
    if spec.dropout:
        layers.append(Dropout(width, spec.dropout, num_experts))
    if spec.layer_norm:
        layers.append(ExpertLayerNorm(num_experts, width))
    return [*layers, spec.activation_fn()]


def mix(weights: Tensor, outputs: Tensor) -> Tensor:
    """Sum of the experts' outputs ``[E, N, F]``, weighted by ``[E]`` for all rows or ``[N, E]``: ``[N, F]``."""
    if weights.ndim == 1:
        return torch.tensordot(weights, outputs, dims=1)
    return (weights.t().unsqueeze(-1) * outputs).sum(0)
