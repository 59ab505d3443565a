"""A block active-set method for ``min (b'z + q |z|_C) / a'z`` over z >= 0, with ``|z|_C = sqrt(z'Cz)``.

With ``z = norms * w`` and C the cosines of the task gradients this is ``b'w + q sqrt(w'Mw)`` on the simplex. In these
units nothing is lost when norms differ by many orders of magnitude.

The objective does not change when z is scaled, and its value nu at a point is an upper bound of the optimum. For this
nu the minimiser over y >= 0 of ``y'Cy / 2 - (nu a - b)'y`` has a lower objective, unless the point is optimal
(Dinkelbach's argument for ratios). A step solves this on the tasks that are in use or ask to be, and searches the
projected arc towards the answer. On the right set of tasks there is a closed form for the optimum itself, so
the method is finite. Whole sets of tasks enter and leave at once, and a handful of steps suffices whatever K; beside
the block step each step also tries to add only the neediest task, as Lawson and Hanson do for non-negative least
squares, which makes progress where nearly dependent gradients spoil the block step.

Everything is batched and masked: no branch depends on a value, except that on a CPU the loop stops early.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["VANISHING", "Found", "certify", "minimise"]

_ROUNDING = 32 * 2.0**-52
"""What rounding may do to a sum of K products, relative to the sum of their sizes."""
VANISHING = 1e-7
"""Lengths below this fraction of the summed lengths are rounding error, being roots of differences."""
_RIDGE = 1e-14
"""Keeps a Cholesky factor of dependent gradients defined; one refinement step takes its effect out again."""
_LARGEST_NOISE = 1e-6
"""No rounding excuses a violation above this."""
_STEPS = (0.5, 0.25, 0.0625)
"""Places tried on the projected arc, beside its end and its first corner."""


class Found(NamedTuple):
    """What `minimise` found.

    Attributes:
        z: ``[..., K]``, sum 1.
        y: ``[..., K]`` non-negative, |y|_C <= q, the proof of optimality: z scaled to length q, unless the optimum
            has length zero.
        violation: ``[...]`` of the optimality conditions, relative.
        done: ``[...]`` whether the conditions hold up to rounding.
    """

    z: Tensor
    y: Tensor
    violation: Tensor
    done: Tensor


class _Problem(NamedTuple):
    """The data, shaped to go with rows of points ``[..., N, K]``: C [..., K, K], the others [..., 1, K or 1]."""

    C: Tensor
    a: Tensor
    b: Tensor
    q: Tensor
    alive: Tensor
    scale: Tensor


class _Rows(NamedTuple):
    """Points ``z`` [..., N, K] of sum 1, their objective ``nu``, y and the optimality conditions.

    Any y >= 0 with |y|_C <= q proves the lower bound ``nu + min_i slack_i / a_i`` of the optimum, where
    ``slack = C y + b - nu a``. So a point is optimal where no slack is negative.
    """

    z: Tensor
    y: Tensor
    nu: Tensor
    slack: Tensor
    noise: Tensor


def minimise(C: Tensor, a: Tensor, b: Tensor, q: Tensor, alive: Tensor) -> Found:
    """Minimise ``(b'z + q |z|_C) / a'z`` over z >= 0.

    Args:
        C: ``[..., K, K]`` positive semi-definite, unit diagonal where ``alive``, zero elsewhere.
        a: ``[..., K]`` positive where ``alive``, zero elsewhere.
        b: ``[..., K]``, zero where not ``alive``.
        q: ``[...]`` >= 0.
        alive: ``[..., K]`` mask, at least one True.
    """
    problem = _pose(C, a, b, q, alive)
    vertex = torch.where(alive, (b + q[..., None]) / a, torch.inf).argmin(-1, keepdim=True)
    point = _evaluate(problem, torch.nn.functional.one_hot(vertex, C.shape[-1]).double())
    answer = _check(problem, point, point.z)
    can_stop = C.device.type == "cpu" and not torch.compiler.is_compiling()
    for _ in range(_step_limit(C.shape[-1], can_stop)):
        if can_stop and _all(answer.done):
            break
        h, k = _solve_on(problem, _free_sets(problem, point))
        closed = _closed_form(problem, h, k)
        answer = _first(answer, _check(problem, closed, closed.z))
        if can_stop and _all(answer.done):
            break
        inner = point.nu * h - k
        answer = _first(answer, _check(problem, _proof(problem, inner, point.nu), point.z.expand_as(inner)))
        point = _evaluate(problem, _search(problem, point, closed, inner))
        answer = _first(answer, _check(problem, point, point.z))
    return _single(answer)


def certify(C: Tensor, a: Tensor, b: Tensor, q: Tensor, alive: Tensor, z: Tensor) -> Found:
    """Check the optimality conditions at a given ``z`` [..., K]; the other arguments as for `minimise`."""
    problem = _pose(C, a, b, q, alive)
    point = _evaluate(problem, z[..., None, :])
    return _single(_check(problem, point, point.z))


def _pose(C: Tensor, a: Tensor, b: Tensor, q: Tensor, alive: Tensor) -> _Problem:
    a, b, alive = a[..., None, :], b[..., None, :], alive[..., None, :]
    scale = q[..., None, None] + b.abs().amax(-1, keepdim=True)
    return _Problem(C, a, b, q[..., None, None], alive, torch.where(scale > 0, scale, 1.0))


def _step_limit(num_tasks: int, can_stop: bool) -> int:
    return 20 + 4 * num_tasks if can_stop else 16 + num_tasks // 2


def _all(flags: Tensor) -> bool:
    """Whether all are True; False where asking is not possible (inside ``torch.vmap``)."""
    try:
        return bool(flags.all())
    except RuntimeError:
        return False


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)


def _pick(rows: Tensor, index: Tensor) -> Tensor:
    """The row ``index`` [..., 1] of ``rows`` [..., N, K] as [..., 1, K]."""
    return rows.gather(-2, index[..., None].expand(*index.shape, rows.shape[-1]))


def _evaluate(problem: _Problem, z: Tensor) -> _Rows:
    """Objective and conditions at z >= 0 (any sum)."""
    z = z / z.sum(-1, keepdim=True)
    Cz = z @ problem.C
    length = _dot(z, Cz).clamp_min(0).sqrt()
    nu = (_dot(problem.b, z) + problem.q * length) / _dot(problem.a, z)
    stretch = problem.q / length.clamp_min(VANISHING)
    slack = stretch * Cz + problem.b - nu * problem.a
    return _Rows(z, stretch * z, nu, slack, _noise(problem, z, stretch))


def _noise(problem: _Problem, z: Tensor, stretch: Tensor) -> Tensor:
    """How far rounding may take the slack at ``y = stretch * z`` with sum z = 1, through C y and through nu."""
    size = problem.b.abs()
    noise = stretch + size + problem.a * ((stretch + _dot(size, z)) / _dot(problem.a, z))
    return torch.minimum(_ROUNDING * noise, _LARGEST_NOISE * problem.scale)


def _check(problem: _Problem, rows: _Rows, z: Tensor) -> Found:
    """Which of the rows prove that the z of the same row is optimal; N is kept."""
    violation = torch.where(problem.alive, -rows.slack, 0.0)
    done = (violation <= rows.noise).all(-1)
    return Found(z, rows.y, violation.amax(-1).clamp_min(0) / problem.scale[..., 0], done)


def _single(found: Found) -> Found:
    return Found(found.z[..., 0, :], found.y[..., 0, :], found.violation[..., 0], found.done[..., 0])


def _first(answer: Found, found: Found) -> Found:
    """``answer`` where it is done, else the first row of ``found`` that is done, else the last row of it."""
    index = found.done.to(torch.int8).argmax(-1, keepdim=True)
    done = answer.done | found.done.any(-1, keepdim=True)
    keep = answer.done
    return Found(
        torch.where(keep[..., None], answer.z, _pick(found.z, index)),
        torch.where(keep[..., None], answer.y, _pick(found.y, index)),
        torch.where(keep, answer.violation, found.violation.gather(-1, index)),
        done,
    )


def _free_sets(problem: _Problem, point: _Rows) -> Tensor:
    """``[..., 2, K]``: the tasks in use with all that ask to be, and with the neediest of them only.

    The latter is added only when those in use are balanced among themselves, so that it cannot be thrown out again
    at once.
    """
    used = point.z > 0
    asking = problem.alive & (point.slack < -point.noise)
    least, index = torch.where(used, torch.inf, point.slack).min(-1, keepdim=True)
    unbalanced = torch.where(used, point.slack.abs(), 0.0).amax(-1, keepdim=True)
    neediest = torch.zeros_like(asking).scatter(-1, index, unbalanced <= -0.1 * least) & asking
    return torch.cat([used | asking, used | neediest], -2)


def _solve_on(problem: _Problem, free: Tensor) -> tuple[Tensor, Tensor]:
    """``C^-1 a`` and ``C^-1 b`` on each free set, zero elsewhere; both ``[..., N, K]``."""
    mask = free.double()
    C = problem.C[..., None, :, :]
    system = C * (mask[..., :, None] * mask[..., None, :]) + torch.diag_embed(1 - mask * (1 - _RIDGE))
    factor = torch.linalg.cholesky_ex(system)[0]
    right = torch.stack([problem.a * mask, problem.b * mask], -1)
    solved = torch.cholesky_solve(right, factor)
    solved = solved + torch.cholesky_solve(right - (C @ solved) * mask[..., None], factor)
    return solved[..., 0], solved[..., 1]


def _closed_form(problem: _Problem, h: Tensor, k: Tensor) -> _Rows:
    """Optimum of the objective on each free set, cut off at zero; means nothing where there is no optimum."""
    e, m = _dot(problem.a, h), _dot(problem.a, k)
    discriminant = m * m - e * (_dot(problem.b, k) - problem.q * problem.q)
    nu = (m + discriminant.clamp_min(0).sqrt()) / e
    return _proof(problem, nu * h - k, nu)


def _proof(problem: _Problem, y: Tensor, nu: Tensor) -> _Rows:
    """The conditions at a given y and nu. They hold nowhere where y, cut off at zero, is longer than q."""
    y = y.clamp_min(0)
    Cy = y @ problem.C
    total = y.sum(-1, keepdim=True)
    z = y / total
    excess = _dot(y, Cy) - problem.q * problem.q
    feasible = excess <= 1e-9 * problem.q * problem.q + _ROUNDING * total * total
    slack = torch.where(feasible, Cy + problem.b - nu * problem.a, -torch.inf)
    return _Rows(z, y, nu, slack, _noise(problem, z, total))


def _search(problem: _Problem, point: _Rows, closed: _Rows, inner: Tensor) -> Tensor:
    """The best of the closed forms and the projected arcs to the inner optima; the point itself if none is better."""
    move = inner - point.y
    reach = torch.where((move < 0) & (point.y > 0), point.y / -move, torch.inf)
    first = reach.amin(-1, keepdim=True).clamp_max(1.0)
    corner = torch.where(reach <= first, 0.0, point.y + first * move)
    arcs = torch.cat([closed.z, inner, corner, *(point.y + step * move for step in _STEPS)], -2).clamp_min(0)
    length = _dot(arcs @ problem.C, arcs).clamp_min(0).sqrt()
    objective = (_dot(arcs, problem.b) + problem.q * length) / _dot(arcs, problem.a)
    objective = torch.where(torch.isfinite(objective), objective, torch.inf)[..., 0]
    lowest, best = objective.min(-1, keepdim=True)
    # Up to rounding an equal objective will do: the step to the first corner then at least drops a task.
    size = point.y.sum(-1, keepdim=True) + _dot(problem.b.abs(), point.z)
    limit = point.nu + _ROUNDING / 8 * size / _dot(problem.a, point.z)
    return torch.where(lowest[..., None] <= limit, _pick(arcs, best), point.z)
