"""AdaTask: an adaptive learning rate a task, by keeping the optimizer's moments of each task apart.

Yang et al., AAAI 2023, arXiv 2211.15055.

An adaptive optimizer divides by a running size of the *summed* gradient, in which a task with large gradients drowns
the others. AdaTask takes an optimizer's step for each task, with moments of its own, and adds the steps up. For Adam,
in every entry of the shared parameters:

    m_i <- b1 m_i + (1 - b1) g_i,    v_i <- b2 v_i + (1 - b2) g_i^2,
    d = sum_i (m_i / (1 - b1^t)) / (sqrt(v_i / (1 - b2^t)) + eps) / K.

Adagrad: ``v_i <- v_i + g_i^2``, ``d = sum_i g_i / (sqrt(v_i) + eps) / K``. RMSprop: ``v_i <- a v_i + (1 - a) g_i^2``,
same d. So d is the step itself, to be followed by a plain ``torch.optim.SGD(lr)``; with one task that is the
optimizer.

Departures from the authors' code: the sum is divided by K, so that a learning rate means what it means for the
optimizer of one task (theirs is the sum: ``reduction="sum"``); t counts the steps that a task was there for; no weight
decay (give it to SGD, where it is decoupled from the moments).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners.checks import Jacobian, blocks_of
from mtrl_imgrad.combiners.families.matrix import MatrixCombiner, combination, row_norms, wide
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.block_table import BlockTable
from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable
from mtrl_imgrad.combiners.state.task_adam import adam_step
from mtrl_imgrad.validation import Positive, Rate

_EPS = {"adam": 1e-8, "adagrad": 1e-10, "rmsprop": 1e-8}
"""PyTorch's."""


class AdaTask(MatrixCombiner):
    """Sum of one adaptive step a task, to be used with ``torch.optim.SGD``. With one task d is the optimizer's step.

    It keeps one (Adagrad, RMSprop) or two (Adam) copies of the Jacobian, so every step must bring the same parameters.
    What comes out has the optimizer's scale, not the gradients'.

    Args:
        algorithm: ``"adam"``, ``"adagrad"`` or ``"rmsprop"``, as in ``torch.optim``.
        betas: decay of Adam's first and second moment, in [0, 1).
        alpha: decay of RMSprop's second moment, in [0, 1).
        eps: added to the roots; None takes PyTorch's: 1e-8, for Adagrad 1e-10.
        reduction: ``"mean"`` or ``"sum"`` (the authors'; the step is then up to K times as long).
    """

    name = "adatask"
    returns_step = True
    departures = "Mean in place of the sum of the tasks' steps; a task's steps count only when it is there."
    citation = "yang2023adatask"

    def __init__(
        self,
        algorithm: Literal["adam", "adagrad", "rmsprop"] = "adam",
        *,
        betas: tuple[Rate, Rate] = (0.9, 0.999),
        alpha: Rate = 0.99,
        eps: Positive | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.algorithm = algorithm
        self.betas = betas
        self.alpha = alpha
        self.eps = eps
        if algorithm == "adam":
            self._first_moments = BlockTable()
        self._second_moments, self._steps = BlockTable(), TaskTable()

    def combine(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """See `Combiner.combine`.

        Raises:
            ArgumentError: if the parameters are not those of the last step.
        """
        blocks = [wide(block) for block in blocks_of(jacobian)]
        norms = row_norms(blocks)
        finite = torch.isfinite(norms).all()
        steps = self._steps.rows(norms, tasks) + 1
        self._steps.write(steps, tasks, finite)
        directions = (self._adam if self.algorithm == "adam" else self._scaled)(blocks, steps, finite, tasks)
        factor = 1.0 if self.reduction == "sum" else 1 / len(norms)
        return combination(jacobian, [factor * direction.sum(0) for direction in directions], finite)

    def _adam(self, blocks: list[Tensor], steps: Tensor, finite: Tensor, tasks: TaskIds | None) -> list[Tensor]:
        moments = self._first_moments.rows(blocks, tasks), self._second_moments.rows(blocks, tasks)
        moved = [adam_step(*one, steps, self.betas, self._eps) for one in zip(blocks, *moments, strict=True)]
        directions, means, squares = map(list, zip(*moved, strict=True))
        self._first_moments.write(means, tasks, finite)
        self._second_moments.write(squares, tasks, finite)
        return directions

    def _scaled(self, blocks: list[Tensor], steps: Tensor, finite: Tensor, tasks: TaskIds | None) -> list[Tensor]:
        """The gradients over the root of their sum of squares (Adagrad) or running mean square (RMSprop)."""
        keep, take = (1.0, 1.0) if self.algorithm == "adagrad" else (self.alpha, 1 - self.alpha)
        before = self._second_moments.rows(blocks, tasks)
        squares = [keep * old + take * new * new for old, new in zip(before, blocks, strict=True)]
        self._second_moments.write(squares, tasks, finite)
        return [block / (square.sqrt() + self._eps) for block, square in zip(blocks, squares, strict=True)]

    @property
    def _eps(self) -> float:
        return _EPS[self.algorithm] if self.eps is None else self.eps
