"""The base of all combiners: K task gradients (or losses) in, one update and its certificate out.

Three families in `mtrl_imgrad.combiners.families` say what a method asks for, and so what a step costs:

* `GramianCombiner` needs only the K x K inner products of the task gradients;
* `MatrixCombiner` needs the gradients entry by entry;
* `LossCombiner` needs the K losses only and never pays for per-task gradients.

Conventions, the same for all of them:

* ``K`` tasks, ``P`` shared parameters, ``G`` the Jacobian ``[K, P]`` whose row k is task k's gradient,
  ``M = G @ G.T`` its Gramian.
* A combination is in the unit of the **mean** task gradient; ``reduction="sum"`` multiplies it by K.
* The Jacobian may come as one matrix ``[K, P]`` or as a sequence of blocks ``[K, *shape]``, one per
  parameter. Blocks are never copied into one matrix unless the method works entry by entry.
* Everything K-sized is computed in float64 on the device of the gradients, without a host copy.
* Rows are those of tasks 0 to K - 1, unless ``tasks`` says whose they are: a method with a memory keeps it by task id,
  and a task may be absent from a step.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtrl_imgrad.combiners.checks import Jacobian, check_jacobian
from mtrl_imgrad.combiners.method import Method
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.tables import TaskIds

if TYPE_CHECKING:
    from mtrl_imgrad.gradients.absent_tasks import OnNonFinite
    from mtrl_imgrad.gradients.heads import Heads
    from mtrl_imgrad.gradients.per_loss import Accumulation, Parameters
    from mtrl_imgrad.gradients.per_loss.lists import ListChecks


class Combiner(Method):
    """Base of all combiners; users meet `__call__`, `backward`, `accumulate` and `state_dict`.

    Args:
        reduction: ``"mean"`` (default) or ``"sum"``, which multiplies the combination by the number of tasks,
            the convention of the vision papers.
    """

    list_checks: ListChecks | None = None
    """What `backward` has seen of the lists of parameters that it was given."""

    def __call__(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """Combine K task gradients into one update, after checking the input.

        Args:
            jacobian: ``[K, P]``, or blocks ``[K, *shape]``.
            losses: ``[K]`` task losses, for the methods that look at them.
            tasks: K task ids, where the rows are not those of tasks 0 to K - 1.

        Raises:
            ArgumentError: if the shapes do not agree on K, or the ids are not K different numbers >= 0.
            NonFiniteError: if a gradient or a loss is NaN or infinite; names the task's row.
        """
        check_jacobian(jacobian, losses, tasks)
        return self.combine(jacobian, losses, tasks)

    def backward(
        self,
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
        """Differentiate K losses and add the combined gradient to ``.grad``, in place of ``loss.backward()``.

            combiner.backward([loss_a, loss_b], trunk.parameters(), heads.parameters())
            optimizer.step()

        Where ``needs_losses_after_step``, tell the losses of the same batch after that step by `after_step`.

        See `mtrl_imgrad.gradients.per_loss`, which does the work. To take the batch in parts: `accumulate`.

        Parameters come as a module, its ``parameters()`` or its ``named_parameters()``; with names, messages name them.

        Args:
            losses: K scalars. A list is better than a stacked tensor, whose every row's gradient runs through all of
                the tasks' graphs. None stands for a task that is absent from the step.
            shared: the parameters whose K gradients are combined; frozen ones are left alone.
            task_specific: parameters of the tasks' own. A parameter that a loss reaches and that no list holds is an
                error; ``()`` says that all others are to be left without a gradient.
            features: the representation ``[...]`` (or several) that all shared parameters feed and all tasks use:
                gradients are then taken and combined there, for one backward through the trunk instead of K (MGDA-UB).
            heads: whether a task's own parameters take its plain gradient or that times its weight.
            max_grad_norm: shorten the combined gradient of the shared parameters to this norm.
            tasks: K task ids, where the losses are not those of tasks 0 to K - 1.
            ignore: parameters (or inputs that ask for a gradient) that the losses reach and that get none here.
            grad_scaler: for mixed precision; give the losses unscaled, and step the optimizer with it as usual.
            retain_graph: keep the graph for another backward.
            on_nonfinite: what becomes of a NaN or an infinity in a task's loss or gradient: ``"raise"`` an error,
                ``"skip"`` the step, or make it without these tasks, ``"drop_task"``. A skipped step leaves ``.grad`` as
                it was, so that after ``optimizer.zero_grad()`` the optimizer's step moves nothing; the returned
                ``skipped`` says so, its ``non_finite`` which tasks. Where the combiner needs no task gradients, only
                a task's loss tells that it is to be dropped; if only the gradient does, the step is skipped.
            group: a ``torch.distributed`` process group. All its ranks call this with losses of their own rows, and get
                the gradients that one process with the rows of all would find, the same bits on each.
            rows: with ``group``, how many rows each of the K losses is the mean of on this rank. None counts every rank
                that has a task alike; a loss of no rows is absent here, and a rank may lack all of them.

        Returns:
            How the update came about. Its ``gradient`` has an entry for each shared parameter that is not frozen.

        Raises:
            ArgumentError: if an argument is wrong, a parameter is forgotten, a loss is a constant, or not above the
                bound of a method that takes its logarithm. If several ranks of ``torch.distributed`` run and no group
                was given, the ranks do not make the same step, or parameters are sharded.
            NonFiniteError: if a loss or a gradient is NaN or infinite; names the task. ``.grad`` is then as it was.
                (With a ``grad_scaler`` nothing is raised: the scaler skips the step.) Not with another
                ``on_nonfinite``.

        Warns:
            UserWarning: once a combiner, if no loss reaches a listed parameter; and once, if some task's loss reaches
                no shared parameter.
        """
        from mtrl_imgrad.gradients.per_loss import backward  # the room above this one

        return backward(
            self,
            losses,
            shared,
            task_specific,
            features=features,
            tasks=tasks,
            ignore=ignore,
            group=group,
            rows=rows,
            heads=heads,
            max_grad_norm=max_grad_norm,
            on_nonfinite=on_nonfinite,
            grad_scaler=grad_scaler,
            retain_graph=retain_graph,
        )

    def accumulate(
        self,
        *,
        heads: Heads = "unweighted",
        max_grad_norm: float | None = None,
        grad_scaler: torch.amp.GradScaler | None = None,
        on_nonfinite: OnNonFinite = "raise",
        group: Any = None,
    ) -> Accumulation:
        """A step whose batch comes in parts: their task gradients are added up and combined once, at the end.

            with combiner.accumulate() as step:
                for batch in micro_batches:
                    step.backward([loss / len(micro_batches) for loss in losses(batch)], trunk, heads)
            optimizer.step()

        A micro-batch may be of a single task. Combining is not linear: the outcome is that of the whole batch, not the
        sum of what each part would give. An exception inside the block drops the step; the combiner and ``.grad`` are
        then as they were.

        Args:
            heads: see `backward`, as for the others.
            max_grad_norm: of the combined gradient.
            grad_scaler: update it after the optimizer's step, not between micro-batches.
            on_nonfinite: looked at when the block ends.
            group: see `backward`.

        Returns:
            What to enter; its ``combination`` says afterwards how the update came about.
        """
        from mtrl_imgrad.gradients.per_loss import Accumulation  # the room above this one

        return Accumulation(
            self, group, heads=heads, max_grad_norm=max_grad_norm, on_nonfinite=on_nonfinite, grad_scaler=grad_scaler
        )

    def cite(self) -> str:
        """The paper's BibTeX entry (or its plain reference where we have no entry)."""
        return self.bibtex or self.paper

    def __repr__(self) -> str:
        """The arguments that are not at their defaults."""
        accepted = inspect.signature(type(self)).parameters
        given = {name: getattr(self, name) for name in accepted if hasattr(self, name)}
        shown = (f"{name}={value!r}" for name, value in given.items() if value != accepted[name].default)
        return f"{type(self).__name__}({', '.join(shown)})"
