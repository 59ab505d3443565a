"""Matrix products in bfloat16, everything between them in float32."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default}
"""What PyTorch's layers, and products of batches, are recorded as."""
CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Of processors that multiply bfloat16, in ``/proc/cpuinfo`` (the last: ARM)."""


def multiply_in_bfloat16(graph: GraphModule) -> None:
    """Round the factors and results of all float32 matrix products in a recorded graph; changes it in place.

    Sums within a product are float32, as the processor makes them.
    """
    nodes = graph.graph
    for node in list(nodes.nodes):
        if node.target not in PRODUCTS or node.meta["val"].dtype != torch.float32:
            continue
        with nodes.inserting_before(node):
            node.args = tuple(_cast(graph, argument, torch.bfloat16) for argument in node.args)
        with nodes.inserting_after(node):
            result = _cast(graph, node, torch.float32)
        node.replace_all_uses_with(result, delete_user_cb=lambda user, result=result: user is not result)
    graph.recompile()


def _cast(graph: GraphModule, value: object, dtype: torch.dtype) -> object:
    if not isinstance(value, Node):
        return value
    return graph.graph.call_function(aten._to_copy.default, (value,), {"dtype": dtype})


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32; False where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return bool(CPU_FLAGS & set(flags.split()))
