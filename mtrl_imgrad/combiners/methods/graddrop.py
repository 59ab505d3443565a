"""GradDrop, gradient sign dropout: every entry of the update takes part only from tasks that agree on its sign.

Chen et al., NeurIPS 2020, arXiv 2010.06808, algorithm 1.

For each entry, ``P = (1 + sum_i g_i / sum_i |g_i|) / 2`` is the share of positive parts and U is uniform on [0, 1).
Where ``U < P`` the positive parts are kept, elsewhere the negative ones:

    d = sum_i (l_i + (1 - l_i) keep_i) g_i / K,

with the leak ``l_i`` of task i, the part of its gradient that is never dropped. In the mean over U, with no leak,
``E d = (p^2 - n^2) / (p + n) / K`` for an entry with positive parts of sum p and negative ones of sum -n.

Departures from the authors' method: it acts on the gradients of the shared parameters (in the paper on those of the
activations, multiplied by the activations' signs; ``backward(features=...)`` combines there, without that factor); the
sum is divided by K (theirs is ``reduction="sum"``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor

from mtrl_imgrad.combiners.checks import Jacobian, blocks_of
from mtrl_imgrad.combiners.columns import own_columns, with_blocks
from mtrl_imgrad.combiners.families.matrix import MatrixCombiner, combination, row_norms, wide
from mtrl_imgrad.combiners.gramian import scale_rows
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.randomness import uniform
from mtrl_imgrad.combiners.state.tables import TaskIds, values_of_tasks
from mtrl_imgrad.validation import Probability, Seed


class GradDrop(MatrixCombiner):
    """Mean of the task gradients, in each entry only of those of one sign, drawn at random. With one task ``d = g``.

    One uniform number an entry is drawn on the device of the gradients. It comes from a generator that is seeded anew
    for each step, by a number from the combiner's own generator on the host: so the device is never asked, the state
    is that of one host generator, and one matrix and its blocks see the same numbers. Devices of different kinds draw
    different numbers.

    Args:
        leak: part of a gradient that is never dropped, in [0, 1]; one for all tasks, or one for each task id.
        seed: of the generator; None (default): the run's, see `Combiner.set_random_seed`.
        reduction: ``"mean"`` or ``"sum"`` (the authors').
    """

    name = "graddrop"
    by_columns = True
    per_task = ("leak",)
    departures = "Acts on the shared parameters in place of activations; mean in place of the sum."
    citation = "chen2020just"

    def __init__(
        self,
        leak: Probability | Annotated[Sequence[Probability], MinLen(1)] = 0.0,
        *,
        seed: Seed | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.leak = tuple(map(float, leak)) if isinstance(leak, Sequence) else leak
        self._generator = self._seed_generator(seed)

    def combine(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """See `Combiner.combine`.

        Raises:
            ArgumentError: if there is no leak for a task.
        """
        blocks = blocks_of(jacobian)
        blocks = with_blocks(blocks, map(wide, blocks))
        num_tasks = len(blocks[0])
        leak: float | Sequence[float] = self.leak
        if isinstance(leak, Sequence):
            leak = values_of_tasks("leak", leak, num_tasks, tasks)
        factor = 1.0 if self.reduction == "sum" else 1 / num_tasks
        numbers = own_columns(blocks, lambda count: uniform(count, blocks[0].device, self._generator))
        gradient = [factor * _picked(block, number, leak) for block, number in zip(blocks, numbers, strict=True)]
        norms = row_norms(blocks)
        return combination(jacobian, gradient, torch.isfinite(norms).all(), zero=(norms == 0).all())


def _picked(block: Tensor, number: Tensor, leak: float | Sequence[float]) -> Tensor:
    """Sum over the tasks of what is kept; ``number`` [*shape] is uniform on [0, 1)."""
    positive, negative = block.clamp_min(0), block.clamp_max(0)
    up, down = positive.sum(0), negative.sum(0)
    share = up / (up - down)  # NaN where all parts are zero; what is picked there is zero in any case
    if leak == 0.0:
        return torch.where(number < share, up, down)
    leaks = (
        torch.as_tensor(leak, dtype=block.dtype, device="cpu").expand(len(block)).to(block.device, non_blocking=True)
    )
    up, down = scale_rows(positive, 1 - leaks).sum(0), scale_rows(negative, 1 - leaks).sum(0)
    return scale_rows(block, leaks).sum(0) + torch.where(number < share, up, down)
