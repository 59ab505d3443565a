"""A training loop under DistributedDataParallel, with a combiner in place of ``sum(losses).backward()``.

    torchrun --nproc-per-node 2 examples/ddp.py
    python examples/ddp.py  # one process, the same loop

Two regressions on one trunk. The wrapper broadcasts the first parameters; the gradients are the combiner's, which joins
those of all ranks by ``group=`` before it combines them. Prints what is left of the loss of each task.
"""

from __future__ import annotations

import argparse
import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from mtrl_imgrad import make_combiner


class Net(nn.Module):
    """A trunk with two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(32, 1) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        """``[B, 8]`` to a prediction ``[B]`` of each task."""
        features = self.trunk(x)
        return [head(features)[:, 0] for head in self.heads]


def make_data() -> TensorDataset:
    """512 inputs ``[8]`` with two targets each, the first a hundred times the second."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(512, 8, generator=generator) * 2 - 1
    return TensorDataset(x, torch.stack([100 * x[:, 0], x[:, 1] - x[:, 2]], dim=1))


def losses_of(predictions: list[Tensor], targets: Tensor) -> list[Tensor]:
    """The mean squared errors, one a task."""
    return [(prediction - targets[:, task]).square().mean() for task, prediction in enumerate(predictions)]


def main() -> None:
    """Train, and let the first rank print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    epochs = parser.parse_args().epochs
    if "RANK" in os.environ:
        dist.init_process_group("gloo")  # "nccl" on GPUs
    else:  # without torchrun there is one rank
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    data = make_data()
    sampler = DistributedSampler(data, seed=0)
    loader = DataLoader(data, batch_size=32, sampler=sampler)
    net = Net()
    model = DistributedDataParallel(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    combiner = make_combiner("imgrad", c=0.4)
    with torch.no_grad():
        before = losses_of(net(data.tensors[0]), data.tensors[1])
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for x, y in loader:
            losses = losses_of(model(x), y)
            optimizer.zero_grad()
            combiner.backward(losses, net.trunk, net.heads, group=dist.group.WORLD, rows=[len(x)] * len(losses))
            optimizer.step()
    if dist.get_rank() == 0:
        with torch.no_grad():
            after = losses_of(net(data.tensors[0]), data.tensors[1])
        left = "  ".join(f"{float(now / then):6.1%}" for now, then in zip(after, before, strict=True))
        print(f"{dist.get_world_size()} rank(s), left of the loss of each task: {left}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
