"""A trunk's first weights from a local file."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.models.base import TaskModel
from mtrl_imgrad.supervised.models.trunk import Trunk
from mtrl_imgrad.validation import checked


@checked
def load_backbone(model: TaskModel, path: str | os.PathLike[str]) -> None:
    """Take the first weights of a network's trunk from a local file, in the names of torchvision and timm.

    Nothing is downloaded, and reading the file runs no code of it. Experts and stitched networks all start alike.

    Args:
        model: on a ResNet or a ViT, of width 1.
        path: a state dictionary, as ``torch.save`` or safetensors writes it; its last dense layer is left out.

    Raises:
        ArgumentError: if the network has no such trunk, or the file cannot be read or is that of another network; the
            network is as it was.
    """
    path = Path(path).expanduser()
    trunks = [trunk for trunk in model.modules() if isinstance(trunk, Trunk) and trunk.has_published_weights]
    if not trunks:
        raise ArgumentError(f"model must be on a ResNet or a ViT to take weights of a file, got {model.name!r}")
    before = [{name: value.clone() for name, value in trunk.state_dict().items()} for trunk in trunks]
    try:
        state = _read_state(path)
        _check_names(state)
        for trunk in trunks:
            trunk.load_published(state)
    except Exception as error:  # torch, pickle and safetensors raise what they like for a damaged file
        for trunk, own in zip(trunks, before, strict=True):
            trunk.load_state_dict(own)
        cause = textwrap.shorten(str(error), 200)
        raise ArgumentError(f"path: {path} does not hold the weights of {model.name} ({cause})") from error


def _check_names(state: Any) -> None:
    """Whether it is parameters by name, and not a training's checkpoint or a wrapper's."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        found = f"entries {', '.join(map(str, state))}" if isinstance(state, Mapping) else f"a {type(state).__name__}"
        raise ValueError(f"{found}; expected tensors by name: save that entry alone")
    first = next(iter(state), "").partition(".")[0] + "."
    if len(state) > 1 and all(name.startswith(first) for name in state):
        raise ValueError(f"all names begin with {first!r}; save them without")


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
