"""Arguments of `Combiner.backward`, checked: parameters, losses, features, options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtrl_imgrad.combiners.replicas.exchange import Exchange
from mtrl_imgrad.combiners.state.tables import TaskIds, check_task_ids, index_of
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.absent_tasks import OnNonFinite
from mtrl_imgrad.gradients.heads import Heads
from mtrl_imgrad.validation import Positive, check

Parameters = nn.Module | Mapping[str, Tensor] | Iterable[Tensor] | Iterable[tuple[str, Tensor]]
"""Parameters, with their names or without: a module, its ``parameters()`` or its ``named_parameters()``."""


@dataclass(frozen=True)
class ParameterList:
    """The parameters of an argument that ask for a gradient.

    Attributes:
        argument: its name.
        tensors: the parameters.
        keys: the name of each, or its place in what was given.
        is_empty: whether it was given and holds nothing, not even frozen ones. An iterator that holds nothing does not
            count: it may be exhausted.
    """

    argument: str
    tensors: list[Tensor]
    keys: list[str | int]
    is_empty: bool = False

    def name(self, i: int) -> str:
        """The name of the parameter of that index, for messages."""
        return f"{self.argument}[{self.keys[i]!r}]"


@dataclass(frozen=True)
class Inputs:
    """The tensors to differentiate with respect to.

    Attributes:
        shared: the parameters whose task gradients are combined.
        task_specific: the tasks' own.
        ignored: those that get no gradient here, though losses may reach them.
        features: where the gradients of the shared ones are combined instead; mostly none.
        exchange: with the other ranks of the step; None for one process.
    """

    shared: ParameterList
    task_specific: ParameterList
    ignored: ParameterList
    features: list[Tensor]
    exchange: Exchange | None = None

    @property
    def combined(self) -> list[Tensor]:
        """The tensors whose task gradients are combined."""
        return self.features or self.shared.tensors

    @property
    def device(self) -> torch.device:
        """Of the tensors whose task gradients are combined."""
        return self.shared.tensors[0].device

    def name(self, i: int) -> str:
        """The name of one of `combined`, for messages."""
        return f"features[{i}]" if self.features else self.shared.name(i)


@dataclass(frozen=True)
class Options:
    """How a step is made; see `Combiner.backward` for each.

    Attributes:
        scale: of the `GradScaler`, or None without one. With one, nothing waits for the device.
    """

    heads: Heads = "unweighted"
    max_grad_norm: float | None = None
    on_nonfinite: OnNonFinite = "raise"
    scale: Tensor | None = None
    retain_graph: bool = False

    @property
    def checks_finite(self) -> bool:
        """Whether NaN and inf are looked for; a `GradScaler` does that itself."""
        return self.scale is None


@dataclass(frozen=True)
class Losses:
    """The losses of the tasks that are present in a step.

    Attributes:
        parts: scalars with a graph.
        tasks: whose they are; None for tasks 0 to K - 1, all of them.
        device: of the shared parameters.
        means: ``[K]`` the losses, where the parts are one rank's summands of them.
    """

    parts: list[Tensor]
    tasks: list[int] | None
    device: torch.device
    means: Tensor | None = None

    @property
    def values(self) -> Tensor:
        """``[K]``, detached, on the device of the shared parameters."""
        if self.means is not None:
            return self.means
        return torch.stack([part.detach() for part in self.parts]).to(self.device)

    @property
    def ids(self) -> Sequence[int]:
        """Whose losses they are."""
        return range(len(self.parts)) if self.tasks is None else self.tasks

    def some(self, rows: Sequence[int]) -> Losses:
        """The losses of a few rows."""
        means = None if self.means is None else self.means[index_of(rows, self.means.device)]
        return Losses([self.parts[row] for row in rows], [self.ids[row] for row in rows], self.device, means)


def read_inputs(
    shared: Parameters,
    task_specific: Parameters | None,
    ignore: Parameters = (),
    features: Tensor | Sequence[Tensor] | None = None,
) -> Inputs:
    """The lists of parameters, and the representation."""
    if torch.is_inference_mode_enabled():
        raise ArgumentError("backward does not work under torch.inference_mode(), whose tensors take no gradients")
    inputs = Inputs(
        shared=_read_parameters("shared", shared),
        task_specific=_read_parameters("task_specific", task_specific),
        ignored=_read_parameters("ignore", ignore),
        features=_read_features(features),
    )
    if not inputs.shared.tensors:
        hint = " (an iterator serves once: it may have been used before)" if isinstance(shared, Iterator) else ""
        raise ArgumentError(f"shared must hold at least one parameter that requires a gradient{hint}")
    return inputs


def _read_parameters(argument: str, given: Parameters | None) -> ParameterList:
    """The parameters of an argument; those that are frozen are left out."""
    if isinstance(given, Tensor) or not isinstance(given, (nn.Module, Mapping, Iterable, type(None))):
        raise ArgumentError(f"{argument} must be an iterable of parameters, got {type(given).__name__}")
    entries = list(_entries(given))
    for entry in entries:
        named = isinstance(entry, (tuple, list)) and len(entry) == 2 and isinstance(entry[0], str)
        if not isinstance(entry[1] if named else entry, Tensor):
            raise ArgumentError(
                f"{argument} must hold parameters, or pairs of name and parameter, got {type(entry).__name__}"
            )
    keys = [i if isinstance(entry, Tensor) else entry[0] for i, entry in enumerate(entries)]
    tensors = [entry if isinstance(entry, Tensor) else entry[1] for entry in entries]
    wanted = [i for i, tensor in enumerate(tensors) if tensor.requires_grad]
    is_empty = given is not None and not entries and not isinstance(given, Iterator)
    return ParameterList(argument, [tensors[i] for i in wanted], [keys[i] for i in wanted], is_empty)


def read_losses(losses: Tensor | Sequence[Tensor | None], tasks: TaskIds | None, device: torch.device) -> Losses:
    """The losses that are present, and whose they are.

    Args:
        losses: as the user gives them; None stands for an absent task.
        tasks: K task ids, or None.
        device: of the shared parameters.
    """
    with torch.enable_grad():  # views made under no_grad have no graph
        parts = list(losses.unbind()) if isinstance(losses, Tensor) and losses.ndim == 1 else losses
    if isinstance(parts, (Tensor, str, bytes)) or not isinstance(parts, Sequence) or not parts:
        what = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise ArgumentError(f"losses must be a sequence of K scalar tensors, or one tensor [K], got {what}")
    present = [(i, part) for i, part in enumerate(parts) if part is not None]
    if not present:
        raise ArgumentError("losses must hold at least one loss, all of them are None")
    for i, part in present:
        _check_loss(i, part, present[0][1])
    check_task_ids(tasks, len(parts))
    ids = list(range(len(parts))) if tasks is None else [int(task) for task in tasks]
    complete = tasks is None and len(present) == len(parts)
    with torch.enable_grad():
        scalars = [part.reshape(()) for _, part in present]
    return Losses(scalars, None if complete else [ids[i] for i, _ in present], device)


def _read_features(features: Tensor | Sequence[Tensor] | None) -> list[Tensor]:
    """The representation as a list; empty for none."""
    if not isinstance(features, (Tensor, Sequence, type(None))):
        raise ArgumentError(f"features must be a tensor, or a sequence of tensors, got {type(features).__name__}")
    tensors = [] if features is None else [features] if isinstance(features, Tensor) else list(features)
    for one in tensors:
        if not isinstance(one, Tensor) or not one.requires_grad or one.is_leaf:
            raise ArgumentError("features must be tensors that were computed from the shared parameters")
    if len({id(one) for one in tensors}) != len(tensors):
        raise ArgumentError("features must not hold a tensor twice")
    return tensors


def read_options(
    device: torch.device,
    heads: Heads,
    max_grad_norm: float | None,
    on_nonfinite: OnNonFinite,
    grad_scaler: torch.amp.GradScaler | None,
    retain_graph: bool = False,
) -> Options:
    """Check the options of a step, for any combiner."""
    check("heads", heads, Heads)
    check("retain_graph", retain_graph, bool)
    max_grad_norm = check("max_grad_norm", max_grad_norm, Positive | None)
    if not isinstance(grad_scaler, (torch.amp.GradScaler, type(None))):
        raise ArgumentError(f"grad_scaler must be a torch.amp.GradScaler, got {type(grad_scaler).__name__}")
    if grad_scaler is None or not grad_scaler.is_enabled():  # one that is disabled skips no step
        return Options(heads, max_grad_norm, on_nonfinite, None, retain_graph)
    if on_nonfinite != "raise":
        raise ArgumentError(f"on_nonfinite={on_nonfinite!r} does not go with a grad_scaler, which skips steps itself")
    scale = grad_scaler.scale(torch.ones((), device=device))
    return Options(heads, max_grad_norm, on_nonfinite, scale, retain_graph)


def _entries(given: Any) -> Iterable[Any]:
    if given is None:
        return ()
    if isinstance(given, nn.Module):
        return given.named_parameters()
    return given.items() if isinstance(given, Mapping) else given


def _check_loss(i: int, loss: object, first: object) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ArgumentError(f"losses must be K scalar tensors (None for an absent task), got {what} for losses[{i}]")
    if not loss.is_floating_point():
        raise ArgumentError(f"losses[{i}] must be a real floating point number, got {loss.dtype}")
    if not loss.requires_grad:
        raise ArgumentError(
            f"losses[{i}] is a constant: it has no graph (detached, or computed under no_grad), so no gradient would "
            "arrive from it. A task that is absent from the step is None, or left out with tasks="
        )
    if isinstance(first, Tensor) and loss.device != first.device:
        raise ArgumentError(f"losses must lie on one device, got {first.device} and {loss.device} for losses[{i}]")
