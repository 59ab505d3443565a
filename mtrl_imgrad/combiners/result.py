"""A combiner's answer: an update with its certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mtrl_imgrad.combiners.diagnostics import gramian_diagnostics
from mtrl_imgrad.combiners.gramian import combine_blocks
from mtrl_imgrad.combiners.printing import as_line, norm_text, numbers_text
from mtrl_imgrad.combiners.weights import Status, Weights


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

    @classmethod
    def from_weights(cls, weights: Weights, gradient: Tensor | list[Tensor]) -> Combination:
        """``gradient``, made with these coefficients, and their certificate."""
        return cls(gradient, weights.values, weights.residual, weights.status_code, extras=weights.extras)

    @property
    def status(self) -> Status:
        """The status. Reads the device: not for the hot path."""
        return Status(int(self.status_code))

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """Norms, cosines, conflicts and imbalance of the task gradients, plus what the method itself reports.

        Computed when asked for, see `mtrl_imgrad.combiners.diagnostics.gramian_diagnostics`.
        """
        of_gramian = {} if self.gramian is None else gramian_diagnostics(self.gramian, self.weights)
        return {**of_gramian, **self.extras}

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
    whole = Combination.from_weights(weights, combined[0] if isinstance(jacobian, Tensor) else combined)
    return replace(whole, status_code=status, gramian=gramian)
