"""AdaTask: an adaptive learning rate a task, by keeping the optimizer's moments of each task apart.

Yang, Pan, Wang, Yu, Shen, Chen, Xiao, Jiang, Guo, "AdaTask: A Task-aware Adaptive Learning Rate Approach to Multi-task
Learning", AAAI 2023, arXiv 2211.15055.

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

from mtrl_imgrad.combiners.arguments import check_choice, check_number
from mtrl_imgrad.combiners.base import Combination, MatrixCombiner, Reduction, TaskIds
from mtrl_imgrad.combiners.checks import Jacobian, blocks_of
from mtrl_imgrad.combiners.families.matrix import BlockTable, combination, row_norms, scale_rows, wide
from mtrl_imgrad.combiners.state.tables import TaskTable
from mtrl_imgrad.errors import ArgumentError

__all__ = ["AdaTask"]

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

    Raises:
        ArgumentError: if an argument is not one of those listed.
    """

    name = "adatask"
    returns_step = True
    keeps = ("first_moments", "second_moments", "steps")
    departures = "Mean in place of the sum of the tasks' steps; a task's steps count only when it is there."
    paper = (
        "Enneng Yang, Junwei Pan, Ximei Wang, Haibin Yu, Li Shen, Xihua Chen, Lei Xiao, Jie Jiang and Guibing Guo. "
        "AdaTask: A Task-aware Adaptive Learning Rate Approach to Multi-task Learning. AAAI 2023. arXiv:2211.15055"
    )

    def __init__(
        self,
        algorithm: Literal["adam", "adagrad", "rmsprop"] = "adam",
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        alpha: float = 0.99,
        eps: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        check_choice("algorithm", algorithm, tuple(_EPS))
        self.algorithm = algorithm
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ArgumentError(f"betas must be two numbers, got {betas!r}")
        self.betas = (_decay("betas", betas[0]), _decay("betas", betas[1]))
        self.alpha = _decay("alpha", alpha)
        self.eps = None if eps is None else check_number("eps", eps, 0, closed=False)
        self._first, self._second = BlockTable(), self._keep("second_moments", BlockTable())
        self._steps = self._keep("steps", TaskTable())
        if algorithm == "adam":
            self._keep("first_moments", self._first)

    def combine(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """See `Combiner.combine`.

        Raises:
            ArgumentError: if the parameters are not those of the last step.
        """
        blocks = [wide(block) for block in blocks_of(jacobian)]
        norms = row_norms(blocks)
        finite = torch.isfinite(norms).all()
        steps = self._steps.rows(norms, tasks) + 1
        adam = self.algorithm == "adam"
        numerators = self._first_moments(blocks, steps, finite, tasks) if adam else blocks
        denominators = self._second_moments(blocks, steps, finite, tasks)
        self._steps.write(steps, tasks, finite)
        eps = _EPS[self.algorithm] if self.eps is None else self.eps
        total = [(m / (v.sqrt() + eps)).sum(0) for m, v in zip(numerators, denominators, strict=True)]
        factor = 1.0 if self.reduction == "sum" else 1 / len(norms)
        return combination(jacobian, [factor * part for part in total], finite)

    def _first_moments(
        self, blocks: list[Tensor], steps: Tensor, finite: Tensor, tasks: TaskIds | None
    ) -> list[Tensor]:
        """Running means, corrected for their start at zero."""
        beta = self.betas[0]
        moments = [old.lerp(new, 1 - beta) for old, new in zip(self._first.rows(blocks, tasks), blocks, strict=True)]
        self._first.write(moments, tasks, finite)
        return [scale_rows(moment, 1 / (1 - beta**steps)) for moment in moments]

    def _second_moments(
        self, blocks: list[Tensor], steps: Tensor, finite: Tensor, tasks: TaskIds | None
    ) -> list[Tensor]:
        """Running mean squares, for Adam corrected for their start at zero; for Adagrad sums of squares."""
        keep, take = {
            "adam": (self.betas[1], 1 - self.betas[1]),
            "adagrad": (1.0, 1.0),
            "rmsprop": (self.alpha, 1 - self.alpha),
        }[self.algorithm]
        before = self._second.rows(blocks, tasks)
        moments = [keep * old + take * new * new for old, new in zip(before, blocks, strict=True)]
        self._second.write(moments, tasks, finite)
        if self.algorithm != "adam":
            return moments
        return [scale_rows(moment, 1 / (1 - self.betas[1] ** steps)) for moment in moments]


def _decay(argument: str, value: float) -> float:
    if check_number(argument, value, 0, 1) == 1:
        raise ArgumentError(f"{argument} must be below 1, got {value!r}")
    return float(value)
