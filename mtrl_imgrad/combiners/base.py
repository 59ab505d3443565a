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

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners.checks import Jacobian, check_jacobian
from mtrl_imgrad.combiners.references import references
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state import parts
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Seed, checked

if TYPE_CHECKING:
    from mtrl_imgrad.gradients.absent_tasks import OnNonFinite
    from mtrl_imgrad.gradients.heads import Heads
    from mtrl_imgrad.gradients.per_loss import Accumulation, Parameters
    from mtrl_imgrad.gradients.per_loss.lists import ListChecks

__all__ = ["Combiner", "Reduction"]

Reduction = Literal["mean", "sum"]


@checked
class Combiner(ABC):
    """Base of all combiners; users meet `__call__`, `backward` and `state_dict`.

    Args:
        reduction: ``"mean"`` (default) or ``"sum"``, which multiplies the combination by the number of tasks,
            the convention of the vision papers.
    """

    name: ClassVar[str]
    """Registry name."""
    needs: ClassVar[Literal["losses", "gramian", "matrix"]]
    """What one step asks for."""
    citation: ClassVar[str]
    """Key in ``references.bib``, from which `paper` and `bibtex` follow."""
    paper: ClassVar[str] = ""
    """Authors, title, venue, arXiv number."""
    bibtex: ClassVar[str] = ""
    departures: ClassVar[str] = ""
    """Where the method differs from its authors' code, in a sentence."""
    rows_per_task: int = 1
    """Rows of the Jacobian for every task: those of independent parts of its batch, where a method asks for them."""
    needs_losses_after_step: ClassVar[bool] = False
    """Whether `after_step` wants the losses of the same batch after the optimizer's step."""
    by_columns: ClassVar[bool] = False
    """Whether `combine` and `combine_groups` can do with some of the columns, held as `Columns`, and find their part of
    the combination from them. A class that defines one of the two anew must say so anew."""
    needs_all_tasks: ClassVar[bool] = False
    """Whether no task may be absent from a step."""
    seed: int | None = None
    """That random numbers follow from, as it was given; see `set_random_seed`."""
    _generator: torch.Generator
    """Of the methods that draw; a part of their state."""
    returns_step: ClassVar[bool] = False
    """Whether the combination is an optimizer's step already, to be applied by plain SGD, and not a gradient."""
    per_task: ClassVar[tuple[str, ...]] = ()
    """Names of the arguments that may hold one value for each task."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Hold the arguments of every method, one's own too, against their annotations."""
        super().__init_subclass__(**kwargs)
        checked(cls)
        if "citation" in vars(cls):
            entry = references()[cls.citation]
            cls.paper, cls.bibtex = entry.full, entry.bibtex

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        self.reduction = reduction
        self.list_checks: ListChecks | None = None
        """What `backward` has seen of the lists of parameters that it was given."""
        self.ranks_agree = False
        """Whether the ranks of a group were found to start from the same state."""

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

    @abstractmethod
    def combine(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """`__call__` without its checks: no host copy, no synchronisation. What a training step calls."""

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
            grad_scaler: for mixed precision; step the optimizer with it as usual.
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
            heads=heads,
            max_grad_norm=max_grad_norm,
            tasks=tasks,
            ignore=ignore,
            grad_scaler=grad_scaler,
            retain_graph=retain_graph,
            on_nonfinite=on_nonfinite,
            group=group,
            rows=rows,
        )

    def check_num_tasks(self, num_tasks: int) -> None:
        """Hold the arguments with one value for each task against the number of tasks, as soon as it is known.

        Args:
            num_tasks: K, absent tasks included.

        Raises:
            ArgumentError: if an argument holds values of another number of tasks; names it.
        """
        for argument in self.per_task:
            values = getattr(self, argument)
            if isinstance(values, Sequence) and len(values) != num_tasks:
                raise ArgumentError(
                    f"{argument} of {self.name} must hold an entry for each of the {num_tasks} tasks, got {len(values)}"
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

        return Accumulation(self, heads, max_grad_norm, grad_scaler, on_nonfinite, group)

    def needs_jacobian(self, tasks: TaskIds | None = None) -> bool:
        """Whether the next step must bring the K gradients; if not, `weights_of_losses` is enough for it."""
        return True

    def weights_of_losses(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """The coefficients of a step for which `needs_jacobian` is False.

        Args:
            losses: ``[K]``.
            tasks: K task ids, or None.

        Raises:
            ArgumentError: if this step needs the gradients.
        """
        raise ArgumentError(f"{self.name} finds its update from the task gradients, not from the losses")

    @property
    def samples(self) -> bool:
        """Whether `draw_groups` may return groups."""
        return type(self).draw_groups is not Combiner.draw_groups

    def draw_groups(self, num_tasks: int) -> Tensor | None:
        """The groups of tasks that the next step looks at, for a method that samples: None to take all, one by one.

        Args:
            num_tasks: K.

        Returns:
            ``[n, K]`` float64 on the host: row i holds the weights of the tasks in the mean loss of group i.
        """
        return None

    def combine_groups(
        self, jacobian: Sequence[Tensor], groups: Tensor, losses: Tensor, tasks: TaskIds | None = None
    ) -> Combination:
        """`combine` for a method that samples, from the gradients of the groups' mean losses.

        Args:
            jacobian: blocks ``[n, *shape]``.
            groups: what `draw_groups` returned.
            losses: ``[K]``, of the tasks.
            tasks: K task ids, or None.

        Returns:
            The combination; its weights are those of the K tasks.

        Raises:
            ArgumentError: if the method draws no groups.
        """
        raise ArgumentError(f"{self.name} draws no groups of tasks")

    def after_step(  # noqa: B027 (most need nothing)
        self,
        losses: Tensor,
        tasks: TaskIds | None = None,
        *,
        group: Any = None,
        rows: Sequence[float] | Tensor | None = None,
    ) -> None:
        """Tell the combiner what the losses of the same batch are after the optimizer's step.

        Only methods with ``needs_losses_after_step`` look at them.

        Args:
            losses: ``[K]``, without a graph.
            tasks: K task ids, or None.
            group: as in `backward`.
            rows: as in `backward`.
        """

    @checked
    def set_random_seed(self, seed: Seed) -> None:
        """Draw from a run's seed, unless the constructor was given a ``seed``; nothing for methods that draw nothing.

        Agents and the supervised trainer call this, with a stream of the run's seed for each of their combiners. In a
        loop of your own call it with the loop's seed: without it a combiner draws as with seed 0.

        A combiner of your own with a generator of its own may override this.

        Args:
            seed: an integer in [0, 2^63).
        """
        if hasattr(self, "_generator") and self.seed is None:
            self._generator.manual_seed(seed)

    def _seed_generator(self, seed: int | None) -> torch.Generator:
        """A generator on the host for all that the combiner draws, to be kept as ``_generator``."""
        self.seed = seed
        return torch.Generator().manual_seed(self.seed or 0)

    def cite(self) -> str:
        """The paper's BibTeX entry (or its plain reference where we have no entry)."""
        return self.bibtex or self.paper

    def state_dict(self) -> dict[str, Any]:
        """What continues this combiner bit for bit; empty for stateless methods.

        A method keeps something by assigning a part (a `TaskTable`, a ``torch.Generator``, ...) to an attribute, whose
        name it has in the state; see `mtrl_imgrad.combiners.state.parts`.
        """
        return parts.get_state(self)

    def restore_point(self) -> Callable[[], None]:
        """A function that undoes the next step, for a step whose gradient turns out not to be finite.

        Costs less than `state_dict` where a part has a ``restore_point`` of its own.
        """
        return parts.restore_point(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`. After an error the combiner is what it was.

        Raises:
            ArgumentError: if ``state`` is not that of a combiner with the same arguments.
        """
        if not isinstance(state, Mapping):
            raise ArgumentError(f"state must be a mapping from names to parts, got {type(state).__name__}")
        before = self.state_dict()
        if not before and state:
            raise ArgumentError(f"{self.name} keeps no state, but state has {sorted(state)}")
        if set(state) != set(before):
            raise ArgumentError(
                f"the state of {self!r} has the parts {sorted(before)}, but the one given has {sorted(state)}"
            )
        self.ranks_agree = False
        try:
            parts.set_state(self, state)
        except ArgumentError as error:
            parts.set_state(self, before)
            raise ArgumentError(f"the state of {self.name} has a wrong part {error}") from error

    def __repr__(self) -> str:
        """The arguments that are not at their defaults."""
        accepted = inspect.signature(type(self)).parameters
        given = {name: getattr(self, name) for name in accepted if hasattr(self, name)}
        shown = (f"{name}={value!r}" for name, value in given.items() if value != accepted[name].default)
        return f"{type(self).__name__}({', '.join(shown)})"

    def _reduced(self, found: Weights) -> Weights:
        """Weights in the unit of the mean, put into the unit that ``reduction`` asks for."""
        if self.reduction == "mean":
            return found
        return dataclasses.replace(found, values=found.values * found.values.shape[-1])
