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

from torch import Tensor

from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.gradients.absent_tasks import check_on_nonfinite
from mtrl_imgrad.gradients.per_loss.accumulate import Accumulation
from mtrl_imgrad.gradients.per_loss.inputs import Parameters, read_inputs, read_options
from mtrl_imgrad.gradients.per_loss.lists import list_checks_of
from mtrl_imgrad.gradients.per_loss.ranks import check_replicable, errors_told, join, ranks_of, read_local_losses
from mtrl_imgrad.gradients.per_loss.step import Step

if TYPE_CHECKING:
    from mtrl_imgrad.combiners.base import Combiner

__all__ = ["Accumulation", "Parameters", "backward"]


def backward(
    combiner: Combiner,
    losses: Tensor | Sequence[Tensor | None],
    shared: Parameters,
    task_specific: Parameters | None,
    *,
    features: Tensor | Sequence[Tensor] | None,
    tasks: TaskIds | None,
    ignore: Parameters,
    group: Any,
    rows: Sequence[float] | Tensor | None,
    **options: Any,
) -> Combination:
    """Differentiate K losses and add the combined gradient to ``.grad``; see `Combiner.backward` for the arguments.

    Rows of tasks that do not use a parameter are zero there; a parameter that no task uses keeps its ``.grad``.
    ``options`` are those of `read_options`.
    """
    ranks = ranks_of(group, rows, "backward")
    with errors_told(ranks):
        check_on_nonfinite(options["on_nonfinite"], combiner)
        inputs = read_inputs(shared, task_specific, ignore, features)
        chosen = read_options(inputs.device, **options)
        check_replicable(inputs, combiner if ranks else None)
        local = read_local_losses(losses, tasks, rows, inputs.device, may_lack=ranks is not None)
        list_checks_of(combiner).check(inputs, local.present, warns=ranks is None)
    present = local.present
    if ranks is not None:
        inputs, present = join(combiner, ranks, inputs, chosen, local)
    return Step(combiner, inputs, chosen, present).make()
