"""Whether the lists of parameters are those that the losses need: nothing forgotten, nothing listed in vain.

Looked at when lists are first used, for every task when it is first present, and again at calls 2, 4, 8, ... with the
same lists, since a graph may change on its way. A call costs nothing in between.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.per_loss.graph import Leaf, check_features, edges_of, leaves_of
from mtrl_imgrad.gradients.per_loss.inputs import Inputs, Losses, ParameterList

if TYPE_CHECKING:
    from mtrl_imgrad.combiners.base import Combiner

MOST_LISTS = 16
"""Choices of lists that are remembered: a combiner may serve several networks in turn."""
MOST_NAMES = 5
"""Parameters that a message describes."""


class ListChecks:
    """A combiner's memory of the lists of parameters that it was given; no part of its state."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[Any, ...], _Seen] = OrderedDict()
        self._said: set[str] = set()

    def __reduce__(self) -> tuple[type[ListChecks], tuple[()]]:
        """Copies and pickles start empty: they will see other parameters."""
        return ListChecks, ()

    def check(self, inputs: Inputs, losses: Losses, warns: bool = True) -> None:
        """Check the lists against the graphs of the losses, if it is time to.

        Args:
            inputs: the lists.
            losses: those of one rank among several may be none.
            warns: whether to warn of parameters that no loss reaches; another rank may reach them.
        """
        if not losses.parts:
            return
        seen = self._of(inputs)
        seen.calls += 1
        again = seen.calls & (seen.calls - 1) == 0  # a power of two
        new = set(losses.ids) - seen.tasks
        if not again and not new:
            return
        stops = edges_of(inputs.features)
        leaves = {
            task: leaves_of(loss, stops)
            for task, loss in zip(losses.ids, losses.parts, strict=True)
            if again or task in new
        }
        _check_reached(inputs, losses, leaves)
        _check_forgotten(inputs, leaves)
        if inputs.features:
            _check_bypassed(inputs, leaves)
            check_features(inputs.features, _names(inputs.task_specific))
        seen.reached.update(*leaves.values())
        for feature in inputs.features:
            seen.reached.update(leaves_of(feature))
        # With tasks absent, what the others do not reach may be theirs; then wait until no new task turns up.
        settled = losses.tasks is None or (again and not new and not seen.is_growing)
        seen.is_growing = bool(new) or (seen.is_growing and not again)
        seen.tasks |= new
        if not warns:
            return
        if settled and "unused" not in self._said:
            self._warn_once("unused", _unused(inputs, seen.reached))
        if not inputs.features:
            self._warn_once("detached", _detached(inputs, leaves))

    def _of(self, inputs: Inputs) -> _Seen:
        lists = (inputs.shared, inputs.task_specific, inputs.ignored)
        tensors = [tensor for one in lists for tensor in one.tensors]
        key = (
            *(len(one.tensors) for one in lists),
            inputs.task_specific.is_empty,
            len(inputs.features),
            *map(id, tensors),
        )
        seen = self._seen.get(key)
        if seen is None or not all(
            reference() is tensor for reference, tensor in zip(seen.tensors, tensors, strict=True)
        ):
            _check_lists(inputs)
            seen = self._seen[key] = _Seen([weakref.ref(tensor) for tensor in tensors])
        self._seen.move_to_end(key)
        while len(self._seen) > MOST_LISTS:
            self._seen.popitem(last=False)
        return seen

    def _warn_once(self, kind: str, message: str) -> None:
        if message and kind not in self._said:
            self._said.add(kind)
            warnings.warn(f"{message} (said once)", stacklevel=5)


def list_checks_of(combiner: Combiner) -> ListChecks:
    """The combiner's, made at its first call."""
    if combiner.list_checks is None:
        combiner.list_checks = ListChecks()
    return combiner.list_checks


class _Seen:
    """The memory of one choice of lists."""

    def __init__(self, tensors: list[weakref.ref[Tensor]]) -> None:
        self.tensors = tensors
        self.calls = 0
        self.tasks: set[int] = set()
        self.reached: set[int] = set()
        """Ids of the leaves that some loss reaches."""
        self.is_growing = False
        """Whether a new task was present since the graphs were last looked at again."""


def _check_lists(inputs: Inputs) -> None:
    """Check the lists in themselves."""
    for i, tensor in enumerate(inputs.shared.tensors):
        if tensor.device != inputs.device:
            raise ArgumentError(
                f"shared parameters must lie on one device, got {inputs.device} and {tensor.device} for "
                f"{inputs.shared.name(i)}"
            )
    for one in (inputs.shared, inputs.task_specific):
        for i, tensor in enumerate(one.tensors):
            _check_parameter(one.name(i), tensor)
        count = Counter(map(id, one.tensors))
        for i, tensor in enumerate(one.tensors):
            if count[id(tensor)] > 1:
                raise ArgumentError(f"{one.argument} must not hold a parameter twice, got {one.name(i)} twice")
    names = _names(inputs.shared)
    for i, tensor in enumerate(inputs.task_specific.tensors):
        if id(tensor) in names:
            raise ArgumentError(
                f"task_specific must not hold a parameter that shared holds, too: {inputs.task_specific.name(i)} is "
                f"{names[id(tensor)]}"
            )
    names |= _names(inputs.task_specific)
    for tensor in inputs.ignored.tensors:
        if id(tensor) in names:
            raise ArgumentError(f"ignore must not hold a parameter that takes a gradient: it holds {names[id(tensor)]}")


def _check_parameter(name: str, tensor: Tensor) -> None:
    if not tensor.is_leaf:
        maker = type(tensor.grad_fn).__name__
        raise ArgumentError(f"{name} must be a parameter (a leaf tensor), it was computed by {maker}")
    if nn.parameter.is_lazy(tensor):
        raise ArgumentError(f"{name} has no shape yet: call the module once before")
    if tensor.layout != torch.strided:
        raise ArgumentError(f"{name} must be a dense tensor, got {tensor.layout} (its gradient may be sparse)")
    if tensor.is_meta:
        raise ArgumentError(
            f"{name} lies on the meta device, without numbers: call module.to_empty(device=...), and load"
        )
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise ArgumentError(
            f"{name} belongs to a transformation of torch.func, in which no .grad is kept: take the K gradients there "
            "and combine them by combiner(jacobian)"
        )


def _check_reached(inputs: Inputs, losses: Losses, leaves: dict[int, dict[int, Leaf]]) -> None:
    """Raise if all tasks are there and none reaches what is shared: those of a copy, perhaps."""
    shared = {id(tensor) for tensor in inputs.shared.tensors}
    reached = any(shared & below.keys() for below in leaves.values())
    if losses.tasks is None and not inputs.features and not reached:
        raise ArgumentError("no loss depends on any parameter of shared: are they those of a copy of the model?")


def _check_forgotten(inputs: Inputs, leaves: dict[int, dict[int, Leaf]]) -> None:
    """Raise if a leaf is in no list, unless ``task_specific=()`` was given."""
    if inputs.task_specific.is_empty:
        return
    listed = {id(tensor) for one in (inputs.shared, inputs.task_specific, inputs.ignored) for tensor in one.tensors}
    forgotten: dict[int, tuple[Leaf, list[int]]] = {}
    for task, below in leaves.items():
        for key, leaf in below.items():
            if key not in listed:
                forgotten.setdefault(key, (leaf, []))[1].append(task)
    if not forgotten:
        return
    owners = _owners(leaf.tensor for leaf, _ in forgotten.values())
    texts = [
        f"{_describe(leaf.tensor, owners)}, used by {leaf.used_by} below the loss of task {', '.join(map(str, tasks))}"
        for leaf, tasks in forgotten.values()
    ]
    raise ArgumentError(
        f"{len(forgotten)} of the parameters that the losses reach would get no gradient, as neither shared nor "
        f"task_specific holds them: {_joined(texts)}. List them, freeze them (requires_grad_(False)), or say "
        "task_specific=() or ignore=[...] to leave them without"
    )


def _check_bypassed(inputs: Inputs, leaves: dict[int, dict[int, Leaf]]) -> None:
    """Raise if a loss reaches a shared parameter past the features: that part of its gradient would be lost."""
    names = _names(inputs.shared)
    for task, below in leaves.items():
        for key in below.keys() & names.keys():
            raise ArgumentError(f"the loss of task {task} reaches {names[key]} on a way that avoids the features")


def _unused(inputs: Inputs, reached: set[int]) -> str:
    """Tell of listed parameters that no loss reaches."""
    unused = [
        (one.name(i), tensor)
        for one in (inputs.shared, inputs.task_specific)
        for i, tensor in enumerate(one.tensors)
        if id(tensor) not in reached
    ]
    owners = _owners(tensor for _, tensor in unused) if unused else {}
    texts = [f"{name} ({_describe(tensor, owners)})" for name, tensor in unused]
    return f"no loss reaches {_joined(texts)}: .grad stays as it is there" if texts else ""


def _detached(inputs: Inputs, leaves: dict[int, dict[int, Leaf]]) -> str:
    """Tell of tasks whose losses reach no shared parameter, where others do."""
    shared = {id(tensor) for tensor in inputs.shared.tensors}
    unreached = [task for task, below in leaves.items() if not shared & below.keys()]
    if not unreached or len(unreached) == len(leaves):
        return ""  # for none at all there is an error
    return f"the loss of task {', '.join(map(str, unreached))} reaches no shared parameter: its gradient is zero there"


def _names(parameters: ParameterList) -> dict[int, str]:
    return {id(tensor): parameters.name(i) for i, tensor in enumerate(parameters.tensors)}


def _describe(tensor: Tensor, owners: dict[int, str]) -> str:
    kind = "parameter" if isinstance(tensor, nn.Parameter) else "tensor"
    return f"{owners.get(id(tensor), f'a {kind}')} of shape {list(tensor.shape)}"


def _owners(tensors: Iterable[Tensor]) -> dict[int, str]:
    """Names of parameters in the outermost module that holds them, by ``id``; for messages only, since it is slow.

    Nobody hands that module over, so it is looked for among all objects.
    """
    wanted = {id(tensor) for tensor in tensors}
    owners: dict[int, str] = {}
    classes = _below(nn.Module)
    modules = [one for one in gc.get_objects() if type(one) in classes]
    for module in sorted(modules, key=lambda module: sum(1 for _ in module.modules())):
        for name, parameter in module.named_parameters():
            if id(parameter) in wanted:
                owners[id(parameter)] = f"{name!r} of {type(module).__name__},"
    return owners


def _below(kind: type) -> set[type]:
    """A class and all that were derived from it."""
    return {kind}.union(*map(_below, kind.__subclasses__()))


def _joined(texts: list[str]) -> str:
    more = len(texts) - MOST_NAMES
    return "; ".join(texts[:MOST_NAMES]) + (f"; and {more} more" if more > 0 else "")
