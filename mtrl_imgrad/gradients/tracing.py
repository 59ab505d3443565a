"""Run a pure tensor function as the flat list of operations that it consists of.

Per-task gradients come from function transforms (vmap over grad), whose bookkeeping in Python costs as much as the
arithmetic when networks are small. The transforms do not depend on the numbers, so it is enough to go through them
once: the first call with new shapes records the elementary operations, later calls replay them. The operations, and
so the results, are the same bit for bit. No compiler is needed, on CPU and CUDA alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.recording import record

__all__ = ["Traced"]


class Traced:
    """A pure function of tensors, recorded once for each combination of shapes.

    Args:
        function: takes pytrees of tensors and returns one. All tensors that it uses must be arguments (a captured
            one would be recorded as a constant), and no Python branch may depend on a value.
        enabled: False calls the function itself each time.

    Raises:
        ArgumentError: at the first call, if the function cannot be recorded, with the reason.
    """

    def __init__(self, function: Callable[..., Any], enabled: bool = True) -> None:
        self.function = function
        self.enabled = enabled
        self._graphs: dict[Any, GraphModule] = {}

    def __call__(self, *arguments: Any) -> Any:
        """The function's value; the first call with new shapes records it."""
        if not self.enabled:
            return self.function(*arguments)
        leaves, structure = pytree.tree_flatten(arguments)
        key = (structure, tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves))
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = self._record(arguments)
        return graph.forward(*arguments)

    def _record(self, arguments: tuple[Any, ...]) -> GraphModule:
        try:
            return record(self.function, arguments)
        except Exception as error:
            raise ArgumentError(
                f"{getattr(self.function, '__qualname__', self.function)} cannot be recorded as a list of tensor "
                f"operations: {error}. A Python branch on a tensor's value is the usual cause; torch.where has none"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return Traced, (self.function, self.enabled)
