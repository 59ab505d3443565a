"""Which parameters go through a combiner and which belong to one task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.models.base import TaskModel
from mtrl_imgrad.validation import checked

SharingRule = Literal["cagrad", "nash"] | Callable[[str], bool]
"""A published rule, or a predicate on a parameter's name: whether it is shared."""


class ParameterSplit(NamedTuple):
    """A network's trainable parameters by who they belong to, each in the network's order."""

    shared: list[nn.Parameter]
    own: dict[str, list[nn.Parameter]]
    """By task name."""


@checked
def split_parameters(model: TaskModel, rule: SharingRule = "cagrad") -> ParameterSplit:
    """Split the parameters of a network into shared ones and each task's own.

    Args:
        model: which to split.
        rule: ``"cagrad"``: a parameter is shared if the losses of several tasks reach it, so that MTAN's attention
            masks are each task's own (code of CAGrad, IMGrad, SDMGrad). ``"nash"``: all but the heads is shared (code
            of Nash-MTL, FAMO, FairGrad); a mask then moves by its task's gradient times the task's weight. Or a
            predicate ``name -> is it shared``, which may say no to what ``"cagrad"`` gives to a task only.

    Returns:
        The split. Parameters that are frozen are in neither part.

    Raises:
        ArgumentError: if a predicate calls a parameter a task's own that several tasks' losses reach.
    """
    owners = _owners(model, heads_only=rule == "nash")
    split = ParameterSplit([], {name: [] for name in model.task_names})
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        owner = owners.get(parameter)
        is_shared = rule(name) if callable(rule) else owner is None
        if is_shared:
            split.shared.append(parameter)
        elif owner is None:
            raise ArgumentError(f"rule: parameter {name!r} is no task's own, the losses of several tasks reach it")
        else:
            split.own[owner].append(parameter)
    return split


def _owners(model: TaskModel, heads_only: bool) -> dict[nn.Parameter, str]:
    return {
        parameter: task
        for task in model.task_names
        for module in ([model.head(task)] if heads_only else model.own_modules(task))
        for parameter in module.parameters()
    }
