"""PaCo: every task's network is a combination of shared sets of parameters."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtrl_imgrad.agents.encoders.base import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.dropout import Dropout
from mtrl_imgrad.agents.encoders.experts import ExpertLinear, mix
from mtrl_imgrad.agents.encoders.layers import TaskEmbedding
from mtrl_imgrad.validation import Count


class PaCoEncoder(Encoder):
    """Parameter-compositional network: ``theta_k = sum_d w_k[d] Phi_d``, weights and biases of all layers alike.

    Source: Sun, Zhang, Xu, Tomizuka, "PaCo: Parameter-Compositional Multi-Task Reinforcement Learning" (NeurIPS 2022,
    arXiv 2210.11653). The D parameter sets ``Phi`` are shared, the composition vectors ``w_k`` are the tasks' own;
    the network itself sees the state only. A vector is drawn from the unit sphere, so that a composed layer starts at
    the scale of a plain one. With ``layer_norm`` the norms' scales and shifts are plainly shared.

    Not part of an encoder, and so not here: the authors' masking and re-drawing of tasks whose loss explodes.

    Args:
        spec: sizes and tasks.
        num_sets: number of parameter sets D; the authors have 5 for MT10.
    """

    name = "paco"

    def __init__(self, spec: NetworkSpec, num_sets: Count = 5) -> None:
        super().__init__(spec)
        self.composition = TaskEmbedding(spec.num_tasks, num_sets)
        with torch.no_grad():
            self.composition.weight.div_(self.composition.weight.norm(dim=-1, keepdim=True))
        widths = (spec.in_features, *spec.net_arch, spec.out_features)
        layers = [_ComposedLinear(num_sets, *pair) for pair in pairwise(widths)]
        self.layers = nn.ModuleList(layers)
        self.dropouts = nn.ModuleList(Dropout(width, spec.dropout) for width in spec.net_arch)
        norms = [nn.LayerNorm(width) if spec.layer_norm else nn.Identity() for width in spec.net_arch]
        self.norms = nn.ModuleList(norms)
        self.activation = spec.activation_fn()

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        composition = self.composition.vector(task)
        *hidden, output = self.layers
        for layer, dropout, norm in zip(hidden, self.dropouts, self.norms, strict=True):
            inputs = self.activation(norm(dropout(layer(inputs, composition))))
        return output(inputs, composition)


class _ComposedLinear(ExpertLinear):
    """A linear layer whose weights are put together from those of D layers."""

    def forward(self, inputs: Tensor, composition: Tensor) -> Tensor:  # type: ignore[override]
        """``[N, in_features]`` and ``[D]`` (one task's) or ``[N, D]`` to ``[N, out_features]``."""
        if composition.ndim == 1:  # compose first: the D layers' work is then that of one
            weight, bias = (torch.tensordot(composition, value, dims=1) for value in (self.weight, self.bias))
            return functional.linear(inputs, weight, bias)
        return mix(composition, super().forward(inputs))
