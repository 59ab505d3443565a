"""Networks for several visual tasks at once, by name, and whose parameters are whose."""

from mtrl_imgrad.supervised.models.base import FeatureModel, TaskModel
from mtrl_imgrad.supervised.models.registry import list_models, make_model
from mtrl_imgrad.supervised.models.sharing import ParameterSplit, SharingRule, split_parameters
from mtrl_imgrad.supervised.models.weights import load_backbone

__all__ = [
    "FeatureModel",
    "ParameterSplit",
    "SharingRule",
    "TaskModel",
    "list_models",
    "load_backbone",
    "make_model",
    "split_parameters",
]
