"""Families of task gradients, from harmless to degenerate, and a slow solver that is right by construction."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor


def families(num_tasks: int, count: int, seed: int = 0) -> dict[str, Tensor]:
    """``[count, K, P]`` Jacobians by name."""
    generator = torch.Generator().manual_seed(seed)
    K = num_tasks

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def powers(decades: float) -> Tensor:
        return 10 ** (decades * torch.rand(count, K, 1, generator=generator, dtype=torch.float64))

    def paired(rows: Tensor, factor: float) -> Tensor:
        rows = rows.clone()
        rows[:, 1::2] = factor * rows[:, 0 : K // 2 * 2 : 2]
        return rows

    low_rank = max(1, K // 3)
    angle = torch.rand(count, K, 1, generator=generator, dtype=torch.float64) * 3.14
    left, right = torch.linalg.qr(normal(count, K, K))[0], torch.linalg.qr(normal(count, K, K))[0]
    spectrum = torch.diag(10 ** (-6 * torch.linspace(0, 1, K, dtype=torch.float64)))
    centred = normal(count, K, 3 * K)
    centred = centred - centred.mean(1, keepdim=True)
    integers = torch.randint(-2, 3, (count, K, max(2, K // 2)), generator=generator).double()
    integers[(integers == 0).all(-1)] = 1
    conflict = torch.sign(normal(count, K, 1)) * normal(count, 1, 3 * K)
    return {
        "independent": normal(count, K, 3 * K),
        "common": normal(count, K, 3 * K) + 3 * normal(count, 1, 3 * K),
        "conflict": (normal(count, K, 3 * K) + 3 * conflict) * normal(count, K, 1).exp(),
        "imbalance 1e6": normal(count, K, 3 * K) * powers(6),
        "imbalance 1e9": normal(count, K, 3 * K) * powers(9),
        "square": normal(count, K, K),
        "low rank": normal(count, K, low_rank),
        "low rank, imbalance": normal(count, K, low_rank) * powers(6),
        "duplicates": paired(normal(count, K, 2 * K), 1.0),
        "collinear": paired(normal(count, K, 2 * K), 2.0),
        "opposed": paired(normal(count, K, 2 * K), -2.0),
        "condition 1e12": left @ spectrum @ right,
        "nearly equal": normal(count, 1, 2 * K) + 1e-5 * normal(count, K, 2 * K),
        "half circle": torch.cat([angle.cos(), angle.sin()], -1),
        "thin half circle": torch.cat([angle.cos(), 1e-5 * angle.sin()], -1),
        "integers": integers,
        "mean zero": centred,
        "mean tiny": centred + 1e-6 * normal(count, 1, 3 * K),
    }


def gramians(jacobians: Tensor) -> Tensor:
    return jacobians @ jacobians.mT


def objective(gramian: np.ndarray, linear: np.ndarray, radius: float, w: np.ndarray) -> float:
    return float(linear @ w + radius * np.sqrt(max(w @ gramian @ w, 0.0)))


def best_by_enumeration(gramian: np.ndarray, linear: np.ndarray, radius: float) -> float:
    """Optimum of ``b'w + q sqrt(w'Mw)`` on the simplex: the best of the closed forms of all supports.

    Works in cosines, where norms that differ by orders of magnitude do no harm.
    """
    norms = np.sqrt(np.diag(gramian))
    cosines = gramian / np.outer(norms, norms)
    best = min(objective(gramian, linear, radius, row) for row in np.eye(len(norms)))
    for size in range(2, len(norms) + 1):
        for support in itertools.combinations(range(len(norms)), size):
            w = _on_support(cosines, norms, linear, radius, list(support))
            if w is not None:
                best = min(best, objective(gramian, linear, radius, w))
    return best


def _on_support(
    cosines: np.ndarray, norms: np.ndarray, linear: np.ndarray, radius: float, support: list[int]
) -> np.ndarray | None:
    block = cosines[np.ix_(support, support)]
    if np.linalg.eigvalsh(block)[0] < 1e-10:
        return None  # some smaller support does as well
    ones, part = 1 / norms[support], linear[support] / norms[support]
    h, k = np.linalg.solve(block, np.stack([ones, part], 1)).T
    e, m = ones @ h, ones @ k
    discriminant = m * m - e * (part @ k - radius**2)
    if discriminant <= 0:
        return None
    y = (m + np.sqrt(discriminant)) / e * h - k
    if y.min() < 0:
        return None
    w = np.zeros(len(norms))
    w[support] = y / norms[support]
    return w / w.sum()
