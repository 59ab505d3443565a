"""Random Gramians, most of them as bad as gradients can be: 24 decades, any rank, zero, equal, opposed, rounded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DECADES = 12
"""Singular values and norms lie within this many decades on either side of 1."""
KINDS = ("plain", "rank", "spectrum", "norms", "twins", "opposed", "zeros", "nearly equal", "stationary", "float32")


@dataclass(frozen=True)
class Batch:
    """Problems of one number of tasks.

    Attributes:
        rows: ``[B, K, P]`` float64, the task gradients.
        gramians: ``[B, K, K]`` float64, what is given to a combiner. Not quite symmetric, as by matrix products.
        exact: ``[B]`` whether they are the rows' inner products up to float64's rounding.
    """

    rows: np.ndarray
    gramians: np.ndarray
    exact: np.ndarray


def batches(count: int, seed: int = 0) -> list[Batch]:
    """About ``count`` problems, half of them of up to four tasks, a few of fifty."""
    generator = np.random.default_rng(seed)
    shares = {1: 0.03, 2: 0.15, 3: 0.2, 4: 0.12, 5: 0.1, 6: 0.1, 8: 0.1, 10: 0.1, 12: 0.08, 50: 0.02}
    return [_batch(generator, tasks, max(2, round(share * count))) for tasks, share in shares.items()]


def _batch(generator: np.random.Generator, tasks: int, count: int) -> Batch:
    first = generator.integers(len(KINDS))
    kinds = [KINDS[(first + i) % len(KINDS)] for i in range(count)]
    rows = np.stack([_rows(generator, tasks, kind) for kind in kinds])
    narrow = np.array([kind == "float32" for kind in kinds])
    scale = 10 ** generator.uniform(-DECADES, DECADES, (count, 1, 1))
    rows = rows * np.where(narrow[:, None, None], 1.0, scale)
    gramians = rows @ rows.transpose(0, 2, 1)
    gramians[narrow] = rows[narrow].astype(np.float32) @ rows[narrow].astype(np.float32).transpose(0, 2, 1)
    norms = np.sqrt(gramians.diagonal(0, 1, 2))
    skew = generator.normal(size=gramians.shape) * norms[:, :, None] * norms[:, None, :]
    gramians = gramians + 6e-8 * (skew - skew.transpose(0, 2, 1))
    return Batch(rows, gramians, ~narrow)


def _rows(generator: np.random.Generator, tasks: int, kind: str) -> np.ndarray:
    """``[K, 2 K + 2]``."""
    size = 2 * tasks + 2
    rows = generator.normal(size=(tasks, size))
    if kind == "rank":
        rank = generator.integers(0, tasks + 1)
        rows = generator.normal(size=(tasks, rank)) @ generator.normal(size=(rank, size))
    elif kind == "spectrum":
        left, right = (np.linalg.qr(generator.normal(size=(n, n)))[0] for n in (tasks, size))
        spread = generator.choice([3, 6, 8, DECADES])
        rows = left * 10 ** generator.uniform(-spread, spread, tasks) @ right[:tasks]
    elif kind == "norms":
        spread = generator.choice([3, 6, DECADES])
        rows = rows * 10 ** generator.uniform(-spread, spread, (tasks, 1))
    elif kind in ("twins", "opposed"):
        chosen = generator.integers(0, tasks, tasks)
        factor = 10 ** generator.uniform(-3, 3, tasks) if generator.random() < 0.5 else np.ones(tasks)
        sign = generator.choice([-1, 1], tasks) if kind == "opposed" else np.ones(tasks)
        copied = generator.random(tasks) < 0.5
        rows = np.where(copied[:, None], (sign * factor)[:, None] * rows[chosen], rows)
    elif kind == "zeros":
        rows[generator.random(tasks) < 0.4] = 0
    elif kind == "nearly equal":
        rows = rows[:1] + 10 ** generator.uniform(-14, -1) * rows
    elif kind == "stationary":
        # Some of the gradients average to zero, or to almost that.
        few = generator.integers(1, tasks + 1)
        rows[:few] -= (1 - 10 ** generator.uniform(-18, -2)) * rows[:few].mean(0)
    return rows
