"""What every combiner is: K task gradients (or losses) in, one update and its certificate out.

Three abstract classes say what a method asks for, and so what a step costs:

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
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners.gramian import combine_blocks, gramian_diagnostics, gramian_of_blocks, rows_of
from mtrl_imgrad.errors import ArgumentError, NonFiniteError

__all__ = [
    "Combination",
    "Combiner",
    "GramianCombiner",
    "LossCombiner",
    "MatrixCombiner",
    "Status",
    "Weights",
]

Reduction = Literal["mean", "sum"]
Jacobian = Tensor | Sequence[Tensor]


class Status(IntEnum):
    """How an answer was reached. The number travels in tensors; `sentence` is for people."""

    SOLVED = 0
    ZERO_GRADIENTS = 1
    INACCURATE = 2
    NON_FINITE = 3

    @property
    def sentence(self) -> str:
        """The status as a sentence."""
        return _SENTENCES[self]

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}"


_SENTENCES = {
    Status.SOLVED: "The problem was solved; the residual is that of its optimality conditions.",
    Status.ZERO_GRADIENTS: "Every task gradient is zero: the update is zero and the base weights are returned.",
    Status.INACCURATE: "The optimality conditions are met only to the stated residual, above the tolerance.",
    Status.NON_FINITE: "A task gradient or loss is NaN or infinite: the weights are NaN and must not be applied.",
}


@dataclass(frozen=True)
class Weights:
    """The K coefficients of a combination, with their certificate. Leading batch dimensions are allowed.

    Attributes:
        values: ``[..., K]`` float64; ``gradient = values @ jacobian``.
        residual: ``[...]`` violation of the problem's optimality conditions, relative (0 is exact).
        status_code: ``[...]`` int64 tensor of `Status` values, on the Gramian's device.
        extras: what the method found on its way (for instance ``mu``, ``cos_theta``,
            ``simplex_weights``).
    """

    values: Tensor
    residual: Tensor
    status_code: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The worst status of the batch. Reads the device: not for the hot path."""
        return Status(int(self.status_code.max()))


@dataclass(frozen=True)
class Combination:
    """One update for the shared parameters and how it came about.

    Attributes:
        gradient: ``[P]``, or a list of tensors shaped as the blocks without their task axis.
        weights: ``[K]`` coefficients, or None where the method is not linear in the rows.
        residual: scalar tensor, see `Weights.residual`.
        status_code: scalar int64 tensor of a `Status` value.
        gramian: ``[K, K]`` float64, or None where the method never formed it.
        extras: what the method found on its way, by name.
    """

    gradient: Tensor | list[Tensor]
    weights: Tensor | None
    residual: Tensor
    status_code: Tensor
    gramian: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The status. Reads the device: not for the hot path."""
        return Status(int(self.status_code))

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """Norms, cosines, conflicts and imbalance of the task gradients, plus what the method itself reports.

        Computed when asked for, see `mtrl_imgrad.combiners.gramian.gramian_diagnostics`.
        """
        found = {} if self.gramian is None else gramian_diagnostics(self.gramian, self.weights)
        return {**found, **self.extras}


class Combiner(ABC):
    """Base of all combiners; users meet `__call__` and `state_dict`.

    Args:
        reduction: ``"mean"`` (default) or ``"sum"``, which multiplies the combination by the number of tasks,
            the convention of the vision papers.

    Raises:
        ArgumentError: if an argument is not one of those listed.
    """

    name: ClassVar[str]
    """Registry name."""
    needs: ClassVar[Literal["losses", "gramian", "matrix"]]
    """What one step asks for."""
    paper: ClassVar[str]
    """Authors, title, venue, arXiv number."""
    bibtex: ClassVar[str] = ""

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise ArgumentError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        self.reduction = reduction

    def __call__(self, jacobian: Jacobian, losses: Tensor | None = None) -> Combination:
        """Combine K task gradients into one update, after checking the input.

        Args:
            jacobian: ``[K, P]``, or blocks ``[K, *shape]``.
            losses: ``[K]`` task losses, for the methods that look at them.

        Raises:
            ArgumentError: if the shapes do not agree on K.
            NonFiniteError: if a gradient or a loss is NaN or infinite; names the task's row.
        """
        check_jacobian(jacobian, losses)
        return self.combine(jacobian, losses)

    @abstractmethod
    def combine(self, jacobian: Jacobian, losses: Tensor | None = None) -> Combination:
        """`__call__` without its checks: no host copy, no synchronisation. What a training step calls."""

    def cite(self) -> str:
        """The paper's BibTeX entry (or its plain reference where we have no entry)."""
        return self.bibtex or self.paper

    def state_dict(self) -> dict[str, Any]:
        """What continues this combiner bit for bit; empty for stateless methods."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`.

        Raises:
            ArgumentError: if ``state`` holds what this method does not keep.
        """
        if state:
            raise ArgumentError(f"{self.name} keeps no state, but state has {sorted(state)}")

    def _hyperparameters(self) -> dict[str, Any]:
        """Constructor arguments worth showing, for ``repr`` and for the run's config."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self._hyperparameters().items())
        return f"{type(self).__name__}({arguments})"

    def _reduced(self, found: Weights) -> Weights:
        """Weights in the unit of the mean, put into the unit that ``reduction`` asks for."""
        if self.reduction == "mean":
            return found
        return dataclasses.replace(found, values=found.values * found.values.shape[-1])


class GramianCombiner(Combiner):
    """A combiner whose weights follow from the K x K Gramian alone."""

    needs = "gramian"

    def weights(self, gramian: Tensor, losses: Tensor | None = None) -> Weights:
        """Solve for the coefficients of the combination, ``gradient = values @ jacobian``.

        Args:
            gramian: ``[..., K, K]`` symmetric positive semi-definite, any float dtype, any device.
            losses: ``[..., K]``, for the methods that look at them.

        Returns:
            `Weights`, in float64 on the Gramian's device.
        """
        return self._reduced(self.solve(gramian, losses))

    @abstractmethod
    def solve(self, gramian: Tensor, losses: Tensor | None = None) -> Weights:
        """`weights` in the unit of the mean: what a method defines."""

    def combine(self, jacobian: Jacobian, losses: Tensor | None = None) -> Combination:
        """See `Combiner.combine`."""
        blocks = [jacobian] if isinstance(jacobian, Tensor) else list(jacobian)
        gramian = gramian_of_blocks(blocks)
        found = self.weights(gramian, losses)
        return _combination(jacobian, blocks, gramian, found)


class MatrixCombiner(Combiner):
    """A combiner that works on the Jacobian entry by entry."""

    needs = "matrix"


class LossCombiner(Combiner):
    """A combiner whose weights follow from the K losses; a step needs one backward and no per-task gradients.

    Given a Jacobian all the same, it combines its rows, so that the methods can be compared and diagnosed. Weights must
    not be zero: unweighted heads divide them out again.
    """

    needs = "losses"

    def weights(self, losses: Tensor) -> Weights:
        """Find the coefficients of the combination.

        Args:
            losses: ``[..., K]``, any float dtype, any device.

        Returns:
            `Weights`, in float64 on the losses' device.
        """
        return self._reduced(self.solve(losses))

    @abstractmethod
    def solve(self, losses: Tensor) -> Weights:
        """`weights` in the unit of the mean: what a method defines."""

    def combine(self, jacobian: Jacobian, losses: Tensor | None = None) -> Combination:
        """See `Combiner.combine`.

        Raises:
            ArgumentError: if the losses are missing.
        """
        if losses is None:
            raise ArgumentError(f"losses must be given: {self.name} finds its weights from them")
        blocks = [jacobian] if isinstance(jacobian, Tensor) else list(jacobian)
        return _combination(jacobian, blocks, gramian_of_blocks(blocks), self.weights(losses))


def _combination(jacobian: Jacobian, blocks: Sequence[Tensor], gramian: Tensor, found: Weights) -> Combination:
    """The linear combination of the rows that the weights stand for; NaN where a gradient is not finite."""
    combined = combine_blocks(found.values, blocks)
    finite = torch.isfinite(gramian).all()
    return Combination(
        gradient=combined[0] if isinstance(jacobian, Tensor) else combined,
        weights=found.values,
        residual=found.residual,
        status_code=torch.where(finite, found.status_code, int(Status.NON_FINITE)),
        gramian=gramian,
        extras=found.extras,
    )


def check_jacobian(jacobian: Jacobian, losses: Tensor | None = None) -> int:
    """Check a Jacobian and its losses; return K.

    Raises:
        ArgumentError: if a shape is wrong, naming the block.
        NonFiniteError: if an entry is NaN or infinite, naming the task row and the block.
    """
    blocks = [jacobian] if isinstance(jacobian, Tensor) else list(jacobian)
    if not blocks:
        raise ArgumentError("jacobian must hold at least one block, got an empty sequence")
    if isinstance(jacobian, Tensor) and jacobian.ndim != 2:
        raise ArgumentError(f"jacobian must be [K, P], got shape {tuple(jacobian.shape)}")
    num_tasks = blocks[0].shape[0] if blocks[0].ndim else 0
    for i, block in enumerate(blocks):
        if block.ndim < 1 or block.shape[0] != num_tasks or num_tasks == 0:
            raise ArgumentError(
                f"jacobian block {i} must have one row for each of {num_tasks or 'K >= 1'} tasks, "
                f"got shape {tuple(block.shape)}"
            )
        if not block.is_floating_point():
            raise ArgumentError(f"jacobian block {i} must be floating point, got {block.dtype}")
        _check_finite(rows_of(block), f"jacobian block {i}")
    if losses is not None:
        if losses.shape != (num_tasks,):
            raise ArgumentError(f"losses must have shape ({num_tasks},), got {tuple(losses.shape)}")
        _check_finite(losses[:, None], "losses")
    return num_tasks


def _check_finite(rows: Tensor, what: str) -> None:
    bad = ~torch.isfinite(rows).all(dim=1)
    if bool(bad.any()):
        raise NonFiniteError(f"{what} is NaN or infinite in the row of task {int(bad.nonzero()[0, 0])}")
