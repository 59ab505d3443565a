"""How K task gradients are taken and applied, for agents and supervised training alike."""

from mtrl_imgrad.gradients.per_loss import Heads
from mtrl_imgrad.gradients.vectorized import (
    CombinedGradients,
    ParameterIndex,
    Parameters,
    RowGradients,
    TaskLoss,
    TaskModule,
    by_rows,
    combine_rows,
    combined_by_rows,
    over_tasks,
    split_parameters,
)

__all__ = [
    "CombinedGradients",
    "Heads",
    "ParameterIndex",
    "Parameters",
    "RowGradients",
    "TaskLoss",
    "TaskModule",
    "by_rows",
    "combine_rows",
    "combined_by_rows",
    "over_tasks",
    "split_parameters",
]
