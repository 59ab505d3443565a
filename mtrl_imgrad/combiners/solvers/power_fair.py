"""The balance ``(M w)_i = w_i^(-1/alpha)``, w > 0, which defines FairGrad, and Nash-MTL for alpha = 1.

With p = 1/alpha, n the gradient norms, C their cosines and ``z = n w`` it reads ``C z = b z^(-p)``, ``b = n^(p-1)``.
That is where the gradient of a strictly convex function vanishes; for p = 1 the function is ``z'Cz / 2 - sum log z``.
Newton's method finds the point. Its step is shortened where a z would shrink by much: the Hessian along the step is
then at most twice that at its start, so every step descends and no line search is needed.

There is no such w where some combination of the gradients with weights >= 0 is zero (a Pareto-stationary point; for
instance two opposed gradients). Beside the problem itself the one for ``C + 1e-10`` is solved, which always has an
answer; it is returned where the problem itself was not solved, with the status ``INACCURATE`` and its residual.

Everything is batched and masked: no branch depends on a value, except that on a CPU the loop stops early.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl_imgrad.combiners.solvers.active_set import may_ask, substitute
from mtrl_imgrad.combiners.solvers.candidates import balance_candidate, find_candidate
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian
from mtrl_imgrad.combiners.solvers.optimality import ROUNDING
from mtrl_imgrad.combiners.weights import solved_where

TOLERANCE = 1e-6
"""Residual, with what rounding may add to it, up to which an answer counts as solved."""
RIDGE = 1e-10
"""Added to the cosines for the answer where there is none without; see the module."""
_FACTOR_RIDGE = 1e-14
"""Keeps a Cholesky factor of dependent gradients defined. It bends steps, not the answer."""


@dataclass(frozen=True)
class PowerFairSolution:
    """A fair balance with its certificate.

    Attributes:
        weights: ``[..., K]`` float64 w in the unit of the Gramian given, positive; 0 for a zero gradient.
        length: ``[...]`` of the combined gradient in that unit, ``sqrt(w'Mw)``.
        residual: ``[...]`` largest ``|w_i^(1/alpha) (M w)_i - 1|``.
        status_code: ``[...]`` int64 `Status` values.
    """

    weights: Tensor
    length: Tensor
    residual: Tensor
    status_code: Tensor


def power_fair(problem: NormalizedGramian, alpha: float) -> PowerFairSolution:
    """Solve ``M w = w^(-1/alpha)`` for the tasks whose gradient is not zero.

    On a CPU the loop ends when all problems of the batch are solved, and for one problem alone it starts from where a
    quicker method ended, see `mtrl_imgrad.combiners.solvers.candidates`. Elsewhere, in a compiled graph and inside
    ``torch.vmap`` it takes a fixed number of steps, so that the host need not wait for an answer.

    Args:
        problem: the Gramian.
        alpha: positive.
    """
    p = 1 / alpha
    cosines = problem.cosines[..., None, :, :]
    eye = torch.eye(problem.num_tasks, dtype=torch.float64, device=cosines.device)
    # A task left out has the equation z = 1 / z^p, on its own.
    nonzero = problem.nonzero[..., None, :]
    plain = torch.where(nonzero[..., None], cosines, eye)
    systems = torch.cat([plain, plain + RIDGE * eye], -3)
    log_b = (p - 1) * torch.where(nonzero, problem.norms[..., None, :], 1.0).log()
    z = (log_b / (1 + p)).exp()  # the answer for orthogonal gradients
    can_stop = may_ask(cosines)
    if can_stop and problem.values.ndim == 2:
        candidate = find_candidate(balance_candidate, systems[0], log_b[0], p)
        z = z if candidate is None else candidate[None]
    z = z.expand(systems.shape[:-1])
    done = torch.zeros_like(z[..., :1], dtype=torch.bool)
    for _ in range(_step_limit(can_stop)):
        product, curvature, residual, noise = _residuals(systems, log_b, p, z)
        done = done | ((residual <= noise).all(-1, keepdim=True))
        if can_stop and bool(_settled(done, noise).all()):
            break
        z = torch.where(done, z, z + _step(systems, product, curvature, p, z))
    exact = systems[..., :1, :, :]  # residuals are those of the problem without a ridge, for both answers
    residual, noise = (part.amax(-1) for part in _residuals(exact, log_b, p, z)[2:])
    solved = residual + noise <= TOLERANCE
    keep = solved[..., :1]
    z = torch.where(keep, z[..., 0, :], z[..., 1, :])
    residual = torch.where(keep, residual, residual[..., 1:])[..., 0]
    return _solution(problem, alpha, z, residual, keep[..., 0])


def check_balance(problem: NormalizedGramian, z: Tensor) -> PowerFairSolution:
    """Any ``z = norms * w`` [..., K], positive, with its residual as an answer to `power_fair` for alpha = 1."""
    balance = z * (problem.cosines @ z[..., None])[..., 0]
    residual = torch.where(problem.nonzero, (balance - 1).abs(), 0.0).amax(-1)
    return _solution(problem, 1.0, z, residual, residual <= TOLERANCE)


def _solution(
    problem: NormalizedGramian, alpha: float, z: Tensor, residual: Tensor, solved: Tensor
) -> PowerFairSolution:
    w = problem.inverse_norms * z  # in units of the normalized Gramian
    length = (w * (problem.values @ w[..., None])[..., 0]).sum(-1).clamp_min(0).sqrt()
    unit = problem.scale ** (-alpha / (1 + alpha))  # M times s makes w^(1 + 1/alpha) 1 / s of what it was
    status = solved_where(solved)
    return PowerFairSolution(
        weights=w * unit[..., None],
        length=length * unit * problem.scale.sqrt(),
        residual=torch.where(problem.zero, 0.0, residual),
        status_code=problem.status_code(status),
    )


def _step_limit(can_stop: bool) -> int:
    """Steps after which to give up. Five to ten are usual, about twenty where there is no answer."""
    return 300 if can_stop else 40


def _settled(done: Tensor, noise: Tensor) -> Tensor:
    """Whether the problem is solved; or has grown beyond what rounding lets one see, and that with a ridge is."""
    hopeless = (noise[..., 0, :] > TOLERANCE).any(-1)
    return done[..., 0, 0] | (done[..., 1, 0] & hopeless)


def _residuals(systems: Tensor, log_b: Tensor, p: float, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``C z``, ``b z^(-p-1)``, by how much their ratio to z misses 1, and by how much it may from rounding alone."""
    product = (systems @ z[..., None])[..., 0]
    size = (systems.abs() @ z[..., None])[..., 0]
    curvature = (log_b - (1 + p) * z.log()).exp()
    target = curvature * z
    return product, curvature, (product / target - 1).abs(), ROUNDING * (1 + size / target)


def _step(systems: Tensor, product: Tensor, curvature: Tensor, p: float, z: Tensor) -> Tensor:
    """The Newton step, shortened so that no z loses more than its ``1 / (2 p + 2)``th part."""
    root = (systems.diagonal(dim1=-2, dim2=-1) + p * curvature).sqrt()
    eye = torch.eye(z.shape[-1], dtype=torch.float64, device=z.device)
    # Rows and columns are scaled to a diagonal of ones, so that sizes apart by orders of magnitude do no harm.
    hessian = (systems + torch.diag_embed(p * curvature)) / (root[..., :, None] * root[..., None, :])
    factor = torch.linalg.cholesky_ex(hessian + _FACTOR_RIDGE * eye)[0]
    right = (curvature * z - product) / root
    step = substitute(factor, right[..., None])[..., 0] / root
    shrink = (-step / z).amax(-1, keepdim=True)
    return step * (1 / (2 * (p + 1) * shrink.clamp_min(1e-300))).clamp_max(1.0)
