"""Arguments of `MultiTaskTrainer` that do not go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mtrl_imgrad.combiners import Combiner
from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.supervised.splits import TaskSplits
from mtrl_imgrad.validation import Positive, check


def check_amp(amp: str, device: torch.device, on_nonfinite: str) -> None:
    """float16 has a gradient scaler, which is of CUDA and skips steps."""
    if amp == "fp16" and device.type != "cuda":
        raise ArgumentError(f"amp='fp16' needs a GPU, the device is {device}; 'bf16' works on both")
    if amp == "fp16" and on_nonfinite != "raise":
        raise ArgumentError(f"on_nonfinite={on_nonfinite!r} does not go with amp='fp16', which skips steps itself")


def check_step(combiner: Combiner, gradients: str, max_grad_norm: float | None) -> None:
    """A combination that is a step already cannot be clipped as a gradient, nor be taken at a representation."""
    if not combiner.returns_step:
        return
    if gradients != "losses":
        raise ArgumentError(
            f"gradients={gradients!r} does not go with {combiner.name}, whose moments are of parameters; take 'losses'"
        )
    if max_grad_norm is not None:
        raise ArgumentError(
            f"max_grad_norm={max_grad_norm:g} does not go with {combiner.name}: it makes a step, whose length is the "
            "learning rate's business"
        )


def check_task_scales(scales: Mapping[str, float], names: Sequence[str]) -> None:
    """Scales are of tasks that there are."""
    for name, scale in scales.items():
        if name not in names:
            raise UnknownNameError("task", name, names)
        check(f"task_scales[{name!r}]", scale, Positive)


def check_task_splits(combiner: Combiner, data: TaskSplits, gradients: str, ranks: int) -> None:
    """Tasks with loaders of their own have no batch in common."""
    if gradients != "losses":
        raise ArgumentError(
            f"gradients={gradients!r} needs one batch for all tasks; with a loader a task take 'losses'"
        )
    if combiner.needs_all_tasks and not data.takes_all:
        raise ArgumentError(f"mixing={data.mixing!r} leaves tasks out of a step, and {combiner.name} needs all of them")
    if ranks > 1:
        raise ArgumentError(f"group: a loader a task goes with one process, got {ranks}")


def read_device(device: str | torch.device) -> torch.device:
    """The device of a name; ``"auto"`` takes a GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"device must be auto, cpu, cuda ... and there, got {device!r} ({error})") from error
    return chosen
