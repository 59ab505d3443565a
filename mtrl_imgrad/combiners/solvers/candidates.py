"""Quick candidates for the solution of a single problem on a CPU, which the solvers check before they accept them.

At K = 10 a solve is some hundred operations on a few numbers each, and what they cost is PyTorch's dispatch. NumPy's is
a third of that. So for one problem on a CPU a plain method without safeguards is tried here first. **Nothing rests on
its being right**: a candidate is accepted only where it meets the solvers' own optimality conditions, and where it
does not the solver runs as if there were none. Batches, other devices, compiled graphs and ``torch.vmap`` get
no candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import torch
from torch import Tensor

_EXCHANGES = 12
_NEWTON_STEPS = 40
_SLIGHT = 1e-15
"""Relative size of differences that are taken for rounding error."""

Method = Callable[..., np.ndarray | None]


def find_candidate(method: Method, *data: Tensor | float) -> Tensor | None:
    """The candidate of ``method`` for the data; None if it has none.

    Args:
        method: `minimum_candidate` or `balance_candidate`.
        data: its arguments, of a single problem on a CPU.
    """
    try:
        arrays = [part.numpy() if isinstance(part, Tensor) else part for part in data]
    except RuntimeError:  # inside a transform of torch.func
        return None
    try:
        with np.errstate(all="ignore"):
            candidate = method(*arrays)
    except np.linalg.LinAlgError:
        return None
    return None if candidate is None else torch.from_numpy(candidate)


def minimum_candidate(C: np.ndarray, a: np.ndarray, b: np.ndarray, q: np.ndarray) -> np.ndarray | None:
    """A candidate minimum of ``(b'z + q |z|_C) / a'z`` over z >= 0: exchange of whole sets of tasks.

    From the best single task on: the closed form of the optimum on a set of tasks says which of them are not wanted,
    and its multipliers which others are. Arguments as for `mtrl_imgrad.combiners.solvers.active_set.minimise`.

    Returns:
        ``[K + 1]``: the z of length q, and the objective there.
    """
    values = (b + q) / a  # infinite for a task left out
    best = values.argmin()
    nu = values[best]
    unit = _SLIGHT * (q + abs(b))
    free = q * C[best] + b - nu * a < -unit
    free[best] = True
    right = np.array([a, b]).T
    for _ in range(_EXCHANGES):
        chosen = free.nonzero()[0]
        columns = C[:, chosen]
        given = right[chosen]
        block = columns[chosen]
        h, k = np.linalg.solve(block, given).T  # as in the active-set method's closed form
        e, m = h @ given
        centre = m / e
        offset = k - centre * h
        square = (q * q - offset @ (given[:, 1] - centre * given[:, 0])) / e
        if square > 0:
            beyond = sqrt(square)
            nu = centre + beyond
            part = beyond * h - offset
        else:
            z = np.maximum(nu * h - k, 0)  # no optimum on this set: the inner optimum, with its objective for nu
            low = (given[:, 1] @ z + q * sqrt(max(z @ block @ z, 0))) / (given[:, 0] @ z)
            nu = min(nu, low)
            part = nu * h - k
        wanted = columns @ part + b - nu * a < -unit - _SLIGHT * abs(nu) * a
        wanted[chosen] = part > 0
        if (wanted == free).all():
            break
        free = wanted
    y = np.zeros(len(a) + 1)
    y[chosen] = part
    y[-1] = nu
    return y


def balance_candidate(C: np.ndarray, log_b: np.ndarray, p: float) -> np.ndarray | None:
    """A candidate for ``C z = b z^(-p)``: Newton's method, shortened as in `mtrl_imgrad.combiners.solvers.power_fair`.

    Args:
        C: ``[K, K]`` positive semi-definite.
        log_b: ``[K]``.
        p: positive.

    Returns:
        z ``[K]``, or None where the steps do not become small.
    """
    z = np.exp(log_b / (1 + p))
    hessian = C.copy()
    diagonal = hessian.reshape(-1)[:: len(C) + 1]  # a view
    unit = diagonal.copy()
    for _ in range(_NEWTON_STEPS):
        curvature = np.exp(log_b - (1 + p) * np.log(z))
        diagonal[:] = unit + p * curvature
        step = np.linalg.solve(hessian, curvature * z - C @ z)
        relative = step / z
        z = z + min(1.0, 0.5 / (1 + p) / max(-relative.min(), 1e-300)) * step
        if abs(relative).max() < 1e-8:
            return z
    return None
