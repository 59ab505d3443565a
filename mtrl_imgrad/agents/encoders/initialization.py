"""Initial values of an encoder's linear layers, other than PyTorch's own, as published codes draw them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mtrl_imgrad.agents.encoders.base import Encoder
from mtrl_imgrad.agents.encoders.experts import ExpertLinear
from mtrl_imgrad.agents.encoders.layers import TaskLinear
from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.validation import checked

Draw = Callable[[Tensor], Any]
LINEAR = (nn.Linear, TaskLinear, ExpertLinear)
"""Layers with a ``weight`` of shape ``[..., out, in]``: one matrix, or one a task or an expert."""


class _Scheme(NamedTuple):
    """Distributions of hidden and output layers; biases that are not drawn are zero."""

    hidden: Draw
    actor_output: Draw
    critic_output: Draw
    draws_output_bias: bool = False


def _he_uniform(weight: Tensor) -> None:
    bound = math.sqrt(6 / weight.shape[-1])
    weight.uniform_(-bound, bound)


def _xavier_uniform(weight: Tensor) -> None:
    bound = math.sqrt(6 / sum(weight.shape[-2:]))
    weight.uniform_(-bound, bound)


def _uniform(bound: float) -> Draw:
    return lambda values: values.uniform_(-bound, bound)


def _orthogonal(gain: float) -> Draw:
    def draw(weight: Tensor) -> None:
        for matrix in weight.flatten(0, -3) if weight.ndim > 2 else weight[None]:
            nn.init.orthogonal_(matrix, gain)

    return draw


_SCHEMES = {
    # stable-baselines3 2.9, ActorCriticPolicy with ortho_init=True
    "orthogonal": _Scheme(_orthogonal(math.sqrt(2)), _orthogonal(0.01), _orthogonal(1.0)),
    # rainx0r/metaworld-algorithms at 30c9991 (2026-05): config/nn.py, rl/networks.py
    "metaworld_algorithms": _Scheme(_he_uniform, _uniform(1e-3), _uniform(3e-3), draws_output_bias=True),
    # facebookresearch/mtrl at e282c3f (2021-12): agent/utils.py
    "mtrl": _Scheme(_xavier_uniform, _xavier_uniform, _xavier_uniform),
}
INITIALIZATIONS = ("pytorch", *_SCHEMES)


@checked
def initialize(encoder: Encoder, initialization: str, *, critic: bool) -> None:
    """Draw the linear layers of an encoder anew, from torch's global generator. Everything else stays as it is.

    Args:
        encoder: changed in place.
        initialization: ``"pytorch"`` draws nothing: layers are what their constructors made them; ``"orthogonal"``:
            SB3's PPO; ``"metaworld_algorithms"``: the code of Meta-World+; ``"mtrl"``: the code of CARE, CAGrad and
            their peers.
        critic: whether the encoder is a critic's; some schemes draw its output layer in another range.

    Raises:
        UnknownNameError: if there is no such scheme.
        ArgumentError: if the encoder has no linear layer.
    """
    if initialization not in INITIALIZATIONS:
        raise UnknownNameError("initialization", initialization, INITIALIZATIONS)
    if initialization == "pytorch":
        return
    scheme, output = _SCHEMES[initialization], output_layer(encoder)
    with torch.no_grad():
        for layer in encoder.modules():
            if isinstance(layer, LINEAR) and layer is not output:
                _draw(layer, scheme.hidden)
        _draw(output, scheme.critic_output if critic else scheme.actor_output, bias=scheme.draws_output_bias)


def _draw(layer: Any, draw: Draw, *, bias: bool = False) -> None:
    draw(layer.weight)
    if layer.bias is not None:
        layer.bias.zero_()
        if bias:
            draw(layer.bias)


def output_layer(encoder: Encoder) -> nn.Module:
    """The layer that gives the outputs: the last linear one, in the order in which a constructor assigns them.

    Raises:
        ArgumentError: if there is none of the encoder's number of outputs.
    """
    layers = [layer for layer in encoder.modules() if isinstance(layer, LINEAR)]
    if not layers or layers[-1].weight.shape[-2] != encoder.spec.out_features:
        raise ArgumentError(
            f"initialization must be 'pytorch' for encoder {encoder.name!r}, whose last linear layer does not give its "
            f"{encoder.spec.out_features} outputs; assign the output layer last"
        )
    return layers[-1]
