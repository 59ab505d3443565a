"""Nash bargaining with imbalance injected: IMGrad's program on top of Nash-MTL.

Zhou et al., "Injecting Imbalance Sensitivity for Multi-Task Learning", arXiv 2503.08006, appendix. Nash-MTL's authors
find ``a`` from the program "minimise sum_i (M a)_i + phi(a) subject to phi_i(a) >= 0", with ``phi_i(a) = log a_i + log
(M a)_i`` and ``phi = sum_i phi_i``, whose last term is concave and is linearised at the last answer, again and again.
IMGrad weighs the two terms by the balance mu of the tasks:

    minimise (offset - mu) sum_i (M a)_i + mu phi(a)   subject to  a_i (M a)_i >= 1,  a > 0.

``a_i (M a)_i = 1`` for all i is the bargaining solution itself. It is feasible and a start without risk: from it every
linearised program has an answer, and mostly it stays the answer. Where it does not, some task gains more than its fair
share. Every step remains a gain for all tasks, since ``(M a)_i >= 1 / a_i > 0``.

Each linearised program is convex and is solved by a primal-dual interior-point method on cosines, ``z = n a``. The
paper states no unit of M; ours has gradients of mean square length one, so that scaling all of them changes nothing.

Everything is batched and masked: no branch depends on a value, except that on a CPU the loops stop early. Where norms
differ by a factor of a million or more the interior-point method may stop short of the optimum; the answer is then
feasible, so it is still a gain for all tasks, with the status ``INACCURATE`` and its residual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mtrl_imgrad.combiners.solvers.active_set import may_ask, pick, substitute
from mtrl_imgrad.combiners.solvers.normalized import NormalizedGramian
from mtrl_imgrad.combiners.solvers.power_fair import power_fair
from mtrl_imgrad.combiners.weights import Status, solved_where

TOLERANCE = 1e-7
"""Residual up to which an answer counts as solved."""
_TRIALS = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.03, 0.01, 1e-3)
"""Fractions of the longest step that are tried."""


@dataclass(frozen=True)
class ImbalancedBargain:
    """The answer with its certificate.

    Attributes:
        weights: ``[..., K]`` float64 a, positive, the update shortened to a unit vector, as Nash-MTL's is by its
            authors. 0 for a zero gradient.
        surplus: ``[..., K]``: ``a_i (M a)_i - 1`` before scaling, how much more than its share a task gains.
        residual: ``[...]`` violation of the conditions for a local optimum, relative.
        status_code: ``[...]`` int64 `Status` values.
    """

    weights: Tensor
    surplus: Tensor
    residual: Tensor
    status_code: Tensor


class _Point(NamedTuple):
    """Weights on the unit gradients z, multipliers of the constraints, and their residual."""

    z: Tensor
    multipliers: Tensor
    residual: Tensor


def imbalanced_bargain(problem: NormalizedGramian, mu: Tensor, offset: float) -> ImbalancedBargain:
    """Solve the program of the module.

    Args:
        problem: the Gramian.
        mu: ``[...]`` balance of the tasks in [0, 1].
        offset: 1 (the paper's) or 1.5.

    Where the gradients are Pareto-stationary there is no bargain; the answer is then Nash-MTL's, with its status.
    """
    nash = power_fair(problem, 1.0)
    eye = torch.eye(problem.num_tasks, dtype=torch.float64, device=problem.values.device)
    C = torch.where(problem.nonzero[..., None], problem.cosines, eye)
    start = torch.where(problem.nonzero, nash.weights * problem.scale.sqrt()[..., None] * problem.norms, 1.0)
    gain = (offset - mu)[..., None] * _times(C, problem.norms)
    point = _Point(start, torch.zeros_like(start), torch.full_like(mu, torch.inf))
    can_stop = may_ask(mu > 0)
    bargain = nash.status_code == int(Status.SOLVED)
    for _ in range(_rounds(can_stop)):
        cost = gain + mu[..., None] * _slope(C, point.z)
        settled = _certified(C, cost, point.z)  # does the last answer solve the program linearised at itself?
        point = _where(settled.residual < point.residual, settled, point)
        done = point.residual <= TOLERANCE
        if can_stop and bool((done | ~bargain).all()):
            break
        better = _minimise_linear(C, cost, point.z, can_stop)
        point = _where(done, point, better._replace(residual=torch.full_like(mu, torch.inf)))
    settled = _certified(C, gain + mu[..., None] * _slope(C, point.z), point.z)
    point = _where(settled.residual < point.residual, settled, point)
    solved = (point.residual <= TOLERANCE) & bargain
    z = torch.where(bargain[..., None], point.z, start)
    a = problem.inverse_norms * z
    length = (a * _times(problem.values, a)).sum(-1).clamp_min(0).sqrt()
    values = a / (length.clamp_min(1.0) * problem.scale.sqrt())[..., None]
    surplus = torch.where(problem.nonzero, z * _times(C, z) - 1, 0.0)
    code = solved_where(solved)
    residual = torch.where(bargain, point.residual, nash.residual)
    return ImbalancedBargain(values, surplus, torch.where(problem.zero, 0.0, residual), problem.status_code(code))


def _rounds(can_stop: bool) -> int:
    """Linearisations after which to stop: the authors' twenty, or what one can afford to run every time."""
    return 20 if can_stop else 3


def _steps(can_stop: bool) -> int:
    """Interior-point steps for a linearised program; ten to twenty are usual."""
    return 40 if can_stop else 20


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def _slope(C: Tensor, z: Tensor) -> Tensor:
    """Gradient of phi, ``1 / z + C (1 / C z)``."""
    return 1 / z + _times(C, 1 / _times(C, z))


def _where(condition: Tensor, first: _Point, second: _Point) -> _Point:
    column = condition[..., None]
    return _Point(
        torch.where(column, first.z, second.z),
        torch.where(column, first.multipliers, second.multipliers),
        torch.where(condition, first.residual, second.residual),
    )


def _constraints(C: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """``phi_i(z)`` [..., K] and its Jacobian [..., K, K]."""
    product = _times(C, z)
    return z.log() + product.log(), torch.diag_embed(1 / z) + C / product[..., None]


def _residual(C: Tensor, cost: Tensor, z: Tensor, multipliers: Tensor) -> Tensor:
    """Largest violation of stationarity, feasibility, sign and complementarity, in units of ``z_i cost_i``."""
    values, jacobian = _constraints(C, z)
    size = (z * cost).abs().amax(-1)
    stationary = (z * (cost - _times(jacobian.mT, multipliers))).abs().amax(-1)
    complementary = (multipliers * values).abs().amax(-1)
    negative = (-multipliers).amax(-1).clamp_min(0)
    return torch.maximum(torch.stack([stationary, complementary, negative]).amax(0) / size, (-values).amax(-1))


def _certified(C: Tensor, cost: Tensor, z: Tensor) -> _Point:
    """The point with the multipliers that fit best: least squares on the constraints that hold with equality."""
    values, jacobian = _constraints(C, z)
    active = values < 1e-6
    rows = torch.where(active[..., None], jacobian * z[..., None, :], 0.0)
    system = rows @ rows.mT + torch.diag_embed(torch.where(active, 0.0, 1.0))  # identity where not active
    factor = torch.linalg.cholesky_ex(system)[0]
    solved = substitute(factor, (rows @ (z * cost)[..., None]))[..., 0]
    multipliers = torch.where(active, solved, 0.0)
    residual = _residual(C, cost, z, multipliers)
    return _Point(z, multipliers, torch.where(torch.isfinite(residual), residual, torch.inf))


def _minimise_linear(C: Tensor, cost: Tensor, start: Tensor, can_stop: bool) -> _Point:
    """Minimise ``cost . z`` subject to ``phi_i(z) >= 0``, from a feasible ``start``.

    Primal-dual steps for ``multipliers * phi = tau``, tau falling with the gap; each candidate step must keep z,
    ``C z``, phi and the multipliers positive.
    """
    z = 1.1 * start  # strictly inside: each phi_i grows by 2 log 1.1
    values = _constraints(C, z)[0]
    multipliers = (z * cost).sum(-1, keepdim=True).abs() / z.shape[-1] / values.clamp_min(0.1)
    point = _Point(z, multipliers, torch.full_like(cost[..., 0], torch.inf))
    # Filled on the device: numbers that come as a list would have to be copied there, for which the host waits.
    trials = torch.stack([z.new_full((1,), fraction) for fraction in _TRIALS])
    for _ in range(_steps(can_stop)):
        moved = _interior_step(C, cost, point, trials)
        point = _where(point.residual <= 0.01 * TOLERANCE, point, moved)
        if can_stop and bool((point.residual <= 0.01 * TOLERANCE).all()):
            break
    return point


def _interior_step(C: Tensor, cost: Tensor, point: _Point, trials: Tensor) -> _Point:
    z, multipliers, _ = point
    values, jacobian = _constraints(C, z)
    product = _times(C, z)
    tau = 0.1 * (multipliers * values).mean(-1, keepdim=True)  # a tenth of the present gap
    dual = cost - _times(jacobian.mT, multipliers)
    ratio = multipliers / values
    # Newton's system of cost . z - multipliers . phi(z); the multipliers' own steps are eliminated, by the last term.
    hessian = (
        torch.diag_embed(multipliers / z.square())
        + C @ ((multipliers / product.square())[..., None] * C)
        + jacobian.mT @ (ratio[..., None] * jacobian)
    )
    right = -dual - _times(jacobian.mT, (multipliers * values - tau) / values)
    root = hessian.diagonal(dim1=-2, dim2=-1).sqrt()  # scaled to a diagonal of ones, as sizes may be far apart
    factor = torch.linalg.cholesky_ex(hessian / (root[..., :, None] * root[..., None, :]))[0]
    move = substitute(factor, (right / root)[..., None])[..., 0] / root
    push = (tau - multipliers * values - multipliers * _times(jacobian, move)) / values
    return _longest_step(C, cost, point, move, push, trials)


def _longest_step(C: Tensor, cost: Tensor, point: _Point, move: Tensor, push: Tensor, trials: Tensor) -> _Point:
    """The longest of the ``trials`` [N, 1], fractions of a step, that stays inside; none at all where none does."""
    z = point.z[..., None, :] + trials * move[..., None, :]
    multipliers = point.multipliers[..., None, :] + trials * push[..., None, :]
    product = z @ C
    inside = (z > 0) & (product > 0) & (multipliers > 0)
    inside &= torch.where(inside, z * product, 0.0) > 1  # phi > 0 without its logarithms
    first = inside.all(-1).to(torch.int8).argmax(-1, keepdim=True)  # the first that is True, or 0
    possible = inside.all(-1).any(-1, keepdim=True)
    z = torch.where(possible, pick(z, first)[..., 0, :], point.z)
    multipliers = torch.where(possible, pick(multipliers, first)[..., 0, :], point.multipliers)
    return _Point(z, multipliers, _residual(C, cost, z, multipliers))
