"""Builds a network from a file's arguments only if its shapes are those of the parameters saved with them.

A few characters of arguments can ask for a network of any size; saved parameters are as long as their file. So the
network is first built without memory (PyTorch's device ``meta``) and its shapes are compared with those saved.
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

SLACK = 2
"""Parameters that may be made for each one in the state: some layers make a bias or a norm and drop it."""


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
        saved: the policy's state.
        observation_space: of the policy.
        action_space: of the policy.
        lr_schedule: of the policy.
        **arguments: of the policy.

    Raises:
        ArgumentError: if its parameters would have other shapes; nothing of that size is allocated.
    """
    # Parameters on `meta` have no memory; an optimizer with state would want some.
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
    """Stop a constructor that makes more than ``count`` parameters, however small each is."""
    num_made = 0

    def check(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal num_made
        num_made += parameter is not None
        if num_made > count:
            raise ArgumentError(f"policy_kwargs ask for more than {count} parameters, which were not saved")

    hook = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        hook.remove()
