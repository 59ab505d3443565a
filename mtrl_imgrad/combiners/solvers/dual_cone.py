"""The shortest correction that makes a combination uphill for no task: projection onto the dual cone.

The dual cone of the task gradients is ``{d: g_i . d >= 0 for all i}``. The nearest d to a combination ``G'u`` in it is
``G'(u + y)`` with ``y = argmin over y >= 0 of |G'(u + y)|^2 / 2``, a non-negative quadratic program, and

    gain = M (u + y) >= 0,   y >= 0,   y_i gain_i = 0 for all i

proves a y right. As in `mtrl_imgrad.combiners.solvers.active_set` coefficients are those of the unit gradients, so that
norms that differ by orders of magnitude do no harm: C, the cosines, takes the place of M.

Two methods, one after the other. Exchanging whole sets (block pivoting) solves on the tasks pushed against, drops those
pushed the wrong way and takes in all that lose: three to six steps where gradients are independent, but it may go round
in circles where many are dependent. What it has not solved goes to the method of Lawson and Hanson for non-negative
least squares, which takes in one task at a time, the one that loses most, and never leaves the feasible set: it
descends at every step and, rounding aside, never meets a dependent set. Both solve on a set with the active-set
method's factorisation, and both stop where the conditions hold up to rounding.

Everything is batched and masked: no branch depends on a value, except that on a CPU the loops stop early.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mtrl_imgrad.combiners.solvers.active_set import Systems, may_ask
from mtrl_imgrad.combiners.solvers.optimality import ROUNDING, VANISHING, dot

_EXCHANGES = 12
"""Steps with whole sets. They seldom succeed later, if not by then."""

_TINY = 1e-300


class Correction(NamedTuple):
    """The correction of a projection, with its certificate.

    Attributes:
        added: ``[..., N, K]`` coefficients y >= 0 on the unit gradients; exactly zero where nothing is harmed.
        residual: ``[..., N]`` largest loss of a task, or gain of one pushed against, on unit gradients and in units of
            ``sum_i |u_i| + y_i``, beyond which rounding hides the gains.
        done: ``[..., N]`` whether the conditions hold up to rounding.
    """

    added: Tensor
    residual: Tensor
    done: Tensor


class _Start(NamedTuple):
    """The gains before any correction, and the size of what they were summed up from."""

    gains: Tensor
    size: Tensor


class _State(NamedTuple):
    """A method's state: y, the tasks it may push against next, whether it is done."""

    y: Tensor
    free: Tensor
    done: Tensor


def correct(C: Tensor, parts: Tensor) -> Correction:
    """Project N combinations of the same gradients onto their dual cone.

    Args:
        C: ``[..., K, K]`` cosines between the gradients; tasks to leave out have zero rows and columns.
        parts: ``[..., N, K]`` coefficients u of the unit gradients, of any sign.

    Returns:
        y, such that ``parts + y`` are the coefficients of the projections.
    """
    return lift(C, parts @ C, parts.abs().sum(-1, keepdim=True))


def lift(C: Tensor, gains: Tensor, size: Tensor) -> Correction:
    """The shortest correction ``u = sum_i y_i g_i / |g_i|`` after which no task's gain is negative.

    Args:
        C: ``[..., K, K]`` cosines, as for `correct`.
        gains: ``[..., N, K]`` of the tasks before, on unit gradients.
        size: ``[..., N, 1]`` of the numbers that the gains were summed up from, which rounding is a part of.
    """
    systems = Systems(C, -gains[..., None])
    start = _Start(gains, size)
    gain, noise = _gains(C, start, torch.zeros_like(gains))
    harmed = gain < -noise
    state = _State(torch.zeros_like(gains), harmed, ~harmed.any(-1, keepdim=True))  # first: push against all harmed
    can_stop = may_ask(state.done)
    for _ in range(_EXCHANGES):
        if can_stop and bool(state.done.all()):
            break
        state = _exchange(C, start, systems, state)
    state = state._replace(free=torch.zeros_like(harmed))  # what is not done begins anew, from y = 0
    for _ in range((4 if can_stop else 2) * C.shape[-1]):
        if can_stop and bool(state.done.all()):
            break
        state = _one_at_a_time(C, start, systems, state)
    gain, _ = _gains(C, start, state.y)
    wrong = torch.where(state.y > 0, gain.abs(), (-gain).clamp_min(0)).amax(-1)
    whole = size[..., 0] + state.y.sum(-1)
    return Correction(state.y, torch.where(whole > 0, wrong / whole, 0.0), state.done[..., 0])


def c_min(C: Tensor, norms: Tensor) -> Tensor:
    """Distance of the mean gradient from the dual cone, in units of its norm.

    It is the smallest radius c at which CAGrad harms no task: its ball then meets the cone, and otherwise does not.

    Args:
        C: ``[..., K, K]`` cosines, as for `correct`.
        norms: ``[..., K]`` gradient norms, in any unit; zero for tasks to leave out.

    Returns:
        ``[...]`` in [0, 1]; 0 where the mean gradient vanishes.
    """
    mean = (norms / norms.amax(-1, keepdim=True).clamp_min(_TINY))[..., None, :]
    return relative_length(C, mean, correct(C, mean).added)[..., 0]


def relative_length(C: Tensor, parts: Tensor, added: Tensor) -> Tensor:
    """``|y|_C / |u|_C`` for rows ``[..., N, K]``, at most 1; 0 where the combination of u vanishes."""
    length = dot(parts @ C, parts).clamp_min(0).sqrt()
    stands = length > VANISHING * parts.abs().sum(-1, keepdim=True)
    ratio = dot(added @ C, added).clamp_min(0).sqrt() / length
    return torch.where(stands, ratio.clamp_max(1.0), 0.0)[..., 0]


def _gains(C: Tensor, start: _Start, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gain of each task ``[..., N, K]``, on unit gradients, and what rounding may do to it ``[..., N, 1]``."""
    return start.gains + y @ C, ROUNDING * (start.size + y.abs().sum(-1, keepdim=True))


def _exchange(C: Tensor, start: _Start, systems: Systems, state: _State) -> _State:
    """Balance the free set: a task with a negative multiplier leaves it, one whose loss grows enters."""
    balanced = systems.solve(state.free)[..., 0]
    y = balanced.clamp_min(0)
    gain, noise = _gains(C, start, y)
    right = (gain >= -noise) & ((y == 0) | (gain <= noise))
    solved = right.all(-1, keepdim=True) & ~state.done
    gain, noise = _gains(C, start, balanced)  # of the balance itself, negative multipliers included
    free = torch.where(state.free, balanced > 0, gain < -noise)
    return _State(torch.where(solved, y, state.y), free, state.done | solved)


def _one_at_a_time(C: Tensor, start: _Start, systems: Systems, state: _State) -> _State:
    """Move towards the balance of the free set up to the first y that reaches zero; if none does, take a task in."""
    balanced = systems.solve(state.free)[..., 0]
    blocked = state.free & (balanced <= 0)
    whole = ~blocked.any(-1, keepdim=True)  # the whole step stays feasible
    reach = torch.where(blocked, state.y / (state.y - balanced).clamp_min(_TINY), torch.inf)
    step = reach.amin(-1, keepdim=True).clamp_max(1.0)
    partly = torch.where(blocked & (reach <= step), 0.0, (state.y + step * (balanced - state.y)).clamp_min(0))
    y = torch.where(state.done, state.y, torch.where(whole, balanced, partly))
    gain, noise = _gains(C, start, y)
    loses = whole & ~state.free & (gain < -noise)
    worst = torch.where(loses, gain, torch.inf).argmin(-1, keepdim=True)
    enters = loses & torch.zeros_like(loses).scatter(-1, worst, True)
    solved = whole & ~loses.any(-1, keepdim=True)
    return _State(y, (state.free & (y > 0)) | enters, state.done | solved)
