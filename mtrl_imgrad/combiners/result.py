"""Results of a combiner: coefficients or an update, with status and residual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

import torch
from torch import Tensor

from mtrl_imgrad.combiners.gramian import combine_blocks, gramian_diagnostics
from mtrl_imgrad.combiners.printing import as_line, norm_text, numbers_text

__all__ = ["Combination", "Status", "Weights", "linear_combination"]


class Status(IntEnum):
    """How an answer was reached. The number travels in tensors; `sentence` is for people."""

    SOLVED = 0
    ZERO_GRADIENTS = 1
    INACCURATE = 2
    NON_FINITE = 3
    NOT_POSITIVE = 4

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
    Status.NOT_POSITIVE: "A loss is not above the method's lower_bound: the weights are NaN and must not be applied.",
}


@dataclass(frozen=True, repr=False)
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

    def combination(self, gradient: Tensor | list[Tensor]) -> Combination:
        """``gradient``, made with these coefficients, and their certificate."""
        return Combination(gradient, self.values, self.residual, self.status_code, extras=self.extras)

    @property
    def status(self) -> Status:
        """The worst status of the batch. Reads the device: not for the hot path."""
        return Status(int(self.status_code.max()))

    def __repr__(self) -> str:
        """In one line."""
        parts = [self.status.name, numbers_text("residual", self.residual), numbers_text("values", self.values)]
        return as_line("Weights", parts)


@dataclass(frozen=True, repr=False)
class Combination:
    """One update for the shared parameters and how it came about.

    Attributes:
        gradient: ``[P]``, or a list of tensors shaped as the blocks without their task axis. From `Combiner.backward`:
            one for each shared parameter that is not frozen (for each of the features, where they are combined), zero
            where no loss reaches it; before ``max_grad_norm`` and a `GradScaler`'s scale.
        weights: ``[K]`` coefficients, or None where the method is not linear in the rows.
        residual: scalar tensor, see `Weights.residual`.
        status_code: scalar int64 tensor of a `Status` value.
        gramian: ``[K, K]`` float64, or None where the method never formed it.
        extras: what the method found on its way, by name.
        non_finite: tasks whose loss or gradient was not finite, where ``on_nonfinite`` made the step without them or
            left it out.
        skipped: whether it was left out; there is then no gradient.
    """

    gradient: Tensor | list[Tensor]
    weights: Tensor | None
    residual: Tensor
    status_code: Tensor
    gramian: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    non_finite: tuple[int, ...] = ()
    skipped: bool = False

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

    def __repr__(self) -> str:
        """In one line."""
        absent = f"tasks {list(self.non_finite)} not finite" if self.non_finite else ""
        if self.skipped:
            return as_line("Combination", ["skipped", absent])
        parts = [self.status.name, numbers_text("residual", self.residual), numbers_text("weights", self.weights)]
        return as_line("Combination", [*parts, norm_text(self.gradient), absent])


def linear_combination(
    jacobian: Tensor | Sequence[Tensor], blocks: Sequence[Tensor], gramian: Tensor, weights: Weights
) -> Combination:
    """The linear combination of the rows that the weights stand for; NaN where a gradient is not finite."""
    combined = combine_blocks(weights.values, blocks)
    status = torch.where(torch.isfinite(gramian).all(), weights.status_code, int(Status.NON_FINITE))
    whole = weights.combination(combined[0] if isinstance(jacobian, Tensor) else combined)
    return replace(whole, status_code=status, gramian=gramian)
