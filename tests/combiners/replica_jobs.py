"""A few steps of a small problem, in one process or as one of several ranks that share its rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtrl_imgrad.combiners import Combiner, make_combiner

NUM_TASKS = 3
ROWS = 12
SHARES = {1: [12], 2: [7, 5], 3: [5, 3, 4]}
"""How many of a step's rows each rank has."""


def make_variant(name: str, arguments: dict[str, Any]) -> Combiner:
    """A combiner; arguments as `make_combiner` takes them."""
    return make_combiner(name, **arguments)


class Problem:
    """A trunk, a head a task and losses above zero; float64.

    Args:
        seed: of the first weights.
    """

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh()).double()
        self.heads = nn.ModuleList(nn.Linear(3, 1).double() for _ in range(NUM_TASKS))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)

    def parameters(self) -> list[nn.Parameter]:
        """All of them."""
        return [*self.trunk.parameters(), *self.heads.parameters()]

    def features(self, x: Tensor) -> Tensor:
        """The representation."""
        return self.trunk(x)

    def loss(self, task: int, z: Tensor, y: Tensor) -> Tensor:
        """Mean over rows."""
        return (1.0, 8.0, 0.3)[task] * ((self.heads[task](z)[:, 0] - y[:, task]).square().mean() + 0.05)

    def flat(self) -> Tensor:
        """All parameters as one vector."""
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters()])


def batch(step: int) -> tuple[Tensor, Tensor]:
    """A step's rows."""
    generator = torch.Generator().manual_seed(1000 + step)
    return (
        torch.randn(ROWS, 4, generator=generator, dtype=torch.float64),
        torch.randn(ROWS, NUM_TASKS, generator=generator, dtype=torch.float64),
    )


def is_there(step: int, rank: int, task: int, somewhere: bool) -> bool:
    """Whether a rank has rows of a task: mostly; now and then a rank lacks one, or nobody has it."""
    if not somewhere and step % 5 == 4 and task == step % NUM_TASKS:
        return False
    return not (step % 3 == 1 and rank == step % 2 and task == (step + rank) % NUM_TASKS)


def take_steps(
    group: dist.ProcessGroup | None, combiner: Combiner, steps: int, size: int = 0, **options: Any
) -> list[Tensor]:
    """The parameters after each step.

    Args:
        group: of the ranks, or None for one process with the rows of all.
        combiner: that makes the steps.
        steps: how many.
        size: number of ranks whose rows one process takes.
        options: of `Combiner.backward`.
    """
    size = size if group is None else dist.get_world_size(group)
    mine = range(size) if group is None else [dist.get_rank(group)]
    problem = Problem()
    by_features = options.pop("by_features", False)
    optimizer = torch.optim.SGD(problem.parameters(), lr=0.05)
    found = []
    for step in range(steps):
        chosen = {
            task: [row for rank in mine if is_there(step, rank, task, combiner.needs_all_tasks) for row in _rows(rank, size)]
            for task in range(NUM_TASKS)
        }
        x, y = batch(step)
        kept = torch.tensor(sorted({row for rows in chosen.values() for row in rows}))
        places = {task: torch.tensor([int((kept == row).nonzero()) for row in rows]) for task, rows in chosen.items()}
        z = problem.features(x[kept])

        def losses(z: Tensor) -> list[Tensor | None]:
            return [
                problem.loss(task, z[index], y[kept][index]) if len(index) else None  # noqa: B023
                for task, index in places.items()  # noqa: B023
            ]

        optimizer.zero_grad()
        ranks: dict[str, Any] = {}
        if group is not None:
            ranks = {"group": group, "rows": [len(index) for index in places.values()]}
        if by_features:
            options["features"] = z
        combiner.backward(losses(z), problem.trunk.parameters(), problem.heads.parameters(), **ranks, **options)
        optimizer.step()
        if combiner.wants_losses_after:
            with torch.no_grad():
                after = losses(problem.features(x[kept]))
            tasks = [task for task, loss in enumerate(after) if loss is not None]
            if group is not None:
                ranks["rows"] = [ranks["rows"][task] for task in tasks]
            combiner.after_step(torch.stack([loss for loss in after if loss is not None]), tasks, **ranks)
        found.append(problem.flat())
    return found


def _rows(rank: int, size: int) -> range:
    first = sum(SHARES[size][:rank])
    return range(first, first + SHARES[size][rank])


def nothing(group: dist.ProcessGroup) -> None:
    """Only wait until the ranks are there."""


def trajectory(
    group: dist.ProcessGroup | None, name: str, arguments: dict[str, Any], steps: int, size: int = 0, **options: Any
) -> tuple[list[Tensor], dict[str, Any]]:
    """`take_steps` with a combiner of that name, and its state afterwards."""
    combiner = make_combiner(name, **arguments)
    return take_steps(group, combiner, steps, size, **options), combiner.state_dict()
