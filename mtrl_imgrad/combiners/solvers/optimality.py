"""The problem ``min (b'z + q |z|_C) / a'z`` over z >= 0 and its optimality conditions, up to rounding.

With ``z = norms * w``, C the cosines of the task gradients and a the inverse norms, this is ``b'w + q sqrt(w'Mw)`` on
the simplex. In these units nothing is lost when norms differ by many orders of magnitude.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROUNDING = 32 * 2.0**-52
"""What rounding may do to a sum of K products, relative to the sum of their sizes."""
VANISHING = 1e-7
"""Lengths below this fraction of the summed lengths are rounding error, being roots of differences."""
_LARGEST_NOISE = 1e-6
"""No rounding excuses a relative violation above this."""
_TINY = 1e-300


class Answer(NamedTuple):
    """An answer with its proof. Leading dimensions as the problem's; rows keep their dimension N.

    Attributes:
        z: ``[..., K]``, sum 1.
        y: ``[..., K]`` non-negative, |y|_C <= q, the proof: z scaled to length q, unless z has length zero.
        violation: ``[...]``, the least slack of the optimality conditions, with the sign changed.
        done: ``[...]`` whether the conditions hold up to rounding.
    """

    z: Tensor
    y: Tensor
    violation: Tensor
    done: Tensor

    def row(self, scale: Tensor) -> Answer:
        """The answer without its dimension N = 1, the violation made relative to ``scale`` [..., 1, 1]."""
        violation = self.violation.clamp_min(0) / scale[..., 0]
        return Answer(self.z[..., 0, :], self.y[..., 0, :], violation[..., 0], self.done[..., 0])


class Problem(NamedTuple):
    """The data, shaped to go with rows of points ``[..., N, K]``.

    Attributes:
        C: ``[..., K, K]``.
        a: ``[..., 1, K]``.
        b: ``[..., 1, K]``.
        q: ``[..., 1, 1]``.
        size: ``[..., 1, K]``, absolute value of b.
        scale: ``[..., 1, 1]`` unit of the violations, q plus the largest size.
        cap: ``[..., 1, 1]`` largest violation that rounding may excuse.
    """

    C: Tensor
    a: Tensor
    b: Tensor
    q: Tensor
    size: Tensor
    scale: Tensor
    cap: Tensor


class Rows(NamedTuple):
    """Points ``z`` [..., N, K] of sum 1, an upper bound ``nu`` of the optimum, y and the conditions.

    Any y >= 0 with |y|_C <= q proves the lower bound ``nu + min_i slack_i / a_i`` of the optimum, where
    ``slack = C y + b - nu a``. So a point is optimal where no slack is negative.
    """

    z: Tensor
    y: Tensor
    nu: Tensor
    slack: Tensor
    noise: Tensor


def pose(C: Tensor, a: Tensor, b: Tensor, q: Tensor) -> Problem:
    """Bring a problem into shape.

    Args:
        C: ``[..., K, K]`` positive semi-definite with unit diagonal; tasks to leave out have zero rows and
            columns.
        a: ``[..., K]`` positive, zero for tasks to leave out, of which at least one is not.
        b: ``[..., K]``, zero for tasks to leave out.
        q: ``[...]`` >= 0.
    """
    a, b, q = a[..., None, :], b[..., None, :], q[..., None, None]
    size = b.abs()
    scale = (size.amax(-1, keepdim=True) + q).clamp_min(_TINY)
    return Problem(C, a, b, q, size, scale, _LARGEST_NOISE * scale)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner products along the last dimension, which stays as 1."""
    return (x * y).sum(-1, keepdim=True)


def best_vertex(problem: Problem) -> Rows:
    """The best single task, N = 1."""
    values = torch.where(problem.a > 0, (problem.b + problem.q) / problem.a, torch.inf)
    nu, index = values.min(-1, keepdim=True)
    z = torch.zeros_like(values).scatter(-1, index, 1.0)
    slack = problem.q * (z @ problem.C) + problem.b - nu * problem.a
    return Rows(z, problem.q * z, nu, slack, _noise(problem, z, problem.q))


def evaluate(problem: Problem, z: Tensor) -> Rows:
    """Objective and conditions at z >= 0 ``[..., N, K]`` of any sum, with y along z."""
    z = z / z.sum(-1, keepdim=True)
    Cz = z @ problem.C
    length = dot(z, Cz).clamp_min(0).sqrt()
    nu = (dot(problem.b, z) + problem.q * length) / dot(problem.a, z)
    stretch = problem.q / length.clamp_min(VANISHING)
    slack = stretch * Cz + problem.b - nu * problem.a
    return Rows(z, stretch * z, nu, slack, _noise(problem, z, stretch))


def proof(problem: Problem, y: Tensor, nu: Tensor, *, attained: bool) -> Rows:
    """The conditions at a given y ``[..., N, K]``, cut off at zero, and nu. None hold where y exceeds q.

    Args:
        problem: the problem.
        y: candidate proof.
        nu: bound that it may prove.
        attained: whether to ask, too, that the point along y has the objective nu.
    """
    y = y.clamp_min(0)
    Cy = y @ problem.C
    total = y.sum(-1, keepdim=True)
    z = y / total
    slack = Cy + problem.b - nu * problem.a
    noise = _noise(problem, z, total)
    square = problem.q * problem.q
    excess = dot(y, Cy) - square
    rounding = ROUNDING * total * total
    if attained:
        holds = (excess.abs() <= 1e-9 * square + rounding) & (dot(z, slack) <= dot(z, noise))
    else:
        holds = excess + rounding <= 1e-6 * square
    return Rows(z, y, nu, torch.where(holds, slack, -torch.inf), noise)


def _noise(problem: Problem, z: Tensor, stretch: Tensor) -> Tensor:
    """How far rounding may take the slack at ``y = stretch * z`` with sum z = 1, through C y and nu."""
    through_nu = problem.a * ((stretch + dot(problem.size, z)) / dot(problem.a, z))
    noise = ROUNDING * (stretch + problem.size + through_nu)
    return torch.minimum(noise, problem.cap)


def check(problem: Problem, rows: Rows, z: Tensor) -> Answer:
    """Which of the rows prove that the z of the same row is optimal; N is kept."""
    violation = -rows.slack
    done = (violation <= rows.noise).all(-1)
    return Answer(z, rows.y, violation.amax(-1), done)
