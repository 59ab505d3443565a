"""Soft modularization: a routing network decides, task by task and state by state, how modules are wired."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from mtrl_imgrad.agents.encoders.base import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.experts import expert_layer, mix
from mtrl_imgrad.agents.encoders.layers import TaskEmbedding, mlp
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count


class SoftModularizationEncoder(Encoder):
    """L layers of n modules each; softmax weights say how much each module takes from each one before it.

    Source: Yang, Xu, Wu, Wang, "Multi-Task Reinforcement Learning with Soft Modularization" (NeurIPS 2020, arXiv
    2003.13661), and the authors' code (RchalYang/Soft-Module at e6d7c8a). The state network ``f`` is a perceptron of
    widths ``net_arch``; a task owns its vector ``h`` (the authors' linear layer on the one-hot); state network, modules
    and routing are shared. What the paper leaves open follows the authors' code: a perceptron between ``f(s) * h`` and
    the first routing, and a last routing of n weights before one linear output layer.

    Args:
        spec: sizes and tasks; ``net_arch`` is that of the state network, whose output is its last width.
        num_modules: modules a layer, n.
        num_module_layers: layers of modules, L.
        module_width: width of a module.
        routing_width: width of the routing network.
        routing_depth: layers of the routing network before the first routing.
    """

    name = "soft_modularization"

    def __init__(
        self,
        spec: NetworkSpec,
        num_modules: Count = 2,
        num_module_layers: Count = 2,
        module_width: Count = 256,
        routing_width: Count = 256,
        routing_depth: Count = 2,
    ) -> None:
        super().__init__(spec)
        if not spec.net_arch:
            raise ArgumentError(
                "net_arch must have at least one hidden layer for encoder 'soft_modularization', got []"
            )
        features = spec.net_arch[-1]
        self.state = mlp(spec.in_features, replace(spec, net_arch=spec.net_arch[:-1]), features)
        self.task = TaskEmbedding(spec.num_tasks, features)
        self.modules_in_layers = nn.ModuleDict(
            {
                f"layer_{depth}": nn.Sequential(
                    *expert_layer(num_modules, module_width if depth else features, module_width, spec)
                )
                for depth in range(num_module_layers)
            }
        )
        plain = replace(spec, layer_norm=False, dropout=0.0, net_arch=(routing_width,) * (routing_depth - 1))
        self.routing = _Routing(num_modules, num_module_layers, features, plain, routing_width)
        self.output = nn.Linear(module_width, spec.out_features)
        self.activation = spec.activation_fn()

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        state = self.state(inputs)
        between, last = self.routing(self.activation(state * self.task.vector(task)))
        first, *others = self.modules_in_layers.values()
        outputs = first(self.activation(state))  # [n, N, width]
        for weights, layer in zip(between, others, strict=True):  # module i reads a mixture of all modules j before it
            outputs = layer(torch.einsum("bij,jbw->ibw", weights, outputs))
        return self.output(mix(last, outputs))


class _Routing(nn.Module):
    """The routing network: ``[N, features]`` to L - 1 softmax matrices ``[N, n, n]`` and weights ``[N, n]``."""

    def __init__(self, modules: int, layers: int, features: int, spec: NetworkSpec, width: int) -> None:
        super().__init__()
        self.num_modules = modules
        self.trunk = mlp(features, spec, width)
        sizes = [modules * modules] * (layers - 1) + [modules]
        self.logits = nn.ModuleDict({f"of_layer_{i}": nn.Linear(width, size) for i, size in enumerate(sizes)})
        self.conditions = nn.ModuleDict({f"on_layer_{i}": nn.Linear(size, width) for i, size in enumerate(sizes[:-1])})
        self.activation = spec.activation_fn()

    def forward(self, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
        trunk = self.trunk(inputs)
        *between, last = self.logits.values()
        routings: list[Tensor] = []
        seen = trunk
        for logits, condition in zip(between, self.conditions.values(), strict=True):
            weights = logits(self.activation(seen)).unflatten(-1, (self.num_modules, self.num_modules)).softmax(-1)
            seen = condition(weights.flatten(-2)) * trunk
            routings.append(weights)
        return routings, last(self.activation(seen)).softmax(-1)
