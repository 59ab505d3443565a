"""A combiner in a training loop of your own: three regressions of very different scale on one trunk.

    python examples/plain_pytorch.py

Prints how much of each task's variance is left unexplained under the mean gradient and under IMGrad.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from mtrl_imgrad import make_combiner

SCALES = torch.tensor([100.0, 1.0, 0.1])
"""Of the three targets: with squared errors the first loss is a million times the last."""


def make_data(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs ``[N, 8]`` and targets ``[N, 3]``, whose functions share no feature."""
    x = torch.rand(512, 8, generator=generator) * 2 - 1
    targets = torch.stack([x[:, 0] * x[:, 1], (3 * x[:, 2]).sin(), x[:, 3].abs() - x[:, 4]], dim=1)
    return x, (targets - targets.mean(0)) / targets.std(0) * SCALES


def train(method: str, steps: int, seed: int = 0) -> torch.Tensor:
    """Unexplained share of the variance of each task, ``[3]``."""
    torch.manual_seed(seed)
    x, y = make_data(torch.Generator().manual_seed(seed))
    trunk = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
    heads = nn.ModuleList(nn.Linear(32, 1) for _ in range(3))
    combiner = make_combiner(method)
    combiner.set_random_seed(seed)  # for methods that draw random numbers, such as "pcgrad"
    optimizer = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=0.05)
    for _ in range(steps):
        features = trunk(x)
        losses = [(head(features)[:, 0] - y[:, k]).square().mean() for k, head in enumerate(heads)]
        optimizer.zero_grad()
        # In place of sum(losses).backward(). The step is shortened, for the first loss is in the thousands.
        combiner.backward(losses, trunk.parameters(), heads.parameters(), max_grad_norm=1.0)
        nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        errors = torch.cat([head(trunk(x)) for head in heads], dim=1) - y
    return errors.square().mean(0) / y.var(0)


def main() -> None:
    """Train with both, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    steps = parser.parse_args().steps
    print("unexplained variance, task by task (scales 100, 1, 0.1)")
    for method in ("linear_scalarization", "imgrad"):
        print(f"{method:>20}: " + "  ".join(f"{share:6.1%}" for share in train(method, steps).tolist()))


if __name__ == "__main__":
    main()
