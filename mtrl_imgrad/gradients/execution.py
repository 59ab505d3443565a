"""How the recorded functions of an agent are run: replayed or compiled, and how precisely they multiply matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bf16"]
"""Of matrix products: ``"bf16"`` rounds their factors and results to bfloat16. All else is float32."""


@dataclass
class Execution:
    """The settings that all recorded functions of an agent share; ``compile`` may be set between two calls.

    Attributes:
        trace: record a function's operations once and replay them; False calls the function each time, for debugging.
        precision: of matrix products; needs ``trace``.
        compile: hand the recorded operations to PyTorch's compiler; needs ``trace``.
        required: what becomes of a function that cannot be compiled: an error, or (False) a warning, and from then on
            all functions are replayed.
    """

    trace: bool = True
    precision: Precision = "float32"
    compile: bool = False
    required: bool = True
