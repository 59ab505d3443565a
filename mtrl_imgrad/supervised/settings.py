"""Settings of `mtrl_imgrad.supervised.trainer.MultiTaskTrainer`: typed, frozen, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mtrl_imgrad.checked import checked
from mtrl_imgrad.combiners.arguments import check_choice, check_count, check_number

__all__ = ["OptimizationConfig", "ReportConfig"]


@checked
@dataclass(frozen=True)
class OptimizationConfig:
    """Adam and its schedule."""

    epochs: int = 200
    """Passes over the training images."""
    batch_size: int = 2
    """Images of a batch."""
    learning_rate: float = 1e-4
    """Of Adam."""
    lr_schedule: Literal["constant", "step", "cosine"] = "step"
    """Keep the learning rate, multiply it now and then, or lower it to zero along a cosine; epoch by epoch."""
    lr_step_epochs: int = 100
    """Epochs between two multiplications (step)."""
    lr_factor: float = 0.5
    """What it is multiplied by (step)."""
    weight_decay: float = 0.0
    """Of Adam."""
    amp: Literal["none", "bf16", "fp16"] = "none"
    """Mixed precision; fp16 needs a GPU."""

    def __post_init__(self) -> None:
        check_choice("lr_schedule", self.lr_schedule, ("constant", "step", "cosine"))
        check_choice("amp", self.amp, ("none", "bf16", "fp16"))
        for name in ("epochs", "batch_size", "lr_step_epochs"):
            check_count(name, getattr(self, name))
        for name in ("learning_rate", "lr_factor"):
            check_number(name, getattr(self, name), 0, closed=False)
        check_number("weight_decay", self.weight_decay, 0)

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        if self.lr_schedule == "step":
            return self.learning_rate * self.lr_factor ** (epoch // self.lr_step_epochs)
        if self.lr_schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return self.learning_rate


@checked
@dataclass(frozen=True)
class ReportConfig:
    """Which numbers are a run's result, and what is logged."""

    report: Literal["last", "best"] = "last"
    """Mean of the last epochs, or the epoch that is best in validation."""
    last_epochs: int = 10
    """How many last epochs are averaged."""
    eval_every: int = 1
    """Epochs between evaluations; those that are reported are always evaluated."""
    log_every: int = 100
    """Steps between two rows of gradient diagnostics; 0 logs none."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    panel_images: int = 3
    """Validation images in the panel of predictions."""

    def __post_init__(self) -> None:
        check_choice("report", self.report, ("last", "best"))
        for name in ("last_epochs", "eval_every", "checkpoint_every", "panel_images"):
            check_count(name, getattr(self, name))
        check_count("log_every", self.log_every, 0)

    def is_evaluated(self, epoch: int, epochs: int) -> bool:
        """Whether an epoch, counted from 0, ends with an evaluation."""
        return self.report == "best" or (epoch + 1) % self.eval_every == 0 or epoch >= epochs - self.last_epochs
