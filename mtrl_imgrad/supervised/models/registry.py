"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mtrl_imgrad.errors import UnknownNameError
from mtrl_imgrad.supervised.models.backbones import ResNet18, ResNet50
from mtrl_imgrad.supervised.models.base import TaskModel
from mtrl_imgrad.supervised.models.celeba import AttributeNet
from mtrl_imgrad.supervised.models.cross_stitch import SegNetCrossStitch
from mtrl_imgrad.supervised.models.molecules import MoleculeNet
from mtrl_imgrad.supervised.models.mtan import SegNetMTAN
from mtrl_imgrad.supervised.models.segnet import SegNet
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import checked

__all__ = ["list_models", "make_model"]

_OURS = (SegNet, SegNetMTAN, SegNetCrossStitch, AttributeNet, MoleculeNet, ResNet18, ResNet50)
_MODELS: dict[str, Callable[..., TaskModel]] = {model.name: model for model in _OURS}


def list_models() -> list[str]:
    """Names that `make_model` accepts.

    >>> list_models()
    ['segnet', 'segnet_mtan', 'segnet_cross_stitch', 'attribute_net', 'molecule_net', 'resnet18', 'resnet50']
    """
    return list(_MODELS)


@checked
def make_model(name: str, tasks: Sequence[TaskSpec], *, width: float = 1.0, protocol: Protocol = "fixed") -> TaskModel:
    """A network by name, with torch's global generator behind its first weights.

    >>> model = make_model("segnet", [TaskSpec("depth", "depth", 1)], width=0.125)
    >>> sum(parameter.numel() for parameter in model.parameters())
    392873

    Args:
        name: one of `list_models`.
        tasks: what to predict; one task gives the single-task baseline.
        width: multiplies the number of feature maps; 1 is the published network.
        protocol: ``"paper"`` normalises normals as the published code does, see `DenseHead`.

    Raises:
        UnknownNameError: if there is no network of that name.
        ArgumentError: if the network has no head for a task, or ``width`` leaves a layer without feature maps.
    """
    if name not in _MODELS:
        raise UnknownNameError("model", name, _MODELS)
    return _MODELS[name](tasks, width=width, protocol=protocol)
