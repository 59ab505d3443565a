"""A step whose batch comes in parts: `Combiner.accumulate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.absent_tasks import check_on_nonfinite
from mtrl_imgrad.gradients.per_loss.combine import combine
from mtrl_imgrad.gradients.per_loss.inputs import Inputs, ParameterList, Parameters, read_inputs, read_options
from mtrl_imgrad.gradients.per_loss.lists import list_checks_of
from mtrl_imgrad.gradients.per_loss.ranks import check_replicable, errors_told, join, ranks_of, read_local_losses
from mtrl_imgrad.gradients.per_loss.task_gradients import Gathering, differentiate

if TYPE_CHECKING:
    from mtrl_imgrad.combiners.base import Combiner


class Accumulation:
    """The task gradients of a step, gathered over its micro-batches; made by `Combiner.accumulate`.

    Nothing reaches the combiner or ``.grad`` before the ``with`` block ends. An exception inside drops what was
    gathered.

    Attributes:
        combination: how the update came about; None before the block has ended.
        tasks: ids of the tasks gathered so far, ascending: whose weights those of the combination are.

    Args:
        combiner: of the step.
        group: see `Combiner.accumulate`.
        options: those of `read_options` but ``retain_graph``.
    """

    def __init__(self, combiner: Combiner, group: Any, **options: Any) -> None:
        self._ranks = ranks_of(group, None, "accumulate")
        check_on_nonfinite(options["on_nonfinite"], combiner)
        read_options(torch.device("cpu"), **options)
        self.combination: Combination | None = None
        self.tasks: list[int] = []
        self._combiner = combiner
        self._options = options
        self._gathering = Gathering()
        self._inputs: Inputs | None = None
        self._is_open = self._is_used = False

    def backward(
        self,
        losses: Tensor | Sequence[Tensor | None],
        shared: Parameters,
        task_specific: Parameters | None = None,
        *,
        tasks: TaskIds | None = None,
        ignore: Parameters = (),
        retain_graph: bool = False,
        rows: Sequence[float] | Tensor | None = None,
    ) -> None:
        """Differentiate the losses of a micro-batch: a backward a task, whatever the method needs.

        Losses and gradients of a task add up, so divide each loss by the number of micro-batches that it comes in.

        Args:
            losses: those of one task will do.
            shared: the same parameters for all micro-batches.
            task_specific: those of this micro-batch's tasks will do.
            tasks: as in `Combiner.backward`.
            ignore: as in `Combiner.backward`.
            retain_graph: as in `Combiner.backward`.
            rows: of this micro-batch. All ranks make the same number of them.

        Raises:
            ArgumentError: as in `Combiner.backward`, or if the block is over.
        """
        if not self._is_open:
            raise ArgumentError("backward must be called inside the block: with combiner.accumulate() as step: ...")
        with errors_told(self._ranks):
            if rows is not None and self._ranks is None:
                raise ArgumentError("rows goes with accumulate(group=...): a process of its own has all rows")
            inputs = read_inputs(shared, task_specific, ignore)
            check_replicable(inputs, None)
            local = read_local_losses(losses, tasks, rows, inputs.device, may_lack=self._ranks is not None)
            list_checks_of(self._combiner).check(inputs, local.present, warns=self._ranks is None)
            inputs = self._joined(inputs)
            options = read_options(inputs.device, retain_graph=retain_graph, **self._options)
        present = local.present
        if self._ranks is not None:
            inputs, present = join(self._combiner, self._ranks, inputs, options, local)
        differentiate(present, inputs, options, self._gathering)
        self._inputs = inputs
        self.tasks = sorted(self._gathering.losses)

    def _joined(self, inputs: Inputs) -> Inputs:
        """With the tasks' own parameters of the micro-batches before."""
        if self._inputs is None:
            return inputs
        before = self._inputs
        if [*map(id, inputs.shared.tensors)] != [*map(id, before.shared.tensors)]:
            raise ArgumentError("shared must hold the same parameters for all micro-batches of a step")
        known = set(map(id, before.task_specific.tensors))
        new = [i for i, tensor in enumerate(inputs.task_specific.tensors) if id(tensor) not in known]
        task_specific = ParameterList(
            "task_specific",
            before.task_specific.tensors + [inputs.task_specific.tensors[i] for i in new],
            before.task_specific.keys + [inputs.task_specific.keys[i] for i in new],
        )
        return replace(inputs, task_specific=task_specific, exchange=before.exchange)

    def __enter__(self) -> Accumulation:
        if self._is_open or self._is_used:
            raise ArgumentError("an accumulation is for one step: call accumulate() anew for each")
        self._is_open = self._is_used = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        gathering, self._gathering = self._gathering, Gathering()
        inputs, self._inputs = self._inputs, None
        if kind is not None:
            return
        if inputs is None:
            raise ArgumentError("nothing was accumulated: the block must call backward at least once")
        gathering.sort()
        options = read_options(inputs.device, **self._options)
        self.combination = combine(self._combiner, inputs, options, gathering.finish())
