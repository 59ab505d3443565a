"""Run a pure tensor function as the flat list of operations that it consists of.

Per-task gradients come from function transforms (vmap over grad), whose bookkeeping in Python costs as much as the
arithmetic when networks are small. The transforms do not depend on the numbers, so it is enough to go through them
once: the first call with new shapes records the elementary operations, later calls replay them. The operations, and
so the results, are the same bit for bit. No compiler is needed, on CPU and CUDA alike.

Where there is one, it may take over the list (`mtrl_imgrad.gradients.compilation`): the same results to rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.bfloat16 import multiply_in_bfloat16
from mtrl_imgrad.gradients.compilation import compile_graph
from mtrl_imgrad.gradients.execution import Execution
from mtrl_imgrad.gradients.halves import in_halves
from mtrl_imgrad.gradients.recording import record
from mtrl_imgrad.gradients.vectorized import DifferentiableLosses

_Run = Callable[[list[Tensor]], Any]
"""A function for one combination of shapes: from the leaves of the arguments to the value."""


class Traced:
    """A pure function of tensors, recorded once for each combination of shapes.

    Args:
        function: takes pytrees of tensors and returns one. All tensors that it uses must be arguments (a captured
            one would be recorded as a constant), and no Python branch may depend on a value.
        execution: how it is run; by default recorded and replayed.

    Raises:
        ArgumentError: at the first call, if the function cannot be recorded (or compiled, where that is required), with
            the reason.
    """

    def __init__(self, function: Callable[..., Any], execution: Execution | None = None) -> None:
        self.function = function
        self.execution = Execution() if execution is None else execution
        self._records: dict[Any, _Run] = {}

    def __call__(self, *arguments: Any) -> Any:
        """The function's value; the first call with new shapes records it."""
        if not self.execution.trace:
            return self.function(*arguments)
        leaves, structure = pytree.tree_flatten(arguments)
        # Strides and device count, too: a recorded reshape may be a view for one and a copy for another.
        layout = tuple((leaf.shape, leaf.stride(), leaf.dtype, leaf.device) for leaf in leaves)
        key = (structure, layout, self.execution.compile)
        run = self._records.get(key)
        if run is None:
            run = self._records[key] = self._record(leaves, structure)
        return run(leaves)

    def _record(self, leaves: list[Tensor], structure: pytree.TreeSpec) -> _Run:
        graph, (value,) = self._graph(
            lambda *inputs: (self.function(*pytree.tree_unflatten(list(inputs), structure)),), leaves
        )
        run = self._executable(graph, leaves)
        return lambda leaves: pytree.tree_unflatten(list(run(*leaves)), value)

    def _graph(
        self, function: Callable[..., tuple[Any, ...]], leaves: list[Tensor]
    ) -> tuple[GraphModule, list[pytree.TreeSpec]]:
        """The recorded operations of a function of tensors, and the structure of each of its values."""
        structures: list[pytree.TreeSpec] = []

        def flat(*inputs: Tensor) -> list[Any]:
            values = [pytree.tree_flatten(value) for value in function(*inputs)]
            structures[:] = [structure for _, structure in values]  # known only when the function has run
            return [leaf for leaves, _ in values for leaf in leaves]

        try:
            graph = record(flat, leaves)
        except Exception as error:
            raise ArgumentError(
                f"{self._name} cannot be recorded as a list of tensor operations: {error}. A Python branch on a "
                "tensor's value is the usual cause; torch.where has none"
            ) from error
        if self.execution.precision == "bf16":
            multiply_in_bfloat16(graph)
        return graph, structures

    def _executable(self, graph: GraphModule, leaves: Sequence[Tensor]) -> Callable[..., Sequence[Any]]:
        """The graph, compiled if so set; ``leaves`` are an example."""
        if not self.execution.compile:
            return graph.forward
        try:
            return compile_graph(graph, leaves)
        except Exception as error:
            message = f"{self._name} cannot be compiled: {type(error).__name__}: {error}"
            if self.execution.required:
                raise ArgumentError(f"{message}. Give compile=False") from error
            warnings.warn(f"{message}. The updates are replayed as recorded, compile=False", stacklevel=5)
            self.execution.compile = False
            return graph.forward

    @property
    def _name(self) -> str:
        return getattr(self.function, "__qualname__", str(self.function))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.function, self.execution)  # copies and unpickled ones record anew


class TracedPullBack(Traced):
    """A function that returns `DifferentiableLosses`, recorded with its pull-back and run in two halves.

    The losses come first, since weights may depend on them; the gradients of their weighted sum come when the weights
    are known. Arguments as of `Traced`.
    """

    def _record(self, leaves: list[Tensor], structure: pytree.TreeSpec) -> _Run:
        def losses(inputs: Sequence[Tensor]) -> DifferentiableLosses:
            return self.function(*pytree.tree_unflatten(list(inputs), structure))

        def both(*inputs: Tensor) -> tuple[Any, Any]:
            found = losses(inputs[:-1])
            return (found.losses, found.aux), found.pull_back(inputs[-1])

        weights = torch.ones_like(losses(leaves).losses)
        graph, (value, gradients) = self._graph(both, [*leaves, weights])
        halves = in_halves(graph, value.num_leaves)
        first = self._executable(halves.first, leaves)
        saved = first(*leaves)[value.num_leaves :]
        second = self._executable(halves.second, [*(leaves[i] for i in halves.leaf_indices), *saved, weights])

        def run(leaves: list[Tensor]) -> DifferentiableLosses:
            results = first(*leaves)
            losses, aux = pytree.tree_unflatten(list(results[: value.num_leaves]), value)
            saved = (*(leaves[i] for i in halves.leaf_indices), *results[value.num_leaves :])
            return DifferentiableLosses(
                losses, lambda weights: pytree.tree_unflatten(list(second(*saved, weights)), gradients), aux
            )

        return run
