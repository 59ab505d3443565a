"""Other machines' rounding, imitated: operations of torch whose last bits depend on the processor return other ones.

Sums, products of matrices and transcendental functions are rounded differently by each instruction set and number of
threads. Under `OtherRounding(seed)` each number that such an operation returns is moved by at most two units in the
last place, by a hash of its bits: each seed is another machine, and the same numbers go in the same way every time, so
what a machine does to the bit (resuming, a seed that determines a run) still holds. Numbers that need only half of the
digits stay as they are: they are exact everywhere.

    pytest --rounding 1 tests/...
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ROUNDED = frozenset(
    # products
    "mm addmm bmm baddbmm mv addmv dot vdot addr linear addcmul addcdiv lerp convolution convolution_backward "
    # sums
    "sum mean prod cumsum logsumexp var std var_mean norm linalg_vector_norm mse_loss nll_loss_forward "
    "native_layer_norm native_layer_norm_backward native_batch_norm native_batch_norm_backward "
    # transcendental functions
    "exp expm1 log log1p log2 tanh sigmoid softplus gelu silu elu sin cos erfinv pow rsqrt _softmax _log_softmax "
    "_softmax_backward_data _log_softmax_backward_data tanh_backward sigmoid_backward softplus_backward "
    # linear algebra
    "_linalg_eigh _linalg_svd _linalg_solve_ex linalg_cholesky_ex linalg_qr linalg_lstsq linalg_inv_ex".split()
)
"""Names of operations of aten; those of them that write in place (`exp_`) or take lists (`_foreach_exp`), too."""

_HALF_OF_THE_DIGITS = {torch.float32: (1 << 12) - 1, torch.float64: (1 << 28) - 1}
_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
_FACTORS = {torch.float32: -1640531535, torch.float64: -7046029254386353131}  # Knuth's multiplicative hash


class OtherRounding(TorchDispatchMode):
    """Within it, torch rounds as no machine does, and as differently as any."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation, and its results with other last bits."""
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name.removeprefix("_foreach_").removesuffix("_") not in ROUNDED:
            return found
        if name.endswith("_"):
            for tensor in args[0] if isinstance(args[0], list | tuple) else [args[0]]:
                tensor.copy_(self._moved(tensor))
            return found
        if isinstance(found, list | tuple):
            return type(found)([self._moved(each) for each in found])
        return self._moved(found)

    def _moved(self, values: Any) -> Any:
        if not isinstance(values, Tensor) or values.dtype not in _INTEGERS:
            return values
        bits = values.contiguous().view(_INTEGERS[values.dtype])
        hashed = (bits ^ (self.seed * 40503)) * _FACTORS[values.dtype]
        units = (hashed >> (bits.element_size() * 8 - 3)) % 5 - 2
        units *= (bits & _HALF_OF_THE_DIGITS[values.dtype]) != 0
        return values * (1 + units.to(values.dtype) * torch.finfo(values.dtype).eps)
