"""Whoever says that a problem is solved is right; whoever is not right says so. On Gramians as bad as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from mtrl_imgrad.combiners import GramianCombiner, Status, Weights, combiner_class, list_combiners, make_combiner
from mtrl_imgrad.combiners.families.task_sampling import TaskSampler
from mtrl_imgrad.combiners.state.randomness import random_orders
from tests.support.combiners import claims
from tests.support.combiners.hard_gramians import Batch, batches

pytestmark = [pytest.mark.faults, pytest.mark.portable]

pytest.importorskip("scipy")

FAST, SLOW = 120, 10_000
EVERY = 3
"""Of the problems, how many are also given one by one: combiners then try a quicker method first."""


@dataclass(frozen=True)
class Answer:
    """What a combiner said to a batch, in long doubles, and what was asked."""

    problem: claims.Problem
    rows: np.ndarray
    values: np.ndarray
    extras: Mapping[str, np.ndarray]
    combiner: GramianCombiner


@dataclass(frozen=True)
class Case:
    """A combiner, by how much its claim fails at an answer [B], and the violation that its page allows.

    Attributes:
        violation: of an `Answer`.
        tolerance: for those that say `Status.SOLVED`.
        arguments: of the combiner.
        batched: whether it takes several Gramians at once.
        needs_rows: whether the claim is about the rows, so that rounded Gramians do not count.
    """

    violation: Callable[[Answer], np.ndarray]
    tolerance: float
    arguments: dict[str, Any] = field(default_factory=dict)
    batched: bool = True
    needs_rows: bool = False


def on_groups(found: Answer, violation: Callable[[claims.Problem, np.ndarray, Mapping], np.ndarray]) -> np.ndarray:
    """The claim of a method that samples, for the groups that the same seed draws.

    It reports nothing of groups. CAGrad's solver is asked for the w again: any will do for a proof.
    """
    groups = found.combiner.draw_groups(found.problem.num_tasks)
    if groups is None:
        return violation(found.problem, found.values, found.extras)
    A = groups.numpy().astype(np.longdouble)
    members = (A > 0).astype(np.longdouble)
    gramians = A @ (found.problem.M * found.problem.unit[:, None, None]) @ A.T
    problem = claims.Problem(gramians, members.sum(-1) / members.sum())
    extras: dict[str, np.ndarray] = {}
    if isinstance(found.combiner, TaskSampler):
        of_groups = [torch.from_numpy(part.astype(float)) for part in (gramians, problem.shares)]
        extras["simplex_weights"] = found.combiner.solve_rows(*of_groups).extras["simplex_weights"].numpy()
    return violation(problem, found.values @ members.T, extras)


def operated(found: Answer, orders: torch.Tensor) -> np.ndarray:
    return claims.differs(found.problem, found.values, claims.operated(found.problem, orders.numpy()))


def in_order(found: Answer) -> np.ndarray:
    count, tasks = found.values.shape
    return operated(found, torch.arange(tasks).expand(count, tasks, tasks))


def drawn(found: Answer) -> np.ndarray:
    """As a fresh combiner draws: each problem is given to one of its own."""
    count, tasks = found.values.shape
    orders = random_orders(torch.eye(tasks), torch.Generator().manual_seed(0))
    return operated(found, orders.expand(count, tasks, tasks))


def equal_weights(found: Answer) -> np.ndarray:
    return np.abs(found.values - 1 / found.problem.num_tasks).max(-1)


SAMPLING = ("cagrad_fast", "sdmgrad_os")
DUAL = 1e-6
"""What rounding may do to the dual problems at most, see `solvers.optimality`."""
CASES = {
    "mgda": Case(lambda a: claims.shortest(a.problem, a.values), 1e-11),
    "sdmgrad": Case(lambda a: claims.drawn_to_mean(a.problem, a.values, 0.3), 1e-11),
    "sdmgrad_os": Case(
        lambda a: on_groups(a, lambda p, v, _: claims.drawn_to_mean(p, v, 0.6)), 1e-11, {"lam": 0.6, "num_sampled": 3}
    ),
    "cagrad": Case(lambda a: claims.conflict_averse(a.problem, a.values, 0.4, 1.16, a.extras), DUAL),
    "cagrad wide": Case(
        lambda a: claims.conflict_averse(a.problem, a.values, 0.9, 1, a.extras), DUAL, {"c": 0.9, "rescale": False}
    ),
    "cagrad safe": Case(lambda a: claims.harms_none(a.problem, a.values), 1e-9, {"c": 0.1, "pareto_safe": True}),
    "cagrad_fast": Case(
        lambda a: on_groups(a, lambda p, v, extras: claims.conflict_averse(p, v, 0.4, 1.4, extras)), DUAL
    ),
    "imgrad": Case(lambda a: claims.imbalance_sensitive(a.problem, a.values, 0.4, 1.16, a.extras), DUAL),
    "imgrad safe": Case(lambda a: claims.harms_none(a.problem, a.values), 1e-9, {"pareto_safe": True}),
    "imgrad nash": Case(
        lambda a: claims.bargain_with_imbalance(a.problem, a.values, a.extras), 1e-6, {"base": "nash_mtl"}
    ),
    "conicgrad": Case(lambda a: claims.in_the_cone(a.problem, a.values, 0.5, a.extras), 1e-5),
    "pcgrad": Case(in_order, 1e-9, {"shuffle": False}),
    "pcgrad safe": Case(lambda a: claims.harms_none(a.problem, a.values), 1e-9, {"pareto_safe": True}),
    "gradvac": Case(drawn, 1e-9, batched=False),
    "nash_mtl": Case(lambda a: claims.bargain(a.problem, a.values, 1.0, a.extras), 1e-6),
    "fairgrad": Case(lambda a: claims.fair(a.problem, a.values, 2.0), 1e-6, {"alpha": 2.0}),
    "fairgrad half": Case(lambda a: claims.fair(a.problem, a.values, 0.5), 1e-6, {"alpha": 0.5}),
    "imtl_g": Case(lambda a: claims.equal_projections(a.problem, a.values), 1.1e-9),
    "imtl": Case(lambda a: claims.equal_projections(a.problem, a.values), 1.1e-9, batched=False),
    "aligned_mtl": Case(lambda a: claims.aligned(a.problem, a.values, a.rows), 1e-5, needs_rows=True),
    "config": Case(lambda a: claims.as_equal_as_can_be(a.problem, a.values), 1e-6),
    "upgrad": Case(lambda a: claims.harms_none(a.problem, a.values), 1e-9),
    "upgrad, projections": Case(lambda a: claims.projected(a.problem, a.values, a.rows), 2e-9, needs_rows=True),
    "gradnorm": Case(equal_weights, 1e-15, batched=False),
}


def test_every_gramian_method_is_here():
    methods = {name for name in list_combiners() if issubclass(combiner_class(name), GramianCombiner)}
    assert {registered(name) for name in CASES} == methods


def registered(name):
    return name.replace(",", "").split()[0]


def fresh(name):
    return make_combiner(registered(name), **CASES[name].arguments)


def stacked(found: list[Weights]) -> Weights:
    extras = {key: torch.stack([one.extras[key] for one in found]) for key in found[0].extras}
    parts = zip(*((one.values, one.residual, one.status_code) for one in found), strict=True)
    return Weights(*map(torch.stack, parts), extras)


def one_by_one(name, gramians):
    losses = torch.ones(gramians.shape[-1])
    return stacked([fresh(name).weights(one, losses) for one in gramians])


def check(name, batch: Batch, found: Weights, counts: Counter):
    """Every number is finite and every residual stated; what says that it is solved is."""
    codes, residuals = found.status_code.numpy(), found.residual.numpy()
    assert np.isfinite(found.values.numpy()).all()
    assert np.isfinite(residuals).all()
    assert (residuals >= 0).all()
    zero = (batch.gramians == 0).all((-2, -1))
    assert (codes[zero] == Status.ZERO_GRADIENTS).all()
    if name not in SAMPLING:  # which may see zero gradients only
        assert (codes[~zero] != Status.ZERO_GRADIENTS).all()
    assert np.isin(codes, (Status.SOLVED, Status.ZERO_GRADIENTS, Status.INACCURATE)).all()
    counts.update(codes.tolist())
    asked = (codes == Status.SOLVED) & (batch.exact | (not CASES[name].needs_rows))
    extras = {key: extra.numpy()[asked].astype(np.longdouble) for key, extra in found.extras.items()}
    values = found.values.numpy()[asked].astype(np.longdouble)
    problem = claims.Problem(batch.gramians[asked])
    violation = CASES[name].violation(Answer(problem, batch.rows[asked], values, extras, fresh(name)))
    silent = ~(violation <= CASES[name].tolerance)
    assert not silent.any(), (
        f"{name}: {silent.sum()} of {len(silent)} of {problem.num_tasks} tasks are not solved and say nothing: "
        f"{np.flatnonzero(asked)[silent][:5]} miss by {violation[silent][:5]}"
    )


def ask(name, count):
    """Give ``count`` problems to a combiner, a part of them a second time one by one; how many ended how."""
    counts: Counter = Counter()
    for batch in batches(count):
        gramians = torch.from_numpy(batch.gramians)
        if CASES[name].batched:
            check(name, batch, fresh(name).weights(gramians), counts)
        part = slice(None, None, EVERY if CASES[name].batched else 1)
        alone = Batch(batch.rows[part], batch.gramians[part], batch.exact[part])
        check(name, alone, one_by_one(name, gramians[part]), counts)
    return counts


@pytest.mark.parametrize("name", CASES)
def test_a_hundred_gramians(name):
    assert ask(name, FAST)[Status.SOLVED] > 0.7 * FAST


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ten_thousand_gramians(name):
    assert ask(name, SLOW)[Status.SOLVED] > 0.7 * SLOW
