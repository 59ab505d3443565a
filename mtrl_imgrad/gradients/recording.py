"""Record the tensor operations of a pure function as a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx


def record(function: Callable[..., Any], arguments: Sequence[Any]) -> GraphModule:
    """The operations that ``function(*arguments)`` makes.

    Args:
        function: takes and returns pytrees of tensors.
        arguments: an example; the numbers do not matter.

    Returns:
        A graph that takes ``arguments``, and others of the same shapes.
    """
    # make_fx notes the shape of each result in a mode for fake tensors. It makes a mode for each result, which takes
    # most of the time, unless it finds one.
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        return make_fx(lambda *inputs: function(*inputs))(*arguments)
