"""Adam by task, and on one learnable number a task.

Every task has its own moments and its own count of steps, so the number of a task that is absent from a step does not
move, and bias corrections count the steps that the task was present for. With all tasks present the numbers are those
of ``torch.optim.Adam`` (tested). No device sync.
"""

from __future__ import annotations

from torch import Tensor

from mtrl_imgrad.combiners.gramian import scale_rows
from mtrl_imgrad.combiners.state.parts import Parts
from mtrl_imgrad.combiners.state.tables import TaskIds, TaskTable
from mtrl_imgrad.validation import NonNegative, checked

# PyTorch's.
BETAS = (0.9, 0.999)
EPSILON = 1e-8


def adam_step(
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    steps: Tensor,
    betas: tuple[float, float] = BETAS,
    eps: float = EPSILON,
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam's direction and its moments after a gradient, all ``[K, *shape]``.

    Args:
        gradient: of K tasks.
        mean: first moment before it.
        square: second moment before it.
        steps: ``[K]`` float64, how many gradients each task has had with this one.
        betas: decay of the moments.
        eps: added to the root of the second moment.
    """
    mean = mean.lerp(gradient, 1 - betas[0])
    square = betas[1] * square + (1 - betas[1]) * gradient * gradient
    size = scale_rows(square, 1 / (1 - betas[1] ** steps)).sqrt() + eps
    return scale_rows(mean, 1 / (1 - betas[0] ** steps)) / size, mean, square


@checked
class TaskAdam(Parts):
    """One number a task and its moments; a part of a combiner's state.

    Args:
        first: what a new task's number is.
        learning_rate: of Adam, >= 0.
        weight_decay: times the number is added to its gradient (L2, as in ``torch.optim.Adam``), >= 0.
    """

    def __init__(self, first: float, learning_rate: NonNegative, weight_decay: NonNegative = 0.0) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self._numbers = TaskTable(first)
        self._means, self._squares, self._steps = TaskTable(), TaskTable(), TaskTable()

    def numbers(self, like: Tensor, tasks: TaskIds | None) -> Tensor:
        """``[K]`` float64: the numbers of ``tasks``, on the device of ``like`` [K]."""
        return self._numbers.rows(like, tasks)

    def step(self, gradient: Tensor, tasks: TaskIds | None, where: Tensor) -> None:
        """Go one step downhill.

        Args:
            gradient: ``[K]``, of the numbers of ``tasks``.
            tasks: K task ids, or None.
            where: a flag, or ``[K]`` flags: nothing of a task changes where it is false.
        """
        numbers = self._numbers.rows(gradient, tasks)
        gradient = gradient + self.weight_decay * numbers
        steps = self._steps.rows(gradient, tasks) + 1
        moments = self._means.rows(gradient, tasks), self._squares.rows(gradient, tasks)
        direction, means, squares = adam_step(gradient, *moments, steps)
        for table, rows in (
            (self._numbers, numbers - self.learning_rate * direction),
            (self._means, means),
            (self._squares, squares),
            (self._steps, steps),
        ):
            table.write(rows, tasks, where)
