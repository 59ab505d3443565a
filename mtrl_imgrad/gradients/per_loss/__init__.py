"""From K losses to ``.grad``: what `Combiner.backward` does, for any model and any optimizer.

Three ways lead to the gradient of the shared parameters; the combiner's needs and the caller's wish decide:

* **by weights**: the combiner knows its weights from the losses (or from an earlier step): one backward of the weighted
  sum;
* **by losses**: one backward a task over one graph, which is freed at the last. A method that samples its tasks gets
  the mean losses of a few groups differentiated in place of all K;
* **by features**: K backwards through the heads down to a shared representation, gradients are combined there, and one
  backward takes the result through the trunk. Sener and Koltun (NeurIPS 2018, arXiv 1810.04650) do so for MGDA
  (MGDA-UB). It is another method than combining at the parameters: the Gramian is that of the representation.

Modules in the order in which a step passes them: `inputs` (reads the arguments), `lists` and `graph` (is a parameter
forgotten?), `step` (which way), `task_gradients` (the K gradients), `combine`, `write` (``.grad``). `accumulate` is the
step whose batch comes in parts.

In reinforcement learning, where every task owns its rows of the batch, `mtrl_imgrad.gradients` beats all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.gradients.absent_tasks import OnNonFinite, check_on_nonfinite
from mtrl_imgrad.gradients.heads import Heads
from mtrl_imgrad.gradients.per_loss.accumulate import Accumulation
from mtrl_imgrad.gradients.per_loss.inputs import (
    Parameters,
    read_inputs,
    read_options,
)
from mtrl_imgrad.gradients.per_loss.lists import list_checks_of
from mtrl_imgrad.gradients.per_loss.ranks import (
    check_replicable,
    errors_told,
    join,
    ranks_of,
    read_local_losses,
)
from mtrl_imgrad.gradients.per_loss.step import Step

if TYPE_CHECKING:
    from mtrl_imgrad.combiners.base import Combiner

__all__ = ["Accumulation", "Parameters", "backward"]


def backward(
    combiner: Combiner,
    losses: Tensor | Sequence[Tensor | None],
    shared: Parameters,
    task_specific: Parameters | None = None,
    *,
    features: Tensor | Sequence[Tensor] | None = None,
    heads: Heads = "unweighted",
    max_grad_norm: float | None = None,
    tasks: TaskIds | None = None,
    ignore: Parameters = (),
    grad_scaler: torch.amp.GradScaler | None = None,
    retain_graph: bool = False,
    on_nonfinite: OnNonFinite = "raise",
    group: Any = None,
    rows: Sequence[float] | Tensor | None = None,
) -> Combination:
    """Differentiate K losses and add the combined gradient to ``.grad``; see `Combiner.backward` for the arguments.

    Rows of tasks that do not use a parameter are zero there; a parameter that no task uses keeps its ``.grad``.
    """
    ranks = ranks_of(group, rows, "backward")
    with errors_told(ranks):
        check_on_nonfinite(on_nonfinite, combiner)
        inputs = read_inputs(shared, task_specific, ignore, features)
        options = read_options(heads, max_grad_norm, on_nonfinite, grad_scaler, inputs.device, retain_graph)
        check_replicable(inputs, combiner if ranks else None)
        local = read_local_losses(losses, tasks, rows, inputs.device, may_lack=ranks is not None)
        list_checks_of(combiner).check(inputs, local.present, warns=ranks is None)
    present = local.present
    if ranks is not None:
        inputs, present = join(combiner, ranks, inputs, options, local)
    return Step(combiner, inputs, options, present).make()
