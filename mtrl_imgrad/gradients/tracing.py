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
from typing import Any, NamedTuple

from torch import Tensor
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.bfloat16 import multiply_in_bfloat16
from mtrl_imgrad.gradients.compilation import compile_graph
from mtrl_imgrad.gradients.execution import Execution
from mtrl_imgrad.gradients.recording import record


class _Record(NamedTuple):
    """A function for one combination of shapes."""

    run: Callable[..., Sequence[Any]]
    """Leaves of the arguments to leaves of the value."""
    structure: pytree.TreeSpec
    """Of the value."""


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
        self._records: dict[Any, _Record] = {}

    def __call__(self, *arguments: Any) -> Any:
        """The function's value; the first call with new shapes records it."""
        if not self.execution.trace:
            return self.function(*arguments)
        leaves, structure = pytree.tree_flatten(arguments)
        # Strides and device count, too: a recorded reshape may be a view for one and a copy for another.
        layout = tuple((leaf.shape, leaf.stride(), leaf.dtype, leaf.device) for leaf in leaves)
        key = (structure, layout, self.execution.compile)
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = self._record(leaves, structure)
        return pytree.tree_unflatten(list(record.run(*leaves)), record.structure)

    def _record(self, leaves: list[Tensor], structure: pytree.TreeSpec) -> _Record:
        specs: list[pytree.TreeSpec] = []

        def flat(*inputs: Tensor) -> list[Any]:
            values, spec = pytree.tree_flatten(self.function(*pytree.tree_unflatten(list(inputs), structure)))
            specs.append(spec)  # the value's structure, known only when the function has run
            return values

        try:
            graph = record(flat, leaves)
        except Exception as error:
            raise ArgumentError(
                f"{self._name} cannot be recorded as a list of tensor operations: {error}. A Python branch on a "
                "tensor's value is the usual cause; torch.where has none"
            ) from error
        if self.execution.precision == "bf16":
            multiply_in_bfloat16(graph)
        run = self._compiled(graph, leaves) if self.execution.compile else graph.forward
        return _Record(run, specs[-1])

    def _compiled(self, graph: GraphModule, leaves: list[Tensor]) -> Callable[..., Sequence[Any]]:
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
        return Traced, (self.function, self.execution)  # copies and unpickled ones record anew
