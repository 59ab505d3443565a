"""The record of one training epoch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class EpochRecord:
    """The record of an epoch.

    Attributes:
        epoch: counted from 0.
        step: updates so far.
        learning_rate: of this epoch.
        train_losses: mean over the epoch's images that have a target, by task; NaN without any.
        losses: by split, then by task; empty where the epoch was not evaluated.
        results: ``{split: {task: {metric: value}}}``; empty where the epoch was not evaluated.
        seconds: that training took.
        diagnostics: a row for every logged step, see `step_diagnostics`.
        non_finite: by task, the steps for which its loss or gradient was not finite; empty where that raises.
        skipped_steps: steps that were left out for that.
    """

    epoch: int
    step: int
    learning_rate: float
    train_losses: dict[str, float]
    losses: dict[str, dict[str, float]]
    results: dict[str, dict[str, dict[str, float]]]
    seconds: float
    diagnostics: list[dict[str, float]] = field(default_factory=list)
    non_finite: dict[str, int] = field(default_factory=dict)
    skipped_steps: int = 0
