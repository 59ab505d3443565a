"""Descent on the synthetic problem: all methods, scenarios and starts as one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl_imgrad.combiners.method_strings import Method
from mtrl_imgrad.errors import NonFiniteError
from mtrl_imgrad.synthetic.methods import DEFAULT_METHODS, Updates, check_methods, is_proven
from mtrl_imgrad.synthetic.problem import (
    LOWER_BOUND,
    Start,
    check_shares,
    check_starts,
    evaluate,
    task_weights,
)
from mtrl_imgrad.validation import Count, Positive, Seed, checked

_CHECK_EVERY = 500


@dataclass(frozen=True)
class Trajectories:
    """The trajectories of `descend`. T steps, M methods, S scenarios, N starts; float64 on the CPU.

    Attributes:
        methods: M.
        shares: S shares s of the first task.
        starts: N points.
        lr: learning rate.
        positions: ``[T + 1, M, S, N, 2]``, the start first.
        updates: ``[T, M, S, N, 2]`` combined gradients, against which Adam stepped.
        unproven: ``[M, S, N]`` number of steps whose update the combiner's solver could not prove to be its own.
    """

    methods: tuple[Method, ...]
    shares: tuple[float, ...]
    starts: tuple[Start, ...]
    lr: float
    positions: Tensor
    updates: Tensor
    unproven: Tensor

    @property
    def steps(self) -> int:
        """T."""
        return len(self.updates)


@checked
def descend(
    methods: Sequence[str | Method] = DEFAULT_METHODS,
    *,
    shares: Sequence[float] = (0.9,),
    starts: str | Sequence[Start] = "five",
    steps: Count = 35_000,
    lr: Positive = 1e-3,
    seed: Seed = 0,
    on_steps: Callable[[int], None] | None = None,
) -> Trajectories:
    """Follow every method from every start in every scenario, by Adam on the combined gradient.

    The protocol of Nash-MTL's and Aligned-MTL's codes: Adam, learning rate 1e-3, 35 000 steps, one of the two tasks
    scaled. Adam works coordinate by coordinate, so the trajectories of a batch do not touch each other. Loss-based
    methods are given ``w_k (f_k + 21)``, positive as they ask for, with w the scenario's weights; gradients are those
    of ``w_k f_k``.

    Args:
        methods: names, ``NAME:KEY=VALUE,...``, or `Method` objects.
        shares: s of each scenario (s f1, (1 - s) f2).
        starts: ``"five"``, ``"three"`` (see `mtrl_imgrad.synthetic.problem.STARTS`), or points.
        steps: number of steps.
        lr: learning rate.
        seed: of what methods draw, for each trajectory apart; a seed among a method's arguments wins.
        on_steps: called now and then with the number of steps made since.

    Raises:
        ArgumentError: if an argument is not as described.
        NonFiniteError: if a method leaves the numbers; names it, the scenario and the start.
    """
    chosen = check_methods(methods)
    shares, points = check_shares(shares), check_starts(starts)
    shape = (len(chosen), len(shares), len(points), 2)
    position = torch.tensor(points, dtype=torch.float64).expand(shape).clone()
    run = Trajectories(
        methods=chosen,
        shares=shares,
        starts=points,
        lr=lr,
        positions=torch.empty(steps + 1, *shape, dtype=torch.float64),
        updates=torch.empty(steps, *shape, dtype=torch.float64),
        unproven=torch.zeros(shape[:-1], dtype=torch.int64),
    )
    run.positions[0] = position
    with _one_thread(), torch.inference_mode():
        _follow(run, position, seed, on_steps or (lambda count: None))
    return run


def _follow(run: Trajectories, position: Tensor, seed: int, on_steps: Callable[[int], None]) -> None:
    """Fill ``run`` from its first positions on."""
    methods = [Updates(method, len(run.shares) * len(run.starts), seed) for method in run.methods]
    weights = task_weights(run.shares)[:, None]
    adam = torch.optim.Adam([position], lr=run.lr, fused=True)  # fused: one kernel a step
    for step in range(run.steps):
        update = run.updates[step]
        _combine(methods, position, weights, update, run.unproven)
        position.grad = update
        adam.step()
        run.positions[step + 1] = position
        if (step + 1) % _CHECK_EVERY == 0 or step + 1 == run.steps:
            _check_finite(run, position, step)
            on_steps(step % _CHECK_EVERY + 1)
    for updates in methods:
        updates.check()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other make operations on a handful of numbers ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _combine(methods: Sequence[Updates], position: Tensor, weights: Tensor, update: Tensor, unproven: Tensor) -> None:
    """Write the update ``[M, S, N, 2]`` of every trajectory and count those that are not proven."""
    values, jacobian = evaluate(position)
    jacobian = (jacobian * weights[..., None]).flatten(1, 2)
    losses = ((values - LOWER_BOUND) * weights).flatten(1, 2)
    for m, method in enumerate(methods):
        gradient, status = method(jacobian[m], losses[m])
        update[m] = gradient.view(update[m].shape)
        unproven[m] += ~is_proven(status).view(unproven[m].shape)


def _check_finite(run: Trajectories, position: Tensor, step: int) -> None:
    bad = ~position.isfinite().all(-1)
    if bool(bad.any()):
        m, s, n = bad.nonzero()[0].tolist()
        raise NonFiniteError(
            f"{run.methods[m].label} reached NaN or infinity by step {step + 1} with lr={run.lr:g}, "
            f"scenario s={run.shares[s]:g}, start {run.starts[n]}"
        )
