"""Settings of `mtrl_imgrad.supervised.trainer.MultiTaskTrainer`: typed, frozen, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mtrl_imgrad.validation import Count, NonNegative, NonNegativeInt, Positive, checked


@checked
@dataclass(frozen=True)
class OptimizationConfig:
    """Adam and its schedule."""

    epochs: Count = 200
    """Passes over the training images."""
    batch_size: Count = 2
    """Images of a batch."""
    learning_rate: Positive = 1e-4
    """Of Adam."""
    lr_schedule: Literal["constant", "step", "cosine"] = "step"
    """Keep the learning rate, multiply it now and then, or lower it to zero along a cosine; epoch by epoch."""
    lr_step_epochs: Count = 100
    """Epochs between two multiplications (step)."""
    lr_factor: Positive = 0.5
    """What it is multiplied by (step)."""
    weight_decay: NonNegative = 0.0
    """Of Adam."""
    amp: Literal["none", "bf16", "fp16"] = "none"
    """Mixed precision; fp16 needs a GPU."""

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
    last_epochs: Count = 10
    """How many last epochs are averaged."""
    eval_freq: Count = 1
    """Epochs between evaluations; those that are reported are always evaluated."""
    log_every: NonNegativeInt = 100
    """Steps between two rows of gradient diagnostics; 0 logs none."""
    checkpoint_every: Count = 1
    """Epochs between checkpoints."""
    panel_images: Count = 3
    """Validation images in the panel of predictions."""

    def is_evaluated(self, epoch: int, epochs: int) -> bool:
        """Whether an epoch, counted from 0, ends with an evaluation."""
        return self.report == "best" or (epoch + 1) % self.eval_freq == 0 or epoch >= epochs - self.last_epochs
