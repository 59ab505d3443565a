"""A block active-set method for ``min (b'z + q |z|_C) / a'z`` over z >= 0, with ``|z|_C = sqrt(z'Cz)``.

The objective does not change when z is scaled, and its value nu at a point is an upper bound of the optimum.
For this nu the minimiser over y >= 0 of ``y'Cy / 2 - (nu a - b)'y`` has a lower objective, unless the point is
optimal (Dinkelbach's argument for ratios). A step solves this on the tasks that are in use or ask to be, and
searches the projected arc towards the answer. On the right set of tasks there is a closed form for the optimum
itself, so the method is finite. Whole sets of tasks enter and leave at once: one to three steps are usual. Beside
the block step each step also tries to add only the neediest task, and to add none, as Lawson and Hanson do for
non-negative least squares; this makes progress where nearly dependent gradients spoil the block step.

Everything is batched and masked: no branch depends on a value, except that on a CPU the loop stops early.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.solvers.candidates import find_candidate, minimum_candidate
from mtrl_imgrad.combiners.solvers.optimality import (
    ROUNDING,
    Answer,
    Problem,
    Rows,
    best_vertex,
    check,
    dot,
    evaluate,
    pose,
    proof,
)

_RIDGE = 1e-14
"""Keeps a Cholesky factor of dependent gradients defined; one refinement step takes its effect out again."""
_STEPS = (0.5, 0.25, 0.0625)
"""Places tried on the projected arc, beside its end and its first corner."""


def minimise(C: Tensor, a: Tensor, b: Tensor, q: Tensor) -> Answer:
    """Minimise ``(b'z + q |z|_C) / a'z`` over z >= 0.

    Arguments as for `mtrl_imgrad.combiners.solvers.optimality.pose`.

    On a CPU the loop ends when all problems of the batch are solved, and one problem alone is first tried by a quicker
    method, see `mtrl_imgrad.combiners.solvers.candidates`. Elsewhere, in a compiled graph and inside
    ``torch.vmap`` it takes a fixed number of steps, so that the host need not wait for an answer.
    """
    problem = pose(C, a, b, q)
    can_stop = may_ask(C)
    if can_stop and C.ndim == 2:
        candidate = _checked_candidate(problem, find_candidate(minimum_candidate, C, a, b, q))
        if candidate is not None:
            return candidate.row(problem.scale)
    systems = Systems(problem.C, torch.stack([problem.a, problem.b], -1))
    point = best_vertex(problem)  # a single task is always feasible
    answer = check(problem, point, point.z)
    free = (point.z > 0) | (point.slack < -point.noise)
    for _ in range(_step_limit(C.shape[-1], can_stop)):
        if can_stop and bool(answer.done.all()):
            break
        h, k = systems.solve(free).unbind(-1)  # C^-1 a and C^-1 b on each free set
        closed = _closed_form(problem, h, k)
        answer = _first(answer, check(problem, closed, closed.z))
        if can_stop and bool(answer.done.all()):
            break
        # nu h - k minimises y'Cy / 2 - (nu a - b)'y on the free set; it may prove the point that we stand at.
        inner = proof(problem, point.nu * h - k, point.nu, attained=False)
        answer = _first(answer, check(problem, inner, point.z.expand_as(inner.z)))
        point = evaluate(problem, _search(problem, point, closed.z, point.nu * h - k))
        answer = _first(answer, check(problem, point, point.z))
        free = _free_sets(problem, point)
    return answer.row(problem.scale)


def _checked_candidate(problem: Problem, candidate: Tensor | None) -> Answer | None:
    """A candidate [K + 1] of y and objective, if it meets the conditions."""
    if candidate is None:
        return None
    rows = proof(problem, candidate[None, :-1], candidate[-1:, None], attained=True)
    checked = check(problem, rows, rows.z)
    return checked if bool(checked.done) else None


def certify(C: Tensor, a: Tensor, b: Tensor, q: Tensor, z: Tensor) -> Answer:
    """Check the optimality conditions at a given ``z`` [..., K]; the other arguments as for `minimise`."""
    problem = pose(C, a, b, q)
    point = evaluate(problem, z[..., None, :])
    return check(problem, point, point.z).row(problem.scale)


def _step_limit(num_tasks: int, can_stop: bool) -> int:
    """Steps after which to give up; see `minimise`.

    The fixed number solves all but the worst conditioned of the problems that we could think of (tests), and costs
    each time; the other one is met only where rounding hides the optimum.
    """
    return 20 + 4 * num_tasks if can_stop else 8 + num_tasks // 5


def may_ask(values: Tensor) -> bool:
    """Whether looking at values costs nothing and is possible."""
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    try:
        return bool(values.any()) or True  # whatever it says: that it can be looked at is what counts
    except RuntimeError:  # inside torch.vmap
        return False


def pick(rows: Tensor, index: Tensor) -> Tensor:
    """The row ``index`` [..., 1] of ``rows`` [..., N, K] as [..., 1, K]."""
    return rows.gather(-2, index[..., None].expand(*index.shape, rows.shape[-1]))


def _first(answer: Answer, rows: Answer) -> Answer:
    """``answer`` where it is done, else the first row of ``rows`` that is done, else its row 0; N = 1."""
    if rows.done.shape[-1] > 1:
        index = rows.done.to(torch.int8).argmax(-1, keepdim=True)
        z, y = pick(rows.z, index), pick(rows.y, index)
        rows = Answer(z, y, rows.violation.gather(-1, index), rows.done.any(-1, keepdim=True))
    keep = answer.done[..., None]
    return Answer(
        torch.where(keep, answer.z, rows.z),
        torch.where(keep, answer.y, rows.y),
        torch.where(answer.done, answer.violation, rows.violation),
        answer.done | rows.done,
    )


def _free_sets(problem: Problem, point: Rows) -> Tensor:
    """``[..., 3, K]``: the tasks in use, with all that ask to be, with the neediest of them, and without any.

    The first makes the big steps. The last balances the tasks in use, and once they are in balance the second cannot
    but improve, so that one of the three always does.
    """
    used = point.z > 0
    asking = point.slack < -point.noise
    index = torch.where(used, torch.inf, point.slack).argmin(-1, keepdim=True)
    neediest = torch.zeros_like(asking).scatter(-1, index, True) & asking
    return torch.cat([used | asking, used | neediest, used], -2)


class Systems:
    """Solves with C restricted to sets of tasks.

    Args:
        C: ``[..., K, K]``.
        right: ``[..., N or 1, K, R]``, R right-hand sides.
    """

    def __init__(self, C: Tensor, right: Tensor) -> None:
        self._eye = torch.eye(C.shape[-1], dtype=torch.float64, device=C.device)
        self._C = C[..., None, :, :]
        self._ridged = self._C + _RIDGE * self._eye
        self._right = right

    def solve(self, free: Tensor) -> Tensor:
        """``C^-1 right`` on each of the free sets ``[..., N, K]``, zero elsewhere; ``[..., N, K, R]``."""
        column = free[..., None]
        # The identity outside the set, so that sets of any size make one batch.
        system = torch.where(column & free[..., None, :], self._ridged, self._eye)
        factor = torch.linalg.cholesky_ex(system)[0]
        right = torch.where(column, self._right, 0.0)
        solved = substitute(factor, right)
        rest = torch.where(column, right - self._C @ solved, 0.0)  # one refinement step, against C without the ridge
        return solved + substitute(factor, rest)


def substitute(factor: Tensor, right: Tensor) -> Tensor:
    """``(L L')^-1 right``.

    On a GPU `torch.cholesky_solve` may wait for the device; triangular solves do not.
    """
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True)


def _closed_form(problem: Problem, h: Tensor, k: Tensor) -> Rows:
    """Optimum of the objective on each free set, cut off at zero; no proof where there is no optimum."""
    # y = nu h - k, and |y|_C = q is a quadratic equation in nu. Its larger root is taken relative to the vertex of the
    # parabola, `centre`, so that large numbers do not cancel.
    e = dot(problem.a, h)
    centre = dot(problem.a, k) / e
    offset = k - centre * h
    spread = dot(problem.b - centre * problem.a, offset)
    beyond = ((problem.q * problem.q - spread).clamp_min(0) / e).sqrt()
    return proof(problem, beyond * h - offset, centre + beyond, attained=True)


def _search(problem: Problem, point: Rows, closed: Tensor, inner: Tensor) -> Tensor:
    """The best of the closed forms and the projected arcs to the inner optima, or the point itself."""
    move = inner - point.y
    reach = torch.where((move < 0) & (point.y > 0), point.y / -move, torch.inf)  # where each y reaches zero
    first = reach.amin(-1, keepdim=True).clamp_max(1.0)
    corner = torch.where(reach <= first, 0.0, point.y + first * move)  # exactly zero there, not to rounding
    arcs = [inner, corner, *(point.y + step * move for step in _STEPS)]
    points = torch.cat([closed, *arcs], -2).clamp_min(0)
    length = dot(points @ problem.C, points).clamp_min(0).sqrt()
    objective = ((dot(points, problem.b) + problem.q * length) / dot(points, problem.a))[..., 0]
    lowest, best = torch.where(torch.isfinite(objective), objective, torch.inf).min(-1, keepdim=True)
    # Up to rounding an equal objective will do: the step to the first corner then at least drops a task.
    size = point.y.sum(-1, keepdim=True) + dot(problem.size, point.z)
    limit = point.nu + ROUNDING / 8 * size / dot(problem.a, point.z)
    return torch.where(lowest[..., None] <= limit, pick(points, best), point.z)
