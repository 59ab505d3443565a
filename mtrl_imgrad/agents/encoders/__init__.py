"""Task-conditioned encoders, by name."""

from __future__ import annotations

from typing import Any

from mtrl_imgrad.agents.encoders.base import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.embedding import EmbeddingEncoder
from mtrl_imgrad.agents.encoders.multi_head import MultiHeadEncoder
from mtrl_imgrad.agents.encoders.one_hot import OneHotEncoder
from mtrl_imgrad.errors import ArgumentError, UnknownNameError

__all__ = ["ENCODERS", "Encoder", "NetworkSpec", "list_encoders", "make_encoder"]

ENCODERS: dict[str, type[Encoder]] = {
    encoder.name: encoder
    for encoder in (
        OneHotEncoder,
        MultiHeadEncoder,
        EmbeddingEncoder,
    )
}


def list_encoders() -> list[str]:
    """Names that `make_encoder` accepts."""
    return list(ENCODERS)


def make_encoder(encoder: str | type[Encoder], spec: NetworkSpec, **kwargs: Any) -> Encoder:
    """Build an encoder by name (or from a class of your own).

    Args:
        encoder: a name of `list_encoders`, or an `Encoder` class.
        spec: sizes and tasks.
        kwargs: the encoder's own options.

    Raises:
        UnknownNameError: if there is no encoder of that name.
        ArgumentError: if an option does not exist or is wrong.
    """
    if isinstance(encoder, str):
        if encoder not in ENCODERS:
            raise UnknownNameError("encoder", encoder, ENCODERS)
        encoder = ENCODERS[encoder]
    elif not (isinstance(encoder, type) and issubclass(encoder, Encoder)):
        raise ArgumentError(f"encoder must be a name or an Encoder class, got {encoder!r}")
    try:
        return encoder(spec, **kwargs)
    except TypeError as error:
        raise ArgumentError(f"encoder_kwargs of {encoder.name!r}: {error}") from error
