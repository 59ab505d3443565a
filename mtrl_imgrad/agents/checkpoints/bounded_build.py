"""A network from a file's arguments, built only if it is as large as the parameters saved for it.

Arguments are a few characters and can ask for any size; saved parameters are as long as their file. So the network is
first built without memory (on PyTorch's device ``meta``), and the shapes of its state are held against those saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from mtrl_imgrad.errors import ArgumentError

__all__ = ["build_as_saved"]

SLACK = 2
"""Parameters that may be made for each that is kept: layers drop the bias or the norm of a part that they reuse."""


def build_as_saved(
    make_policy: Callable[..., nn.Module],
    saved: Mapping[str, Tensor],
    observation_space: Any,
    action_space: Any,
    lr_schedule: Schedule,
    **arguments: Any,
) -> nn.Module:
    """The policy, if its state has the names and shapes of ``saved``.

    Args:
        make_policy: class of the policy.
        saved: what the policy's state is going to be.
        observation_space: of the policy, as the arguments after it.
        action_space: see there.
        lr_schedule: see there.
        **arguments: see there.

    Raises:
        ArgumentError: if it would have another shape; nothing of that size was made.
    """
    without_state = {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {}}
    with torch.device("meta"), _at_most(SLACK * len(saved)):
        sketch = make_policy(observation_space, action_space, lr_schedule, **{**arguments, **without_state})
    shapes, expected = _shapes(sketch.state_dict()), _shapes(saved)
    for name in sorted(shapes.keys() | expected.keys()):
        if shapes.get(name) != expected.get(name):
            raise ArgumentError(
                f"policy_kwargs make {name} of shape {shapes.get(name)}, but {expected.get(name)} was saved: by other "
                "policy_kwargs, or by a version of the library whose encoder had other layers"
            )
    return make_policy(observation_space, action_space, lr_schedule, **arguments)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Stop a constructor that makes more parameters than this, however small each is."""
    made = 0

    def note(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal made
        made += parameter is not None
        if made > count:
            raise ArgumentError(f"policy_kwargs ask for more than {count} parameters, which were not saved")

    hook = register_module_parameter_registration_hook(note)
    try:
        yield
    finally:
        hook.remove()
