"""Which laws each combiner obeys, measured.

`python -m tests.support.combiners.property_table` prints the table of docs/combiner_properties.md.

A law is a function of a method and a problem (task gradients and losses) that says by how much it is broken, relative
to the size of the update. It holds for a method if no problem of the named families breaks it. The first five are
asked of gradients in general position, since near a Pareto-stationary point an update that nearly vanishes, or an
answer that does not exist (status ``INACCURATE``), says nothing; the last three of degenerate ones, too, where there is
an answer. A method with a memory or with randomness is taken as new for each problem: what is measured is its first
step. "No" is proven by a counterexample; "yes" means that none was found.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from mtrl_imgrad.combiners import Combination, Status, list_combiners, min_norm_point
from tests.support.combiners.examples import make_example
from tests.support.combiners.gradient_problems import families

GENERAL = ("independent", "common", "conflict")
HARD = ("conflict", "square", "common", "imbalance 1e6")
DEGENERATE = ("low rank", "duplicates", "opposed", "half circle", "mean zero")
SIZES = (2, 3, 6)


class Problem(NamedTuple):
    G: Tensor
    losses: Tensor


Method = Callable[[Problem], Tensor]
"""The update ``[P]`` of a new combiner."""


@cache  # of the same tensors: several laws ask for the answer to one problem
def answer(name: str, problem: Problem) -> Combination:
    return make_example(name, len(problem.G)).combine(problem.G, problem.losses)


def method(name: str) -> Method:
    def update(problem: Problem) -> Tensor:
        found = answer(name, problem).gradient
        assert isinstance(found, Tensor)
        return found

    return update


def has_answer(name: str, problem: Problem) -> bool:
    return answer(name, problem).status == Status.SOLVED


@cache
def problems(family: str, num_tasks: int, count: int) -> list[Problem]:
    generator = torch.Generator().manual_seed(num_tasks)
    return [
        Problem(G, 0.5 + torch.rand(num_tasks, generator=generator, dtype=torch.float64))
        for G in families(num_tasks, count)[family]
    ]


def _difference(found: Tensor, expected: Tensor) -> float:
    size = max(float(expected.norm()), float(found.norm()), 1e-300)
    return float((found - expected).norm()) / size


def _same_direction(found: Tensor, expected: Tensor) -> float:
    lengths = float(found.norm()), float(expected.norm())
    if min(lengths) == 0:
        return float(max(lengths) > 0)
    return _difference(found / lengths[0], expected / lengths[1])


def order(update: Method, problem: Problem) -> float:
    """Renumbering the tasks changes nothing."""
    turn = torch.roll(torch.arange(len(problem.G)), 1)
    return _difference(update(Problem(problem.G[turn], problem.losses[turn])), update(problem))


def unit(update: Method, problem: Problem) -> float:
    """Scaling all losses scales the update by the same factor."""
    return _difference(update(Problem(8 * problem.G, 8 * problem.losses)) / 8, update(problem))


def rotation(update: Method, problem: Problem) -> float:
    """Turning the parameters' space turns the update."""
    size = problem.G.shape[1]
    generator = torch.Generator().manual_seed(size)
    turn = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    return _difference(update(Problem(problem.G @ turn, problem.losses)), update(problem) @ turn)


def task_unit(update: Method, problem: Problem) -> float:
    """Scaling one task's loss does not turn the update, where there is one."""
    if moves(update, problem):
        return 0.0
    factors = torch.ones_like(problem.losses)
    factors[0] = 3.0
    return _same_direction(update(Problem(factors[:, None] * problem.G, factors * problem.losses)), update(problem))


def twice(update: Method, problem: Problem) -> float:
    """Listing one task twice does not turn the update."""
    G, losses = torch.cat([problem.G, problem.G[:1]]), torch.cat([problem.losses, problem.losses[:1]])
    return _same_direction(update(Problem(G, losses)), update(problem))


def harmless(update: Method, problem: Problem) -> float:
    """The update is uphill for no task."""
    d, sizes = update(problem), problem.G.norm(dim=1)
    if d.norm() < 1e-6 * sizes.mean():  # nothing but rounding is left of it
        return 0.0
    return float(-(problem.G @ d / (sizes * d.norm())).min())


def stationary(update: Method, problem: Problem) -> float:
    """The update vanishes where some average of the task gradients does (a Pareto-stationary point)."""
    M = problem.G @ problem.G.mT
    w = min_norm_point(M).weights
    shortest = float((w @ problem.G).norm() / problem.G.norm(dim=1).mean())
    return float(update(problem).norm() / problem.G.norm(dim=1).mean()) if shortest < 1e-9 else 0.0


def moves(update: Method, problem: Problem) -> float:
    """Anywhere else it does not vanish."""
    M = problem.G @ problem.G.mT
    w = min_norm_point(M).weights
    shortest = float((w @ problem.G).norm() / problem.G.norm(dim=1).mean())
    length = float(update(problem).norm() / problem.G.norm(dim=1).mean())
    return float(length < 1e-6) if shortest > 1e-3 else 0.0


Law = Callable[[Method, Problem], float]
LAWS: dict[str, tuple[Law, tuple[str, ...], int, float]] = {
    "order": (order, GENERAL, 2, 1e-5),
    "unit": (unit, GENERAL, 2, 1e-5),
    "rotation": (rotation, GENERAL, 2, 1e-5),
    "task unit": (task_unit, GENERAL, 2, 1e-5),
    "listed twice": (twice, GENERAL, 2, 1e-5),
    "uphill for none": (harmless, HARD + DEGENERATE, 6, 1e-6),
    "rests": (stationary, DEGENERATE, 2, 1e-4),
    "moves": (moves, GENERAL + DEGENERATE, 2, 0.5),
}
"""By name: the law, the families it is asked of, how many problems of each, and by how much it may be broken."""


def holds(name: str, law: str) -> bool:
    """Whether no problem breaks the law."""
    broken_by, families_of_it, count, limit = LAWS[law]
    cases = (case for size in SIZES for family in families_of_it for case in problems(family, size, count))
    return all(broken_by(method(name), case) <= limit for case in cases if law == "rests" or has_answer(name, case))


def table(names: list[str] | None = None) -> list[str]:
    """The rows of the docs' table."""
    rows = [f"| | {' | '.join(LAWS)} |", f"|---{'|:-:' * len(LAWS)}|"]
    for name in names or list_combiners():
        marks = ["yes" if holds(name, law) else "no" for law in LAWS]
        rows.append(f"| `{name}` | {' | '.join(marks)} |")
    return rows


if __name__ == "__main__":
    print("\n".join(table()))
