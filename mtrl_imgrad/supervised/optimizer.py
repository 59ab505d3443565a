"""The optimizer of a supervised run: Adam, or what a combiner needs that makes the optimizer's step itself (AdaTask).

A combiner with ``returns_step`` has divided every task's gradient by the root of its own second moment. Adam on top
would take the moments twice. So the shared parameters move by the combination as it is, ``theta -= learning_rate * d``,
and the parameters of a single task, which the combiner never sees, take the same rule from torch.optim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mtrl_imgrad.combiners import AdaTask, Combiner
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.settings import OptimizationConfig


class SplitOptimizer:
    """One optimizer for the shared parameters, another for the rest, in the role of one.

    Args:
        shared: of the shared parameters.
        own: of the tasks' own parameters.
    """

    def __init__(self, shared: torch.optim.Optimizer, own: torch.optim.Optimizer) -> None:
        self._parts = {"shared": shared, "own": own}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of both, to be changed in place."""
        return [group for part in self._parts.values() for group in part.param_groups]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self._parts.values():
            part.zero_grad()

    def step(self) -> None:
        """Move all parameters."""
        for part in self._parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """State of both, by name."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def make_optimizer(
    combiner: Combiner,
    shared: Sequence[Tensor],
    own: Sequence[Tensor],
    config: OptimizationConfig,
    device: torch.device,
) -> torch.optim.Optimizer | SplitOptimizer:
    """Adam for all parameters, unless the combiner makes the step itself.

    Args:
        combiner: of the run.
        shared: parameters whose task gradients it combines.
        own: parameters of single tasks.
        config: rate and weight decay. With a combiner that makes the step, the decay of the shared parameters is
            decoupled from the moments (as AdamW's).
        device: of the parameters.

    Raises:
        ArgumentError: for ``amp="fp16"`` with a combiner that makes the step.
    """
    fused = device.type in ("cpu", "cuda")
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if not combiner.returns_step:
        return torch.optim.Adam([*shared, *own], fused=fused, **options)
    if config.amp == "fp16":
        raise ArgumentError(
            f"amp='fp16' does not go with {combiner.name}: a step that the loss scaler skips would stay in its "
            "moments; take amp='bf16' or 'none'"
        )
    step = torch.optim.SGD(shared, fused=fused, **options)
    return SplitOptimizer(step, _rule(combiner)(own, **options)) if own else step


def _rule(combiner: Combiner) -> Callable[..., torch.optim.Optimizer]:
    """The optimizer of torch whose step the combiner makes for each task."""
    if not isinstance(combiner, AdaTask):
        return torch.optim.Adam
    eps: dict[str, Any] = {} if combiner.eps is None else {"eps": combiner.eps}
    if combiner.algorithm == "adagrad":
        return partial(torch.optim.Adagrad, **eps)
    if combiner.algorithm == "rmsprop":
        return partial(torch.optim.RMSprop, alpha=combiner.alpha, **eps)
    return partial(torch.optim.Adam, betas=combiner.betas, **eps)
