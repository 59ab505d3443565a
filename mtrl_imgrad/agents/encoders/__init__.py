"""Task-conditioned encoders, by name."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from mtrl_imgrad.agents.encoders.attention import AttentionEncoder
from mtrl_imgrad.agents.encoders.base import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.care import CAREEncoder
from mtrl_imgrad.agents.encoders.dropout import Dropout, DropoutLayers
from mtrl_imgrad.agents.encoders.embedding import EmbeddingEncoder
from mtrl_imgrad.agents.encoders.film import FiLMEncoder
from mtrl_imgrad.agents.encoders.initialization import INITIALIZATIONS, initialize
from mtrl_imgrad.agents.encoders.moore import MOOREEncoder
from mtrl_imgrad.agents.encoders.multi_head import MultiHeadEncoder
from mtrl_imgrad.agents.encoders.one_hot import OneHotEncoder
from mtrl_imgrad.agents.encoders.paco import PaCoEncoder
from mtrl_imgrad.agents.encoders.residual import ResidualEncoder
from mtrl_imgrad.agents.encoders.soft_modularization import SoftModularizationEncoder
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import checked, look_up

__all__ = [
    "ENCODERS",
    "INITIALIZATIONS",
    "Dropout",
    "Encoder",
    "NetworkSpec",
    "initialize",
    "list_encoders",
    "make_encoder",
]

ENCODERS: dict[str, type[Encoder]] = {
    encoder.name: encoder
    for encoder in (
        OneHotEncoder,
        MultiHeadEncoder,
        EmbeddingEncoder,
        FiLMEncoder,
        AttentionEncoder,
        CAREEncoder,
        SoftModularizationEncoder,
        PaCoEncoder,
        MOOREEncoder,
        ResidualEncoder,
    )
}


def list_encoders() -> list[str]:
    """Names that `make_encoder` accepts."""
    return list(ENCODERS)


@checked
def make_encoder(encoder: str | type[Encoder], spec: NetworkSpec, **kwargs: Any) -> Encoder:
    """Build an encoder by name (or from a class of your own).

    Args:
        encoder: a name of `list_encoders`, or an `Encoder` class.
        spec: sizes and tasks.
        kwargs: the encoder's own options.

    Raises:
        UnknownNameError: if there is no encoder of that name.
        ArgumentError: if an option does not exist or is wrong; if the encoder holds a layer that per-task gradients
            cannot take; if there is a rate of dropout and nothing to drop.
    """
    if isinstance(encoder, str):
        encoder = look_up("encoder", encoder, ENCODERS)
    elif not (isinstance(encoder, type) and issubclass(encoder, Encoder)):
        raise ArgumentError(f"encoder must be a name or an Encoder class, got {encoder!r}")
    accepted = [name for name in inspect.signature(encoder).parameters if name != "spec"]
    for name in kwargs:
        if name not in accepted:
            raise ArgumentError(
                f"encoder_kwargs: encoder {encoder.name!r} takes no {name!r}; accepted: {', '.join(accepted) or 'none'}"
            )
    return _checked(encoder(spec, **kwargs))


def _checked(encoder: Encoder) -> Encoder:
    """Refuse what would go wrong in silence when all tasks' gradients are taken at once."""
    for name, layer in encoder.named_modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0:
            raise ArgumentError(
                f"encoder {encoder.name!r}: layer {name!r} is PyTorch's dropout, which draws from the global generator "
                "in the midst of an update; use mtrl_imgrad.agents.encoders.Dropout, whose masks are drawn before it"
            )
        if list(layer.buffers(recurse=False)):
            raise ArgumentError(
                f"encoder {encoder.name!r}: layer {name!r} keeps buffers (such as running statistics), which per-task "
                "gradients would freeze; use parameters, or layer_norm in place of batch normalization"
            )
    if encoder.spec.dropout and not DropoutLayers(encoder):
        raise ArgumentError(
            f"dropout must be 0 for encoder {encoder.name!r} with net_arch={list(encoder.spec.net_arch)}, in which no "
            f"hidden layer has a mtrl_imgrad.agents.encoders.Dropout; got {encoder.spec.dropout}"
        )
    return encoder
