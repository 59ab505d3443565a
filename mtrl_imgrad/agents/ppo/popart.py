"""PopArt: value targets normalized by task, without a change to what the critic predicts.

van Hasselt, Guez, Hessel, Mnih, Silver, "Learning values across many orders of magnitude", NeurIPS 2016, arXiv
1602.07714; a statistic a task: Hessel et al., "Multi-task Deep Reinforcement Learning with PopArt", AAAI 2019, arXiv
1809.04474.

The value of a state in task k is ``v = sigma_k n + mu_k`` with ``n = scale_k f + shift_k``: f is the output of any
encoder, ``scale`` and ``shift`` are learned, ``mu`` and ``sigma`` follow the targets y of the task. The critic learns n
against ``(y - mu_k) / sigma_k``. When the statistics move to mu' and sigma',

    scale_k' = scale_k sigma_k / sigma_k'        shift_k' = (sigma_k shift_k + mu_k - mu_k') / sigma_k'

leave every v as it was.

Departures from the papers: they correct the last linear layer, of which each task must then own one; the affine layer
here does the same for any encoder. They move the statistics with every target by ``beta``; here N targets of a task
come at once and move them by ``1 - (1 - beta)^N`` towards the N targets' own mean and variance. What the averages
start from does not count (a correction as in Adam), so the first targets set the statistics; and this first time
nothing is corrected. An untrained network's predictions are not worth keeping, and keeping them would leave
``1 / sigma_k`` in ``scale_k``, that is, the tasks' gradients as far apart as their values are.
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn

from mtrl_imgrad.agents.encoders.layers import row_of_task
from mtrl_imgrad.gradients import TaskModule
from mtrl_imgrad.validation import Count, Positive, checked


@checked
class PopArt(TaskModule):
    """The last, affine layer of a critic, and the statistics of each task's value targets.

    Args:
        num_tasks: K.
        beta: step of the statistics for one target (3e-4 is the multi-task paper's).
        min_std: lower bound of sigma (1e-4 is the multi-task paper's).
    """

    mean: Tensor
    """``[K]`` float64: mu."""
    variance: Tensor
    """``[K]`` float64: sigma squared, before its bound."""
    mass: Tensor
    """Scalar float64 in [0, 1): how much of the averages is targets, the rest being their start."""

    def __init__(
        self, num_tasks: Count, beta: Annotated[float, Interval(gt=0, le=1)] = 3e-4, min_std: Positive = 1e-4
    ) -> None:
        super().__init__()
        self.beta = beta
        self.min_std = min_std
        self.scale = nn.Parameter(torch.ones(num_tasks))
        self.shift = nn.Parameter(torch.zeros(num_tasks))
        self.register_buffer("mean", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(num_tasks, dtype=torch.float64))
        self.register_buffer("mass", torch.zeros((), dtype=torch.float64))

    @property
    def std(self) -> Tensor:
        """``[K]`` float64: sigma."""
        return self.variance.sqrt().clamp_min(self.min_std)

    def forward(self, outputs: Tensor, task: Tensor) -> Tensor:
        """Encoder outputs ``[N]`` and one-hot ``[N, K]`` to normalized values ``[N]``."""
        if self.scale.ndim == 0:  # one task's row, see TaskModule
            return outputs * self.scale + self.shift
        index = row_of_task(task)
        return outputs * self.scale[index] + self.shift[index]

    def denormalize(self, values: Tensor, task: Tensor) -> Tensor:
        """Normalized values ``[N]`` and one-hot ``[N, K]`` to values ``[N]`` in the unit of the rewards."""
        index = row_of_task(task)
        return values * self.std[index].to(values.dtype) + self.mean[index].to(values.dtype)

    def normalize(self, values: Tensor) -> Tensor:
        """Values ``[K, N]`` in the unit of the rewards, task-major, to normalized ones."""
        return ((values - self.mean[:, None]) / self.std[:, None]).to(values.dtype)

    @torch.no_grad()
    def update(self, targets: Tensor) -> None:
        """Take in ``[K, N]`` value targets; predictions stay as they are, but for the first time.

        Nothing moves if a target is not finite. No copy to the host.
        """
        targets = targets.double()
        rate = 1 - (1 - self.beta) ** targets.shape[1]  # N steps of size beta as one
        mass = (1 - rate) * self.mass + rate  # weights sum to this: dividing by it removes the start, as in Adam
        weight = torch.where(torch.isfinite(targets).all(), rate / mass, 0.0)
        targets = torch.nan_to_num(targets, posinf=0.0, neginf=0.0)  # of weight zero, but zero times NaN is NaN
        # Moments of a mixture of the old targets and the new ones.
        change = targets.mean(1) - self.mean
        mean = self.mean + weight * change
        variance = (1 - weight) * (self.variance + weight * change.square()) + weight * targets.var(1, correction=0)
        std = variance.sqrt().clamp_min(self.min_std)
        first = self.mass == 0  # predictions before the first targets mean nothing, and are not preserved
        # The values that the outputs stand for stay: scale and shift undo the change of unit.
        self.scale.copy_(torch.where(first, self.scale, self.scale * (self.std / std)))
        self.shift.copy_(torch.where(first, self.shift, (self.std * self.shift + self.mean - mean) / std))
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        self.mass.copy_(torch.where(weight > 0, mass, self.mass))
