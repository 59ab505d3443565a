"""What each Gramian method claims of its weights, written out from the papers and asked of the weights alone.

Everything is computed in long doubles from the Gramian that the combiner was given, made symmetric and put into units
in which gradients have unit mean square length. A task whose norm is below 1e-12 of the largest counts as zero and is
not asked. Every function returns by how much its claims fail, ``[B]``, in the unit of the method's residual.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import nnls

Extras = Mapping[str, np.ndarray]


class Problem:
    """A batch of Gramians ``[B, K, K]`` and what the claims are made of; ``shares`` [K] weigh the mean gradient."""

    def __init__(self, gramians: np.ndarray, shares: np.ndarray | None = None) -> None:
        M = gramians.astype(np.longdouble)
        M = (M + M.transpose(0, 2, 1)) / 2
        self.num_tasks = M.shape[-1]
        self.unit = M.diagonal(0, 1, 2).mean(-1)
        self.M = M / self.unit[:, None, None]
        squares = self.M.diagonal(0, 1, 2)
        self.alive = squares > 1e-24 * squares.max(-1, keepdims=True)
        self.norms = np.sqrt(np.where(self.alive, squares, 1))
        self.shares = np.full(self.num_tasks, np.longdouble(1) / self.num_tasks) if shares is None else shares
        self.mean = (self.M * self.shares).sum(-1)
        square = (self.mean * self.shares).sum(-1)
        self.mean_norm = np.sqrt(np.maximum(square, 0))
        # Numbers of this size cancel in the square of the mean gradient's length; the given ones are rounded.
        terms = (np.sqrt(squares) * self.shares).sum(-1) ** 2
        self.mean_rounding = 16 * 2.0**-52 * terms / np.maximum(square, 1e-300)

    def times(self, weights: np.ndarray) -> np.ndarray:
        """Product of every task gradient with the combination, ``[B, K]``."""
        return (self.M @ weights[..., None])[..., 0]

    def length(self, weights: np.ndarray) -> np.ndarray:
        """Of the combination, ``[B]``."""
        return np.sqrt(np.maximum((weights * self.times(weights)).sum(-1), 0))

    def size(self, weights: np.ndarray) -> np.ndarray:
        """Summed lengths of what is combined, ``[B]``."""
        return (np.abs(weights) * np.where(self.alive, self.norms, 0)).sum(-1)

    def worst(self, violations: np.ndarray) -> np.ndarray:
        """The largest of ``[B, K]`` over the tasks that count, at least 0."""
        return np.where(self.alive, violations, 0).max(-1).clip(0)


def not_on_simplex(weights: np.ndarray) -> np.ndarray:
    return np.maximum(-weights.min(-1), np.abs(weights.sum(-1) - 1))


def shortest(problem: Problem, weights: np.ndarray) -> np.ndarray:
    """MGDA: ``g_i . g_w >= |g_w|^2``, in units of ``|g_i| sum_j w_j |g_j|``."""
    products = problem.times(weights)
    square = (weights * products).sum(-1, keepdims=True)
    lacking = (square - products) / (problem.norms * problem.size(weights)[:, None])
    return np.maximum(problem.worst(lacking), not_on_simplex(weights))


def drawn_to_mean(problem: Problem, values: np.ndarray, lam: float) -> np.ndarray:
    """SDMGrad: with h the combination, ``(g_i + lam g0) . h >= |h|^2``, as MGDA's for the shifted gradients."""
    K = problem.num_tasks
    w = (1 + lam) * values - lam / K
    shifted = problem.M + lam * (problem.mean[:, :, None] + problem.mean[:, None, :])
    shifted = (shifted + lam**2 * (problem.mean_norm**2)[:, None, None]) / (1 + lam) ** 2
    norms = np.sqrt(shifted.diagonal(0, 1, 2).clip(1e-40))
    products = (shifted @ w[..., None])[..., 0]
    lacking = ((w * products).sum(-1, keepdims=True) - products) / (norms * (np.abs(w) * norms).sum(-1)[:, None])
    # A shifted gradient that vanishes is itself the shortest point.
    lacking = np.where((norms < 1e-12 * norms.max(-1, keepdims=True)).any(-1, keepdims=True), 0, lacking)
    return np.maximum(problem.worst(lacking), not_on_simplex(w))


def saddle(
    problem: Problem, correction: np.ndarray, w: np.ndarray, linear: np.ndarray, radius: np.ndarray
) -> np.ndarray:
    """Weak duality of ``max over |u| <= q of min_i (g_i . u + b_i)``, for ``u = correction @ rows``.

    Every w on the simplex proves that no u gains more than ``b'w + q |g_w|``. The gap is in units of ``|g_i| (q + max_j
    |b_j| / |g_j|)``, and u must not be longer than q.
    """
    bound = (linear * w).sum(-1) + radius * problem.length(w)
    steep = np.where(problem.alive, np.abs(linear) / problem.norms, 0).max(-1)
    lacking = (bound[:, None] - problem.times(correction) - linear) / (
        problem.norms * np.maximum(radius + steep, 1e-300)[:, None]
    )
    longer = (problem.length(correction) - radius) / np.maximum(problem.size(correction), 1e-300)
    found = np.maximum(problem.worst(lacking), longer) - problem.mean_rounding
    return np.maximum(found, not_on_simplex(w))


def conflict_averse(problem: Problem, values: np.ndarray, c: float, divisor: float, extras: Extras) -> np.ndarray:
    """CAGrad: ``values * divisor`` is the mean plus the best correction of length ``c |g0|``."""
    correction = values * divisor - problem.shares
    correction = np.where(np.abs(correction) < 1e-15, 0, correction)
    return saddle(problem, correction, extras["simplex_weights"], problem.mean, c * problem.mean_norm)


def imbalance_sensitive(problem: Problem, values: np.ndarray, c: float, divisor: float, extras: Extras) -> np.ndarray:
    """IMGrad: mu times the correction answers CAGrad's problem for ``(1.5 - mu) b`` and the radius ``mu c |g0|``."""
    mu = extras["mu"]
    correction = mu[:, None] * (values * divisor - problem.shares)
    correction = np.where(np.abs(correction) < 1e-15, 0, correction)
    linear, radius = (1.5 - mu)[:, None] * problem.mean, mu * c * problem.mean_norm
    return saddle(problem, correction, extras["simplex_weights"], linear, radius)


def in_the_cone(problem: Problem, values: np.ndarray, c: float, extras: Extras) -> np.ndarray:
    """ConicGrad: d in the cone, not longer than g0, and no unit vector of the cone gains more, by the dual's w."""
    w = extras["simplex_weights"]
    mean_norm = problem.mean_norm
    along, length = (w * problem.mean).sum(-1) / mean_norm, problem.length(w)
    across = np.sqrt(np.maximum(length**2 - along**2, 0))
    bound = mean_norm * np.where(along >= c * length, length, c * along + np.sqrt(1 - c**2) * across)
    lacking = (bound[:, None] - problem.times(values)) / (problem.norms * mean_norm[:, None])
    found = problem.length(values)
    turned = c * found - (values * problem.mean).sum(-1) / mean_norm
    longer = np.maximum(turned, found - mean_norm) / problem.size(values)
    return np.stack([problem.worst(lacking), longer.clip(0), not_on_simplex(w)]).max(0)


def fair(problem: Problem, weights: np.ndarray, alpha: float) -> np.ndarray:
    """FairGrad, and Nash-MTL for alpha = 1: ``(M w)_i w_i^(1 / alpha) = 1``, in the given unit, and w > 0."""
    gains = problem.times(weights) * problem.unit[:, None]
    balance = gains * np.where(problem.alive, weights, 1).clip(0) ** np.longdouble(1 / alpha)
    return problem.worst(np.where(weights > 0, np.abs(balance - 1), np.inf))


def bargain(problem: Problem, values: np.ndarray, max_norm: float, extras: Extras) -> np.ndarray:
    """Nash-MTL: the bargain, shortened to ``max_norm``."""
    a = extras["bargaining_weights"]
    length = problem.length(a) * np.sqrt(problem.unit)
    expected = a * np.minimum(1, max_norm / length)[:, None]
    return np.maximum(fair(problem, a, 1.0), np.abs(values / np.where(a > 0, expected, 1) - (a > 0)).max(-1))


def equal_projections(problem: Problem, values: np.ndarray) -> np.ndarray:
    """IMTL-G: ``g_i . d / |g_i|`` the same for all, in units of ``sum_j |v_j| |g_j|``, and weights of sum 1."""
    projections = problem.times(values) / problem.norms
    highest = np.where(problem.alive, projections, -np.inf).max(-1)
    lowest = np.where(problem.alive, projections, np.inf).min(-1)
    total = np.abs(values.sum(-1) - 1) / np.abs(values).sum(-1)
    return np.maximum((highest - lowest) / problem.size(values), total)


def as_equal_as_can_be(problem: Problem, values: np.ndarray) -> np.ndarray:
    """ConFIG: with ``z = n v`` and C the cosines, ``C (s C z - 1) = 0`` for a scale s, and the length as stated."""
    z = np.where(problem.alive, values * problem.norms, 0)
    ones = problem.alive.astype(np.longdouble)
    inverse = np.where(problem.alive, 1 / problem.norms, 0)
    C = problem.M * inverse[:, :, None] * inverse[:, None, :]
    Cz = (C @ z[..., None])[..., 0]
    square = (z * Cz).sum(-1)
    zero = (z == 0).all(-1)
    scale = np.where(zero, 0, Cz.sum(-1) / np.where(zero, 1, (Cz * Cz).sum(-1)))
    unmet = (C @ (scale[:, None] * Cz - ones)[..., None])[..., 0]
    misfit = np.abs(unmet).max(-1) / (1 + np.abs(scale) * np.abs(z).sum(-1))
    # The update u |u| = d has the length sum_i g_i . u / (K |u|), which may be what rounding leaves of it.
    length = np.sqrt(square.clip(0))
    stated = (problem.norms * Cz).sum(-1) / problem.num_tasks
    lost = 4 * np.sqrt(2.0**-52 * (np.abs(z)[..., None, :] @ np.abs(C) @ np.abs(z)[..., None])[..., 0, 0])
    wrong = np.abs(length - stated / np.maximum(length, 1e-300)) - lost
    wrong = wrong / (problem.norms * problem.alive).mean(-1)
    return np.where(zero, 0, np.maximum(misfit, wrong))


def harms_none(problem: Problem, values: np.ndarray) -> np.ndarray:
    """UPGrad, and every ``pareto_safe``: no ``g_i . d`` is negative, in units of ``|g_i| sum_j |v_j g_j|``."""
    return problem.worst(-problem.times(values) / (problem.norms * problem.size(values)[:, None]))


def operated(problem: Problem, orders: np.ndarray) -> np.ndarray:
    """PCGrad's weights, task by task as the paper has it, for the orders ``[B, K, K]`` in which others are met."""
    count, K = problem.norms.shape
    weights = np.ones((count, K), dtype=np.longdouble) / K
    for b in range(count):
        total = np.zeros(K, dtype=np.longdouble)
        for i in range(K):
            part = np.zeros(K, dtype=np.longdouble)
            part[i] = 1
            for j in orders[b, i]:
                product = problem.M[b, j] @ part
                if j != i and product < 0 and problem.alive[b, j] and problem.alive[b, i]:
                    part[j] -= product / problem.M[b, j, j]
            total += part
        weights[b] = total / K
    return weights


def bargain_with_imbalance(problem: Problem, values: np.ndarray, extras: Extras) -> np.ndarray:
    """IMGrad on Nash-MTL: the conditions for a local optimum of its program, multipliers by non-negative least squares.

    The update has unit length. Its length before, in the unit of the program, follows from the surpluses.
    """
    surplus, mu = extras["surplus"], extras["mu"]
    z = values * problem.norms * np.sqrt(problem.unit * (problem.alive + surplus).sum(-1))[:, None]
    found = np.zeros(len(z))
    for b, alive in enumerate(problem.alive):
        norms, one = problem.norms[b, alive], z[b, alive]
        C = problem.M[b][np.ix_(alive, alive)] / np.outer(norms, norms)
        product = C @ one
        phi = np.log(np.maximum(one * product, 1e-300))
        cost = one * ((1.5 - mu[b]) * (C @ norms) + mu[b] * (1 / one + C @ (1 / product)))
        unit = np.abs(cost).max()
        stationary = (np.diag(1 / one) + C / product[:, None]).T * one[:, None]
        system = np.vstack([stationary, np.diag(phi)]).astype(float)
        right = np.concatenate([cost / unit, np.zeros(len(one))]).astype(float)
        unmet = nnls(system, right)[1]
        missed = max(unmet, float(-phi.min()), float(np.abs(phi - np.log1p(surplus[b, alive])).max()))
        # Between opposed gradients the products are small differences of large numbers, known as well as the weights.
        found[b] = missed - 8 * 2.0**-52 * float((np.abs(C) @ np.abs(one) / np.abs(product)).max())
    return found


def aligned(problem: Problem, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Aligned-MTL: ``B 1 / K`` with B from the singular values of the rows, which have twice the Gramian's digits."""
    left, singular, _ = np.linalg.svd(rows, full_matrices=False)
    kept = singular**2 > 32 * 2.0**-52 * problem.num_tasks * singular[:, :1] ** 2
    smallest = np.where(kept, singular, np.inf).min(-1, keepdims=True)
    factors = np.where(kept, smallest / np.where(kept, singular, 1), 0)
    parts = factors * left.sum(1) / problem.num_tasks
    expected = np.where(problem.alive, (left @ parts[..., None])[..., 0], 0)
    # Of opposed gradients the parts of B 1 cancel: the answer is nearly zero beside the entries of B.
    size = np.maximum(np.abs(expected).max(-1), factors.max(-1) / problem.num_tasks)
    return np.abs(values - expected).max(-1) / size


def projected(problem: Problem, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """UPGrad: the mean of the gradients' projections P, each by non-negative least squares on the unit rows.

    With y the multipliers of either answer, ``|P - P'|^2 <= sum_i y_i e_i + y'_i e'_i``, where e is what each misses of
    its conditions. So the squared distance is in units of the multipliers' sum: between opposed gradients the cone is
    so thin that the last digit of a product decides about its width, and multipliers are large.
    """
    found = np.zeros(len(rows))
    for b, alive in enumerate(problem.alive):
        norms = np.linalg.norm(rows[b, alive], axis=-1)
        units = rows[b, alive] / norms[:, None]
        multipliers = np.stack([nnls(units.T, -unit, maxiter=10_000)[0] for unit in units])
        expected = norms @ (units + multipliers @ units) / norms.sum()
        update = values[b, alive].astype(float) @ rows[b, alive] * problem.num_tasks / norms.sum()
        added = values[b, alive].astype(float) @ norms * problem.num_tasks / norms.sum()
        found[b] = ((update - expected) ** 2).sum() / (added + multipliers.sum(-1).max())
    return found


def differs(problem: Problem, values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Coefficients of the unit gradients, by how much the largest differs, relative to their sum."""
    apart = np.where(problem.alive, np.abs(values - expected) * problem.norms, np.abs(values - expected))
    return apart.max(-1) / problem.size(expected)
