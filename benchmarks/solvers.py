"""Our solvers beside SciPy's SLSQP, which the authors' codes use, and TorchJD's if installed, on the same Gramians."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from itertools import cycle

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from benchmarks.timing import against, in_turn, table
from mtrl_imgrad.combiners import make_combiner

C = 0.4


def _gramians(num_tasks: int, count: int = 40) -> list[Tensor]:
    """Random gradients in 3 K dimensions with norms that differ by factors of e, and some conflict."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        rows = torch.randn(num_tasks, 3 * num_tasks, generator=generator, dtype=torch.float64)
        rows = rows * torch.randn(num_tasks, 1, generator=generator, dtype=torch.float64).exp()
        gramian = rows @ rows.T
        found.append(gramian / gramian.trace() * num_tasks)
    return found


def _cagrad_by_slsqp(gramian: np.ndarray) -> np.ndarray:
    """CAGrad's dual, handed to SLSQP from the uniform point."""
    num_tasks = len(gramian)
    linear, radius = gramian.mean(1), C * np.sqrt(gramian.mean())
    return minimize(
        lambda w: w @ linear + radius * np.sqrt(w @ gramian @ w + 1e-12),
        np.full(num_tasks, 1 / num_tasks),
        bounds=[(0, 1)] * num_tasks,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
    ).x


def _on_each(function: Callable[[object], object], problems: list) -> Callable[[], object]:
    stream = cycle(problems)
    return lambda: function(next(stream))


def _torchjd() -> dict[str, Callable[[Tensor], object]]:
    """The methods that it has too; none if it is not installed (``pip install torchjd``)."""
    if find_spec("torchjd") is None:
        return {}
    from torchjd import aggregation

    methods = (aggregation.MGDAWeighting(), aggregation.CAGradWeighting(c=C), aggregation.UPGradWeighting())
    return dict(zip(("TorchJD's MGDA", "TorchJD's CAGrad", "TorchJD's UPGrad"), methods, strict=True))


def run() -> str:
    """One solve. IMGrad's holds the min-norm point (mgda) and the dual (cagrad); UPGrad's is K projections."""
    parts = []
    for num_tasks in (10, 50):
        gramians = _gramians(num_tasks)
        candidates = {"CAGrad by SLSQP": _on_each(_cagrad_by_slsqp, [g.numpy() for g in gramians])}
        ours = {name: make_combiner(name).weights for name in ("mgda", "cagrad", "imgrad", "nash_mtl", "upgrad")}
        for name, function in (ours | _torchjd()).items():
            candidates[name] = _on_each(function, gramians)
        timings = in_turn(candidates, calls=len(gramians), rounds=5, warm_up=10)
        rows = against("CAGrad by SLSQP", timings)
        parts.append(table(f"One solve, K = {num_tasks}", ("solver", "CPU ms", "time / SLSQP"), rows))
    return "\n".join(parts)
