"""Several processes that share every batch make the steps of one process with the whole batch.

    torchrun --nproc-per-node 3 examples/distributed.py

Each rank has rows of its own, not equally many, and rank 0 none of the last task. Prints how far the parameters are
from those of one process that has all rows (rounding), whether all ranks hold the same bits, and how far one is off
that averages the ranks' own combined gradients, as DistributedDataParallel would.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtrl_imgrad import make_combiner

ROWS = 60
NUM_TASKS = 3


def share(rank: int, size: int) -> slice:
    """The rows of a rank; the last one has most."""
    first = [ROWS * r * (r + 1) // (size * (size + 1)) for r in range(size + 1)]
    return slice(first[rank], first[rank + 1])


def rows_of(rank: int, size: int, task: int) -> slice:
    """The rows of a task that a rank has: rank 0 has none of the last task."""
    return slice(0, 0) if (rank == 0 and size > 1 and task == NUM_TASKS - 1) else share(rank, size)


def train(method: str, steps: int, ranks: list[int], size: int, group: Any = None, average: bool = False) -> Tensor:
    """The parameters after some steps.

    Args:
        method: name of the combiner.
        steps: of SGD.
        ranks: whose rows this process takes.
        size: number of ranks that the rows are shared among.
        group: of the ranks that make each step together.
        average: average the ranks' combined gradients in place of that.
    """
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh()).double()
    heads = nn.ModuleList(nn.Linear(8, 1) for _ in range(NUM_TASKS)).double()
    parameters = [*trunk.parameters(), *heads.parameters()]
    combiner = make_combiner(method)
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    alone = dist.new_subgroups(1)[0] if average else None
    for _ in range(steps):
        x = torch.randn(ROWS, 6, generator=generator, dtype=torch.float64)
        y = torch.stack([3 * x[:, 0] * x[:, 1], x[:, 2].sin(), x[:, 3] - x[:, 4]], dim=1)
        losses: list[Tensor | None] = []
        rows = []
        for task, head in enumerate(heads):
            here = torch.cat([torch.arange(ROWS)[rows_of(rank, size, task)] for rank in ranks])
            rows.append(len(here))
            error = head(trunk(x[here]))[:, 0] - y[here, task]
            losses.append(error.square().mean() if len(here) else None)
        optimizer.zero_grad()
        if group is not None:
            combiner.backward(losses, trunk, heads, group=group, rows=rows)
        else:
            combiner.backward(losses, trunk, heads, group=alone)
        if average:
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                dist.all_reduce(parameter.grad)
                parameter.grad /= size
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def main() -> None:
    """Compare, and let the first rank print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="imgrad")
    parser.add_argument("--steps", type=int, default=50)
    given = parser.parse_args()
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    else:  # without torchrun there is one rank
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    rank, size = dist.get_rank(), dist.get_world_size()
    together = train(given.method, given.steps, [rank], size, group=dist.group.WORLD)
    averaged = train(given.method, given.steps, [rank], size, average=True)
    everywhere = [torch.empty_like(together) for _ in range(size)]
    dist.all_gather(everywhere, together)
    dist.destroy_process_group()
    if rank == 0:
        one = train(given.method, given.steps, list(range(size)), size)
        same = all(torch.equal(together, other) for other in everywhere)
        print(f"{given.method}, {given.steps} steps on {size} rank(s), largest difference from one process:")
        print(f"  group=              {float((together - one).abs().max()):.1e}  same bits on all ranks: {same}")
        print(f"  averaged combined   {float((averaged - one).abs().max()):.1e}")


if __name__ == "__main__":
    main()
