"""The way of a gradient: from K losses of one network to its optimizer's step.

    update = NetworkUpdate(critic, combiner, critic_loss, StepSettings(max_grad_norm=1.0))
    combined = update.gradients(observations, targets)   # task losses -> task gradients -> combiner
    finite = update.write(combined)                      # clip, put into .grad
    update.step(finite)                                  # optimizer, without a device sync
    update.after_step(combined, observations, targets)

An agent writes the loss of one task and calls these in its own order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtrl_imgrad.combiners import Combiner
from mtrl_imgrad.gradients.absent_tasks import OnNonFinite, after_step
from mtrl_imgrad.gradients.combining import CombinedGradients, combine_rows, weighted_gradients
from mtrl_imgrad.gradients.conditional_step import step_where
from mtrl_imgrad.gradients.execution import Execution
from mtrl_imgrad.gradients.heads import Heads
from mtrl_imgrad.gradients.parameters import ParameterIndex, Parameters
from mtrl_imgrad.gradients.tracing import Traced, TracedPullBack
from mtrl_imgrad.gradients.vectorized import (
    DifferentiableLosses,
    RowGradients,
    TaskLoss,
    by_rows,
    differentiable_losses,
    over_tasks,
)
from mtrl_imgrad.validation import checked


@dataclass(frozen=True)
class StepSettings:
    """The settings of a network's steps.

    Attributes:
        heads: how task-specific parameters take their gradient, see `mtrl_imgrad.gradients.combine_rows`.
        max_grad_norm: clip the combined gradient of the network to this length; None does not clip.
        on_nonfinite: what becomes of a step in which a task's loss or gradient is not finite.
    """

    heads: Heads = "unweighted"
    max_grad_norm: float | None = None
    on_nonfinite: OnNonFinite = "raise"


@checked
class NetworkUpdate:
    """One network's step: per-task gradients, their combination, clipping, the optimizer.

    Args:
        network: has an ``optimizer``; its `mtrl_imgrad.gradients.TaskModule` layers hold the tasks' own parameters.
        combiner: what turns K gradients (or losses) into one.
        loss: of one task, ``loss(parameters, *rows) -> (scalar, auxiliary tensors)``. All tensors that it uses must be
            arguments.
        settings: may be changed between steps.
        execution: how the gradients' operations are run; by default recorded once and replayed.
    """

    def __init__(
        self,
        network: nn.Module,
        combiner: Combiner,
        loss: TaskLoss,
        settings: StepSettings,
        execution: Execution | None = None,
    ) -> None:
        self.network = network
        self.combiner = combiner
        self.settings = settings
        self._loss = loss
        self._index = ParameterIndex(network)
        self._jacobian = Traced(self._compute_jacobian, execution)
        self._differentiable_losses = TracedPullBack(self._compute_differentiable_losses, execution)
        self._losses = Traced(self._compute_losses, execution)

    def parameters(self) -> Parameters:
        """The network's parameters as they are now, detached."""
        return self._index.split()

    def gradients(self, *rows: Any, jacobian: bool = False) -> CombinedGradients:
        """One gradient for every parameter.

        Where the combiner can do without the task gradients (`Combiner.needs_jacobian`) this is one plain backward of
        the weighted loss.

        Args:
            rows: of the loss, task-major ``[K, ...]``; another network's `Parameters` are constants.
            jacobian: take the task gradients even for a combiner that does without, for diagnostics.
        """
        parameters, settings = self._index.split(), self.settings
        # Only its own gradients tell which task is not finite.
        jacobian = jacobian or settings.on_nonfinite != "raise"
        if not jacobian and not self.combiner.needs_jacobian():
            differentiable = self._differentiable_losses(parameters, *rows)
            return weighted_gradients(self.combiner, differentiable, parameters, settings.heads)
        return combine_rows(self.combiner, self._jacobian(parameters, *rows), settings.heads, settings.on_nonfinite)

    def write(self, combined: CombinedGradients) -> Tensor:
        """Put the gradients, clipped, into ``.grad``.

        Returns:
            Scalar bool, on the device: whether they are finite; True for a skipped step, which has none.
        """
        written = self._index.assign(combined.gradients)
        if not written:
            return torch.ones((), dtype=torch.bool, device=combined.losses.device)
        norm = nn.utils.get_total_norm([parameter.grad for parameter in written])  # type: ignore[misc]
        if self.settings.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(written, self.settings.max_grad_norm, norm)
        return torch.isfinite(norm)

    def step(self, wanted: Tensor) -> None:
        """Step the optimizer where the scalar bool ``wanted`` is True; without gradients nothing moves."""
        step_where(self.network.optimizer, wanted)  # type: ignore[arg-type]

    def after_step(self, combined: CombinedGradients, *rows: Any) -> None:
        """Tell the combiner the losses of the same batch after the step, if it looks at them.

        Args:
            combined: what `gradients` returned.
            rows: what it was given.
        """
        if self.combiner.needs_losses_after_step and not combined.combination.skipped:
            after_step(self.combiner, combined.combination, self._losses(self._index.split(), *rows))

    # Pure functions of their arguments: only the network's structure is captured.

    def _compute_jacobian(self, parameters: Parameters, *rows: Any) -> RowGradients:
        return by_rows(self._loss, parameters, *rows)

    def _compute_differentiable_losses(self, parameters: Parameters, *rows: Any) -> DifferentiableLosses:
        return differentiable_losses(self._loss, parameters, *rows)

    def _compute_losses(self, parameters: Parameters, *rows: Any) -> Tensor:
        return over_tasks(self._loss, parameters, *rows)[0]
