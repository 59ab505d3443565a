"""A few steps of a small problem, in one process or as one of several ranks that share its rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

from mtrl_imgrad.combiners import FAMO, MGDA, Combiner, make_combiner
from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from mtrl_imgrad.gradients import by_rows, combine_rows, split_parameters
from tests.support.replicas.pool import SIZE

NUM_TASKS = 3
ROWS = 12
SHARES = {1: [12], 2: [7, 5], 3: [5, 3, 4]}
"""How many of a step's rows each rank has."""


class Problem:
    """A trunk, a head a task and losses above zero; float64.

    Args:
        seed: of the first weights.
    """

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh()).double()
        self.heads = nn.ModuleList(nn.Linear(3, 1).double() for _ in range(NUM_TASKS))
        self.wrapped: nn.Module = self.trunk
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)

    def parameters(self) -> list[nn.Parameter]:
        """All of them."""
        return [*self.trunk.parameters(), *self.heads.parameters()]

    def features(self, x: Tensor) -> Tensor:
        """The representation."""
        return self.wrapped(x)

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
        options: of `Combiner.backward`; ``by_features``; ``wrap``, to put the trunk into DistributedDataParallel.
    """
    size = size if group is None else dist.get_world_size(group)
    mine = range(size) if group is None else [dist.get_rank(group)]
    problem = Problem()
    by_features = options.get("by_features", False)
    if options.get("wrap", False):
        problem.wrapped = nn.parallel.DistributedDataParallel(problem.trunk, process_group=group)
    options = {name: value for name, value in options.items() if name not in ("by_features", "wrap")}
    optimizer = torch.optim.SGD(problem.parameters(), lr=0.05)
    found = []
    for step in range(steps):
        chosen = {task: _rows_there(step, mine, size, task, combiner.needs_all_tasks) for task in range(NUM_TASKS)}
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
        if combiner.needs_losses_after_step:
            with torch.no_grad():
                after = losses(problem.features(x[kept]))
            tasks = [task for task, loss in enumerate(after) if loss is not None]
            if group is not None:
                ranks["rows"] = [ranks["rows"][task] for task in tasks]
            combiner.after_step(torch.stack([loss for loss in after if loss is not None]), tasks, **ranks)
        found.append(problem.flat())
    return found


def _rows_there(step: int, ranks: Iterable[int], size: int, task: int, somewhere: bool) -> list[int]:
    return [row for rank in ranks if is_there(step, rank, task, somewhere) for row in _rows(rank, size)]


def _rows(rank: int, size: int) -> range:
    first = sum(SHARES[size][:rank])
    return range(first, first + SHARES[size][rank])


def trajectory(
    group: dist.ProcessGroup | None,
    name: str,
    arguments: dict[str, Any],
    steps: int,
    options: dict[str, Any],
    size: int = 0,
) -> tuple[list[Tensor], dict[str, Any]]:
    """`take_steps` with a combiner of that name, and its state afterwards."""
    combiner = make_combiner(name, **arguments)
    return take_steps(group, combiner, steps, size, **options), combiner.state_dict()


def accumulated(group: dist.ProcessGroup | None, name: str) -> Tensor:
    """Gradients of a step in three micro-batches, one of a single task that only the last of two ranks has."""
    problem, combiner = Problem(), make_combiner(name)
    x, y = batch(0)
    parts = [slice(0, 4), slice(4, 8), slice(8, 12)]
    with combiner.accumulate(**({} if group is None else {"group": group})) as step:
        for number, part in enumerate(parts):
            mine = list(range(part.start, part.stop))
            ranks: dict[str, Any] = {}
            if group is not None:
                mine = mine[:1] if dist.get_rank(group) == 0 else mine[1:]
                ranks = {"rows": [len(mine)] * NUM_TASKS}
                if number == 2 and dist.get_rank(group) == 0:
                    ranks = {"rows": [len(mine), len(mine), 0]}
            rows = torch.tensor(mine)
            z = problem.features(x[rows])
            losses = [problem.loss(task, z, y[rows]) / len(parts) for task in range(NUM_TASKS)]
            if number == 2 and group is None:
                losses[2] = problem.loss(2, z[1:], y[rows][1:]) / len(parts)
            step.backward(losses, problem.trunk, problem.heads, **ranks)
    return torch.cat([parameter.grad.flatten() for parameter in problem.parameters()])


def mixed_types(group: dist.ProcessGroup | None) -> list[Tensor | None]:
    """Gradients of parameters of four types, the last of them unused."""
    generator = torch.Generator().manual_seed(3)
    shapes = [((3, 2), torch.complex64), ((2,), torch.float32), ((3,), torch.bfloat16), ((), torch.float64)]
    parameters = [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape, dtype in shapes]
    unused = nn.Parameter(torch.ones(2))
    rows = torch.randn(8, 3, generator=generator)
    ranks: dict[str, Any] = {}
    if group is not None:
        rows = rows[:3] if dist.get_rank(group) == 0 else rows[3:]
        ranks = {"group": group, "rows": [len(rows)] * 2}
    first, second, third, fourth = parameters
    found = (rows.to(torch.complex64) @ first).abs().square() @ second + rows @ third.float() * fourth.float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the parameter that no loss reaches
        MGDA().backward([found.square().mean(), (found - 2).square().mean()], [*parameters, unused], **ranks)
    return [parameter.grad for parameter in [*parameters, unused]]


def faults(group: dist.ProcessGroup) -> dict[str, str]:
    """What is said on this rank of each of some mistakes, and then of a step without one."""
    rank = dist.get_rank(group)
    said = {}

    def step(what: str, combiner: Combiner | None = None, problem: Problem | None = None, **options: Any) -> None:
        problem, combiner = problem or Problem(), combiner or MGDA()
        x, y = batch(rank)
        z = problem.features(x)
        losses: list[Tensor | None] = [problem.loss(task, z, y) for task in range(NUM_TASKS)]
        if what == "NaN loss" and rank == 2:
            losses[1] = losses[1] * torch.nan
        if what == "NaN gradient" and rank == 0:
            losses[2] = losses[2] + (z.sum() * 0).sqrt()
        if what == "nothing anywhere":
            losses = [None] * NUM_TASKS
        if what == "features entry by entry":
            options["features"] = z
        try:
            combiner.backward(losses, problem.trunk, problem.heads, **options)
            said[what] = ""
        except (ArgumentError, NonFiniteError) as error:
            said[what] = str(error)

    step("no group")
    try:
        FAMO().after_step(torch.ones(NUM_TASKS))
    except ArgumentError as error:
        said["no group after the step"] = str(error)
    for what in ("NaN loss", "NaN gradient", "nothing anywhere"):
        step(what, group=group)
    step("wrong argument", group=group, heads="none" if rank == 1 else "unweighted")
    step("other call", group=group, max_grad_norm=None if rank == 0 else 1.0)
    step("other parameters", problem=Problem(seed=rank), group=group)
    loaded = make_combiner("pcgrad")
    loaded.load_state_dict(make_combiner("pcgrad", seed=int(rank == 0)).state_dict())
    step("other state", loaded, group=group)
    step("features entry by entry", make_combiner("graddrop"), group=group)
    layer = nn.Linear(2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mesh = init_device_mesh("cpu", (SIZE,))
        sharded = nn.Parameter(distribute_tensor(torch.ones(SIZE), mesh))
    try:
        MGDA().backward([layer(torch.ones(1, 2)).sum()], [sharded], layer, group=group)
    except ArgumentError as error:
        said["DTensor"] = str(error)
    step("afterwards", group=group)
    return said


def in_ddp(group: dist.ProcessGroup) -> Tensor:
    """The parameters after four steps with the trunk in DistributedDataParallel."""
    return take_steps(group, make_combiner("imgrad"), 4, wrap=True)[-1]


def traffic(group: dist.ProcessGroup, name: str, arguments: dict[str, Any]) -> list[int]:
    """Numbers of float64 that this rank sends for large vectors in each of three steps, without the heads'."""
    sent = 0
    size = dist.get_world_size(group)
    scatter, gather = dist.all_to_all_single, dist.all_gather
    least = 100  # more than any loss, flag or Gramian

    def count_scatter(into: Tensor, values: Tensor, **rest: Any) -> Any:
        nonlocal sent
        sent += values.numel() * (size - 1) // size if values.numel() > least * size else 0
        return scatter(into, values, **rest)

    def count_gather(into: list[Tensor], values: Tensor, **rest: Any) -> Any:
        nonlocal sent
        sent += values.numel() * (size - 1) if values.numel() > least else 0
        return gather(into, values, **rest)

    combiner = make_combiner(name, **arguments)
    layer = nn.Linear(29, 20, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.arange(580.0).view(20, 29) / 580)
    x = torch.randn(4, 29, generator=torch.Generator().manual_seed(dist.get_rank(group)), dtype=torch.float64)
    found = []
    dist.all_to_all_single, dist.all_gather = count_scatter, count_gather
    try:
        for _ in range(3):
            sent = 0
            z = layer(x)
            losses = [(z[:, task] - 1).square().mean() + 0.1 for task in range(NUM_TASKS)]
            combiner.backward(losses, layer, group=group)
            found.append(sent)
    finally:
        dist.all_to_all_single, dist.all_gather = scatter, gather
    return found


def other_tasks(group: dist.ProcessGroup | None) -> Tensor:
    """Gradients of a step whose ranks name different tasks, in other orders, one of them shared."""
    problem, combiner = Problem(), make_combiner("imgrad")
    x, y = batch(0)
    ranks: dict[str, Any] = {}
    tasks, places = [2, 1, 5], {2: x.new_ones(ROWS), 1: x.new_ones(ROWS), 5: x.new_ones(ROWS)}
    places[2][6:], places[5][:6] = 0, 0
    if group is not None:
        first = dist.get_rank(group) == 0
        tasks = [2, 1] if first else [1, 5]
        mine = torch.arange(ROWS) < 6 if first else torch.arange(ROWS) >= 6
        places = {task: places[task] * mine for task in tasks}
        ranks = {"group": group, "rows": torch.tensor([int(places[task].sum()) for task in tasks])}
    z = problem.features(x)
    losses = []
    for task in tasks:
        rows = places[task].nonzero()[:, 0]
        losses.append(problem.loss(task % NUM_TASKS, z[rows], y[rows]))
    combiner.backward(losses, problem.trunk, problem.heads, tasks=tasks, **ranks)
    return torch.cat([parameter.grad.flatten() for parameter in problem.parameters() if parameter.grad is not None])


def by_rows_of_ranks(group: dist.ProcessGroup | None, name: str) -> list[Tensor]:
    """Combined gradients of a linear layer with rows of every task, and the losses."""
    x, y = torch.linspace(-1, 1, 24, dtype=torch.float64).view(3, 4, 2), torch.arange(12.0).double().view(3, 4)
    if group is not None:
        half = slice(0, 2) if dist.get_rank(group) == 0 else slice(2, 4)
        x, y = x[:, half], y[:, half]
    layer = nn.Linear(2, 1).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(0.3)

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        found = torch.func.functional_call(layer, parameters, (x,))
        return (found[:, 0] - y).square().mean(), found

    found = combine_rows(make_combiner(name), by_rows(loss, split_parameters(layer), x, y), group=group)
    return [*found.gradients.values(), found.losses]


def not_finite(group: dist.ProcessGroup | None, name: str, how: str, where: str) -> tuple[list[Tensor | None], Any]:
    """Gradients of a step with a NaN in a row of the last of two ranks, and what is said of it.

    Args:
        group: of the ranks, or None.
        name: of the combiner.
        how: ``on_nonfinite``, or ``"scaler"`` for a `GradScaler`, whose scale afterwards is returned as well.
        where: ``"loss"`` or ``"gradient"`` of task 1.
    """
    problem, combiner = Problem(), make_combiner(name)
    x, y = batch(0)
    ranks: dict[str, Any] = {}
    bad = True
    if group is not None:
        bad = dist.get_rank(group) == 1
        rows = slice(6, ROWS) if bad else slice(0, 6)
        x, y, ranks = x[rows], y[rows], {"group": group}
    z = problem.features(x)
    losses = [problem.loss(task, z, y) for task in range(NUM_TASKS)]
    if bad:
        losses[1] = losses[1] * torch.nan if where == "loss" else losses[1] + (z[-1].sum() * 0).sqrt()
    if how != "scaler":
        found = combiner.backward(losses, problem.trunk, problem.heads, on_nonfinite=how, **ranks)  # type: ignore[arg-type]
        return [parameter.grad for parameter in problem.parameters()], (found.non_finite, found.skipped)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    optimizer = torch.optim.SGD(problem.parameters(), lr=0.1)
    combiner.backward(losses, problem.trunk, problem.heads, grad_scaler=scaler, **ranks)
    scaler.step(optimizer)
    scaler.update()
    return [problem.flat()], scaler.get_scale()
