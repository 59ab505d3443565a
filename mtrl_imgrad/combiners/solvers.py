"""Exact solvers for the two convex problems on the simplex that MGDA, CAGrad and IMGrad are made of.

Both are  ``min over w in the simplex of  b'w + q sqrt(w'Mw)``:  the min-norm point with b = 0 and q = 1, the
conflict-averse dual with the method's own b and q. One active-set method solves them.

Substituting ``z = norms * w`` turns M into the matrix C of cosines, which keeps its accuracy when the norms differ by
many orders of magnitude. The objective ``(b'w + q |z|_C) / (1'w)`` does not change when z is scaled, and its value nu
at the current point is an upper bound of the optimum. For this nu, ``argmin over y >= 0 of  y'Cy / 2 - (nu 1 - b)'y``
has a lower objective unless the point is optimal already (Dinkelbach's argument). One step solves that problem on the
tasks which are in use or should be, in closed form, and goes along the projected arc to it. On the right set of tasks
a closed form yields the optimum itself, which makes the method finite; as a whole set enters or leaves in one step, a
handful of steps suffices whatever K. When the block step does not help (nearly dependent gradients), one task at a
time is added, as Lawson and Hanson do for non-negative least squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl_imgrad.combiners.base import Status
from mtrl_imgrad.combiners.normalised import TOLERANCE, NormalisedGramian, normalise

__all__ = ["SimplexSolution", "conflict_averse_dual", "min_norm_point"]

_EPS = 2.0**-52
_EXACT = 1e-13
_RIDGE = 1e-14
_TINY = 1e-300


@dataclass(frozen=True)
class SimplexSolution:
    """A point of the simplex with its certificate.

    Attributes:
        weights: ``[..., K]`` float64, non-negative, sum 1; 0 for a zero gradient.
        residual: ``[...]`` largest violation of the optimality conditions, relative.
        status_code: ``[...]`` int64 `Status` values.
    """

    weights: Tensor
    residual: Tensor
    status_code: Tensor


def min_norm_point(gramian: Tensor | NormalisedGramian) -> SimplexSolution:
    """Shortest vector in the convex hull of the task gradients, ``min w'Mw`` over the simplex.

    Args:
        gramian: ``[..., K, K]``.

    Returns:
        The weights. Where gradients are linearly dependent they need not be unique; the combined vector is.
    """
    problem = gramian if isinstance(gramian, NormalisedGramian) else normalise(gramian)
    linear = torch.zeros_like(problem.norms)
    return _solve(problem, linear, torch.ones_like(linear[..., 0]))


def conflict_averse_dual(
    gramian: Tensor | NormalisedGramian, linear: Tensor, radius: Tensor
) -> SimplexSolution:
    """``min b'w + q sqrt(w'Mw)`` over the simplex, the dual of ``max_{|u| <= q} min_i (g_i . u + b_i)``.

    Args:
        gramian: ``[..., K, K]``.
        linear: ``[..., K]``, b. Given a `NormalisedGramian`, b and q are in its units.
        radius: ``[...]``, q >= 0.
    """
    if isinstance(gramian, NormalisedGramian):
        return _solve(gramian, linear, radius)
    problem = normalise(gramian)
    scale = gramian.double().diagonal(dim1=-2, dim2=-1).mean(-1)
    scale = torch.where(problem.zero | ~problem.finite, 1.0, scale)
    return _solve(problem, linear.double() / scale[..., None], radius.double() / scale.sqrt())


def _solve(problem: NormalisedGramian, linear: Tensor, radius: Tensor) -> SimplexSolution:
    inverse = torch.where(problem.alive, 1 / problem.norms, 0.0)
    cosines = problem.values * inverse[..., :, None] * inverse[..., None, :]
    z, residual = _minimise(cosines, inverse, linear * inverse, radius, problem.alive)
    weights = inverse * z
    weights = weights / weights.sum(-1, keepdim=True)
    status = torch.where(residual <= TOLERANCE, int(Status.SOLVED), int(Status.INACCURATE))
    nan = torch.full_like(residual, torch.nan)
    return SimplexSolution(
        weights=torch.where(problem.finite[..., None], weights, nan[..., None]),
        residual=torch.where(problem.finite, residual, nan),
        status_code=problem.status(status),
    )


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x[..., None])[..., 0]


def _minimise(C: Tensor, a: Tensor, b: Tensor, q: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise ``(b'z + q |z|_C) / a'z`` over z >= 0; see the module's text."""
    num_tasks = C.shape[-1]
    q = q[..., None]
    scale = q + b.abs().amax(-1, keepdim=True)
    scale = torch.where(scale > 0, scale, 1.0)
    vertex = torch.where(alive, (b + q) / torch.where(alive, a, 1.0), torch.inf).argmin(-1)
    z = torch.nn.functional.one_hot(vertex, num_tasks).double()
    steps = torch.tensor([1.0, 0.5, 0.25, 0.0625], dtype=torch.float64, device=C.device)
    done = torch.zeros_like(vertex, dtype=torch.bool)
    single_mode = done

    def state(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        Cz = _times(C, z)
        length = _dot(z, Cz).clamp_min(_TINY).sqrt()
        nu = (_dot(b, z) + q * length) / _dot(a, z)
        slack = q / length * Cz + b - nu * a
        violation = torch.where(alive, -slack, 0.0).clamp_min(0).amax(-1, keepdim=True)
        return length, nu, slack, (violation * length / (scale * z.sum(-1, keepdim=True)))[..., 0]

    for iteration in range(100):
        length, nu, slack, residual = state(z)
        if iteration == 0:
            done = residual < _EXACT
        x = q / length * z
        used = x > 0
        noise = _EXACT * scale * z.sum(-1, keepdim=True) / length
        unused = torch.where(alive & ~used, slack, torch.inf)
        least, index = unused.min(-1, keepdim=True)
        unbalanced = torch.where(used, slack.abs(), 0.0).amax(-1, keepdim=True)
        single = torch.zeros_like(alive).scatter(-1, index, (least < -noise) & (unbalanced <= -0.1 * least))
        free = used | torch.where(single_mode[..., None], single, alive & (slack < -noise))
        mask = free.double()
        system = C * (mask[..., :, None] * mask[..., None, :]) + torch.diag_embed(1 - mask * (1 - _RIDGE))
        factor = torch.linalg.cholesky_ex(system)[0]
        rhs = torch.stack([a, b], -1) * mask[..., None]
        solved = torch.cholesky_solve(rhs, factor)
        solved = solved + torch.cholesky_solve(rhs - (C @ solved) * mask[..., None], factor)
        h, k = solved[..., 0], solved[..., 1]
        e, m = _dot(a, h), _dot(a, k)
        root = (m * m - e * (_dot(b, k) - q * q)).clamp_min(0).sqrt()
        closed = ((m + root) / e) * h - k
        p = nu * h - k - x
        ratio = torch.where((p < 0) & used, x / (-p), torch.inf).amin(-1, keepdim=True).clamp_max(1.0)
        arc = x[..., None, :] + steps[:, None] * p[..., None, :]
        blocked = torch.where((p < 0) & (x <= -p * ratio), 0.0, x + ratio * p)
        candidates = torch.cat([closed[..., None, :], arc, blocked[..., None, :]], -2).clamp_min(0)
        total = _times(candidates, a)
        norm = ((candidates @ C) * candidates).sum(-1).clamp_min(0).sqrt()
        objective = (_times(candidates, b) + q * norm) / total
        objective = torch.where(torch.isfinite(objective) & (total > 0), objective, torch.inf)
        lowest, best = objective.min(-1, keepdim=True)
        rounding = 4 * _EPS * (q * length + _dot(b, z).abs() + scale * 0) / _dot(a, z)
        accept = lowest <= nu + rounding
        exact = candidates[..., 0, :]
        exact_residual = state(exact)[3]
        found = (exact_residual < _EXACT) & torch.isfinite(exact_residual)
        chosen = candidates.gather(-2, best[..., None].expand(*best.shape[:-1], 1, num_tasks))[..., 0, :]
        new = torch.where(found[..., None], exact, torch.where(accept, chosen, z))
        new = new / new.sum(-1, keepdim=True)
        gain = ((nu - lowest) > 1e-12 * (nu.abs() + lowest.abs()))[..., 0]
        z = torch.where(done[..., None], z, new)
        single_mode = ~gain & ~single_mode
        done = done | found
        if not torch.compiler.is_compiling() and C.device.type == "cpu" and bool(done.all()):
            break
    return z, state(z)[3]


def dual_residual(problem: NormalisedGramian, linear: Tensor, radius: Tensor, weights: Tensor) -> Tensor:
    """``[...]`` relative violation of the optimality conditions of `conflict_averse_dual` at ``weights``."""
    inverse = torch.where(problem.alive, 1 / problem.norms, 0.0)
    z = weights * problem.norms * problem.alive
    products = inverse * _times(problem.values, weights)
    length = _dot(z, products).clamp_min(_TINY).sqrt()
    b, q = linear * inverse, radius[..., None]
    scale = q + b.abs().amax(-1, keepdim=True)
    nu = (_dot(b, z) + q * length) / _dot(inverse, z)
    slack = q / length * products + b - nu * inverse
    violation = torch.where(problem.alive, -slack, 0.0).clamp_min(0).amax(-1, keepdim=True)
    return (violation * length / (torch.where(scale > 0, scale, 1.0) * z.sum(-1, keepdim=True)))[..., 0]
