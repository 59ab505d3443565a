"""Recorded operations to machine code, by PyTorch's Inductor.

Inductor fuses the elementwise operations between matrix products into C++ (on CUDA: Triton) kernels. Shapes are fixed,
as recorded. What it made lies in its cache on disk (``TORCHINDUCTOR_CACHE_DIR``), so that a second run starts at once.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule


def missing_compiler(device: torch.device) -> str | None:
    """A sentence on what is missing to compile for a device, with the remedy; None if nothing is."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "Triton is missing (pip install triton)"
    if any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        return None
    return "there is no C++ compiler (Debian, Ubuntu: apt install g++; macOS: xcode-select --install)"


def compile_graph(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Sequence[Any]]:
    """The compiled graph, for inputs of these shapes and strides.

    Args:
        graph: takes tensors, returns a list of tensors.
        inputs: an example.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch's own, of what its compiler uses
        from torch._inductor import compile as compile_fx  # half a second to import

        return compile_fx(graph, list(inputs))
