"""Networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.supervised.models.backbones import BACKBONES
from mtrl_imgrad.supervised.models.base import TaskModel
from mtrl_imgrad.supervised.models.celeba import AttributeNet
from mtrl_imgrad.supervised.models.cgc import CGC
from mtrl_imgrad.supervised.models.cross_stitch import CrossStitch
from mtrl_imgrad.supervised.models.hard_sharing import HardSharing
from mtrl_imgrad.supervised.models.mmoe import MMoE
from mtrl_imgrad.supervised.models.molecules import MoleculeNet
from mtrl_imgrad.supervised.models.ple import PLE
from mtrl_imgrad.supervised.models.resnet_mtan import ResNetMTAN
from mtrl_imgrad.supervised.models.segnet_cross_stitch import SegNetCrossStitch
from mtrl_imgrad.supervised.models.segnet_mtan import SegNetMTAN
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import checked

Maker = Callable[..., TaskModel]

_ARCHITECTURES = {made.architecture: made for made in (ResNetMTAN, CrossStitch, MMoE, CGC, PLE)}
"""By what follows a backbone's name; hard sharing has that alone."""
_PUBLISHED: dict[str, Maker] = {made.name: made for made in (SegNetMTAN, SegNetCrossStitch, AttributeNet, MoleculeNet)}
"""As the tables have them, in place of what an architecture would make of the backbone."""


def _makers() -> dict[str, Maker]:
    makers: dict[str, Maker] = {}
    for name, backbone in BACKBONES.items():
        makers[name] = partial(HardSharing, backbone)
        for architecture, made in _ARCHITECTURES.items():
            if architecture not in backbone.refuses:
                makers[f"{name}_{architecture}"] = partial(made, backbone)
    return {**makers, **_PUBLISHED}


_MODELS = _makers()


def list_models() -> list[str]:
    """Names that `make_model` accepts: a backbone for hard sharing, with an architecture behind it, and others.

    >>> list_models()[:6]
    ['segnet', 'segnet_mtan', 'segnet_cross_stitch', 'segnet_mmoe', 'segnet_cgc', 'segnet_ple']
    >>> [name for name in list_models() if name.startswith("vit_tiny")]
    ['vit_tiny', 'vit_tiny_cross_stitch', 'vit_tiny_mmoe', 'vit_tiny_cgc', 'vit_tiny_ple']
    """
    return list(_MODELS)


@checked
def make_model(
    name: str, tasks: Sequence[TaskSpec], *, width: float = 1.0, protocol: Protocol = "fixed", **kwargs: Any
) -> TaskModel:
    """A network by name, with torch's global generator behind its first weights.

    >>> model = make_model("segnet", [TaskSpec("depth", "depth", 1)], width=0.125)
    >>> sum(parameter.numel() for parameter in model.parameters())
    392873

    Args:
        name: one of `list_models`.
        tasks: what to predict; one task gives the single-task baseline.
        width: multiplies the number of feature maps; 1 is the published network.
        protocol: ``"paper"`` normalises normals as the published code does, see `DenseHead`.
        kwargs: further arguments of the architecture, such as ``experts=4``.

    Raises:
        UnknownNameError: if there is no network of that name.
        ArgumentError: if the network has no head for a task, ``width`` leaves a layer without feature maps, the
            architecture makes no sense on the backbone, or takes no such argument.
    """
    if name not in _MODELS:
        _refuse(name)
        raise UnknownNameError("model", name, _MODELS)
    accepted = list(inspect.signature(_MODELS[name]).parameters)
    further = [one for one in accepted if one not in ("backbone", "tasks", "width", "protocol")]
    if odd := sorted(set(kwargs) - set(further)):
        raise ArgumentError(
            f"model {name!r} takes no argument {odd[0]!r}; beside width it takes {', '.join(further) or 'none'}"
        )
    return _MODELS[name](tasks, width=width, protocol=protocol, **kwargs)


def _refuse(name: str) -> None:
    """Say why, where backbone and architecture are known but do not go together."""
    for backbone in BACKBONES.values():
        for architecture, reason in backbone.refuses.items():
            if name == f"{backbone.name}_{architecture}":
                fitting = [one for one in _MODELS if one.startswith(backbone.name)]
                raise ArgumentError(
                    f"name must be of an architecture that goes with {backbone.name}, got {name!r}: {architecture} "
                    f"does not, {reason}; take one of {', '.join(fitting)}"
                )
