"""How K task gradients are taken, combined and applied, for agents and supervised training alike."""

from mtrl_imgrad.gradients.combining import CombinedGradients, combine_rows, weighted_gradients
from mtrl_imgrad.gradients.network_update import NetworkUpdate, StepSettings
from mtrl_imgrad.gradients.parameters import ParameterIndex, Parameters, TaskModule, split_parameters
from mtrl_imgrad.gradients.per_loss import Heads
from mtrl_imgrad.gradients.vectorized import RowGradients, TaskLoss, by_rows, over_tasks

__all__ = [
    "CombinedGradients",
    "Heads",
    "NetworkUpdate",
    "ParameterIndex",
    "Parameters",
    "RowGradients",
    "StepSettings",
    "TaskLoss",
    "TaskModule",
    "by_rows",
    "combine_rows",
    "over_tasks",
    "split_parameters",
    "weighted_gradients",
]
