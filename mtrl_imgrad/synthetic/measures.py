"""Measures of a trajectory on the synthetic problem: its end, and the tasks' losses on its way.

All are functions of the recorded positions and updates. Gradients are taken again at the positions, weighted by the
scenario. Notation as everywhere: g_k the gradient of task k, d the combined gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl_imgrad.combiners import min_norm_point
from mtrl_imgrad.combiners.imbalance import plumb_line
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.synthetic.optima import distance_to_front, lowest_loss, minimiser
from mtrl_imgrad.synthetic.problem import Start, evaluate, task_weights
from mtrl_imgrad.synthetic.run import Trajectories
from mtrl_imgrad.validation import Count, checked

RADIUS = 0.1
"""Distance in x up to which a point counts as being there."""
FAILURE_COSINE = -1e-10
"""A cosine between d and a g_k below this is a Pareto failure; gradients are float64."""


@dataclass(frozen=True)
class Outcome:
    """One trajectory in numbers. Steps "on the way" are those before the first arrival at the front.

    Attributes:
        method: label.
        s: share of the first task.
        start: x at the start.
        end: x at the last step.
        losses: f1 and f2 there, without the scenario's weights.
        at_optimum: whether the end is within `RADIUS` of the optimum of s f1 + (1 - s) f2.
        at_front: whether the end is within `RADIUS` of the Pareto front.
        optimum_step: first step within `RADIUS` of the optimum; None if never.
        front_step: first step within `RADIUS` of the front; None if never.
        steps_on_the_way: how many there were.
        pareto_failures: steps on the way at which the update went uphill for a task, ``min_k cos(d, g_k) < -1e-10``.
        similarity: mean cosine of g_1 and g_2 on the way.
        imbalance: median ratio of the larger gradient norm to the smaller one on the way.
        progress: what is left of each task's loss at the end, ``(f_k - f*) / (f_k(start) - f*)``, 0 at its best.
        unproven_updates: steps, of all, whose update the combiner's solver could not prove to be its own.
    """

    method: str
    s: float
    start: Start
    end: tuple[float, float]
    losses: tuple[float, float]
    at_optimum: bool
    at_front: bool
    optimum_step: int | None
    front_step: int | None
    steps_on_the_way: int
    pareto_failures: int
    similarity: float
    imbalance: float
    progress: tuple[float, float]
    unproven_updates: int


@dataclass(frozen=True)
class Curves:
    """Curves over the steps, for one method and scenario. C points in time, N starts.

    Attributes:
        steps: ``[C]``.
        failures: ``[C, N]`` Pareto failures on the way so far.
        progress: ``[C, N, 2]``, see `Outcome`.
        similarity: ``[C, N]`` cosine of g_1 and g_2; zero where one vanishes.
        cos_theta: ``[C, N]`` cosine of the mean gradient and the min-norm point, IMGrad's measure of imbalance; NaN
            from the first arrival at the front on, where it is one rounding error over another.
    """

    steps: Tensor
    failures: Tensor
    progress: Tensor
    similarity: Tensor
    cos_theta: Tensor


@checked
def outcomes(run: Trajectories) -> list[Outcome]:
    """The outcome of every trajectory; methods outermost, then scenarios, then starts."""
    return [
        outcome for m in range(len(run.methods)) for s in range(len(run.shares)) for outcome in _outcomes(run, m, s)
    ]


@checked
def curves(run: Trajectories, method: int, scenario: int, count: Count = 400) -> Curves:
    """The curves of one method in one scenario, at up to ``count`` steps evenly apart."""
    for name, index, size in (("method", method, len(run.methods)), ("scenario", scenario, len(run.shares))):
        if not 0 <= index < size:
            raise ArgumentError(f"{name} must be one of the run's {size}, counted from 0, got {index}")
    positions = run.positions[:-1, method, scenario]
    steps = torch.linspace(0, run.steps - 1, min(count, run.steps), dtype=torch.float64).long()
    front_step = _arrival(distance_to_front(positions))
    failures = _failures(run, method, scenario, front_step).cumsum(0)
    values, jacobian = _weighted(run, positions[steps], scenario)
    problem = normalize(jacobian @ jacobian.mT)
    return Curves(
        steps=steps,
        failures=failures[steps],
        progress=_progress(run, values),
        similarity=problem.cosines[..., 0, 1],
        cos_theta=torch.where(steps[:, None] < front_step, plumb_line(problem, min_norm_point(problem)), torch.nan),
    )


def _outcomes(run: Trajectories, method: int, scenario: int) -> Iterator[Outcome]:
    positions = run.positions[:, method, scenario]
    best = minimiser(torch.tensor(run.shares[scenario], dtype=torch.float64))
    to_optimum = torch.linalg.vector_norm(positions - best, dim=-1)
    to_front = distance_to_front(positions)
    optimum_step, front_step = _arrival(to_optimum), _arrival(to_front)
    failures = _failures(run, method, scenario, front_step).sum(0)
    similarity, imbalance = _conflict_and_imbalance(run, method, scenario)
    losses = evaluate(positions[-1])[0]
    progress = _progress(run, losses)
    for n, start in enumerate(run.starts):
        way = slice(0, min(int(front_step[n]), run.steps))
        yield Outcome(
            method=run.methods[method].label,
            s=run.shares[scenario],
            start=start,
            end=_pair(positions[-1, n]),
            losses=_pair(losses[n]),
            at_optimum=bool(to_optimum[-1, n] <= RADIUS),
            at_front=bool(to_front[-1, n] <= RADIUS),
            optimum_step=_step_or_none(optimum_step[n], run.steps),
            front_step=_step_or_none(front_step[n], run.steps),
            steps_on_the_way=way.stop,
            pareto_failures=int(failures[n]),
            similarity=float(similarity[way, n].mean()) if way.stop else float("nan"),
            imbalance=float(imbalance[way, n].median()) if way.stop else float("nan"),
            progress=_pair(progress[n]),
            unproven_updates=int(run.unproven[method, scenario, n]),
        )


def _weighted(run: Trajectories, positions: Tensor, scenario: int) -> tuple[Tensor, Tensor]:
    """Plain losses and weighted gradients at ``positions`` [..., 2]."""
    values, jacobian = evaluate(positions)
    return values, jacobian * task_weights(run.shares)[scenario][:, None]


def _arrival(distance: Tensor) -> Tensor:
    """``[N]`` first step at which ``distance`` [T, N] is within `RADIUS`; T where it never is."""
    there = distance <= RADIUS
    return torch.where(there.any(0), there.to(torch.int8).argmax(0), len(distance))


def _failures(run: Trajectories, method: int, scenario: int, front_step: Tensor) -> Tensor:
    """``[T, N]`` whether a step on the way to the front was a Pareto failure."""
    update = run.updates[:, method, scenario]
    jacobian = _weighted(run, run.positions[:-1, method, scenario], scenario)[1]
    norms = torch.linalg.vector_norm(jacobian, dim=-1) * torch.linalg.vector_norm(update, dim=-1, keepdim=True)
    products = (jacobian * update[..., None, :]).sum(-1)
    on_the_way = torch.arange(run.steps)[:, None] < front_step
    return (products < FAILURE_COSINE * norms).any(-1) & on_the_way


def _conflict_and_imbalance(run: Trajectories, method: int, scenario: int) -> tuple[Tensor, Tensor]:
    """``[T, N]`` cosine of the two gradients (0 where one vanishes) and ratio of their norms, larger to smaller."""
    jacobian = _weighted(run, run.positions[:-1, method, scenario], scenario)[1]
    norms = torch.linalg.vector_norm(jacobian, dim=-1)
    product = norms.prod(-1)
    cosine = torch.where(product > 0, (jacobian[..., 0, :] * jacobian[..., 1, :]).sum(-1) / product, 0.0)
    return cosine, norms.amax(-1) / norms.amin(-1)


def _progress(run: Trajectories, losses: Tensor) -> Tensor:
    """Share of the starting losses, above the least loss, that is left; ``losses`` is [..., N, 2]."""
    lowest = lowest_loss()
    first = evaluate(torch.tensor(run.starts, dtype=torch.float64))[0]
    return (losses - lowest) / (first - lowest)


def _pair(values: Tensor) -> tuple[float, float]:
    first, second = values.tolist()
    return first, second


def _step_or_none(step: Tensor, steps: int) -> int | None:
    return None if int(step) > steps else int(step)
