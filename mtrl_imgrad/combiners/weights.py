"""The K coefficients that a method finds, with status and residual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

import torch
from torch import Tensor

from mtrl_imgrad.combiners.printing import as_line, numbers_text


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


def solved_where(condition: Tensor) -> Tensor:
    """``[...]`` status codes: ``SOLVED`` where the condition holds, ``INACCURATE`` elsewhere."""
    return torch.where(condition, int(Status.SOLVED), int(Status.INACCURATE))


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

    @property
    def status(self) -> Status:
        """The worst status of the batch. Reads the device: not for the hot path."""
        return Status(int(self.status_code.max()))

    def where(self, condition: Tensor, other: Weights) -> Weights:
        """These where the condition [...] holds, else ``other``; with the extras of these."""
        return replace(
            self,
            values=torch.where(condition[..., None], self.values, other.values),
            residual=torch.where(condition, self.residual, other.residual),
            status_code=torch.where(condition, self.status_code, other.status_code),
        )

    def unless(self, condition: Tensor, status: Status) -> Weights:
        """These, but NaN and ``status`` where the condition [...] holds."""
        return replace(
            self,
            values=torch.where(condition[..., None], torch.nan, self.values),
            residual=torch.where(condition, torch.nan, self.residual),
            status_code=torch.where(condition, int(status), self.status_code),
        )

    def __repr__(self) -> str:
        """In one line."""
        parts = [self.status.name, numbers_text("residual", self.residual), numbers_text("values", self.values)]
        return as_line("Weights", parts)
