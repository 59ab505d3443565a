"""How K task gradients are taken, combined and applied, for agents and supervised training alike.

                    agents: NetworkUpdate                        any model: Combiner.backward
    losses          one loss for a task, vmapped                 K losses on one graph
                    `vectorized.by_rows`                         `per_loss.task_gradients`
    task gradients  [K, *shape] for each parameter               [K, *shape] for each parameter
                    `absent_tasks`: NaN or inf raises, skips the step, or drops the task
    combiner        `Combiner.combine`
                    `combining.combine_rows`                     `per_loss.combine`
    .grad           `NetworkUpdate.write`                        `per_loss.write`
    optimizer       `conditional_step.step_where`                the caller's
    losses after    `absent_tasks.after_step`: `Combiner.after_step` for the tasks of the step

Where the combiner knows its weights from the losses (`Combiner.needs_jacobian` is False), one backward of the weighted
sum takes the place of the task gradients: `combining.weighted_gradients`, `per_loss.step`.
"""

from mtrl_imgrad.gradients.combining import CombinedGradients, combine_rows, weighted_gradients
from mtrl_imgrad.gradients.execution import Execution, Precision
from mtrl_imgrad.gradients.heads import Heads
from mtrl_imgrad.gradients.network_update import NetworkUpdate, StepSettings
from mtrl_imgrad.gradients.parameters import ParameterIndex, Parameters, TaskModule, split_parameters
from mtrl_imgrad.gradients.vectorized import (
    DifferentiableLosses,
    RowGradients,
    TaskLoss,
    by_rows,
    differentiable_losses,
    over_tasks,
)

__all__ = [
    "CombinedGradients",
    "DifferentiableLosses",
    "Execution",
    "Heads",
    "NetworkUpdate",
    "ParameterIndex",
    "Parameters",
    "Precision",
    "RowGradients",
    "StepSettings",
    "TaskLoss",
    "TaskModule",
    "by_rows",
    "combine_rows",
    "differentiable_losses",
    "over_tasks",
    "split_parameters",
    "weighted_gradients",
]
