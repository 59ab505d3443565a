"""All K gradients by rows beside one summed backward and beside a loop over tasks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from benchmarks.timing import against, in_turn, table
from mtrl_imgrad.agents.encoders import NetworkSpec
from mtrl_imgrad.agents.encoders.layers import mlp
from mtrl_imgrad.gradients import RowGradients, by_rows, split_parameters
from mtrl_imgrad.gradients.tracing import Traced

TASKS, ROWS, FEATURES = 10, 128, 53


def run() -> str:
    """Three layers of 400, as in Meta-World's MTSAC."""
    torch.manual_seed(0)
    network = mlp(FEATURES, NetworkSpec(FEATURES, 1, ("task",), False, (400, 400, 400)), 1)
    inputs, targets = torch.randn(TASKS, ROWS, FEATURES), torch.randn(TASKS, ROWS, 1)
    parameters = list(network.parameters())

    def summed() -> tuple[Tensor, ...]:
        loss = (network(inputs.flatten(0, 1)) - targets.flatten(0, 1)).square().mean()
        return torch.autograd.grad(loss, parameters)

    def loop() -> list[tuple[Tensor, ...]]:
        errors = (network(inputs.flatten(0, 1)).view(TASKS, ROWS, 1) - targets).square().mean((1, 2))
        return [torch.autograd.grad(error, parameters, retain_graph=True) for error in errors]

    def loss(values: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, tuple[()]]:
        return (functional_call(network, values, (x,)) - y).square().mean(), ()

    def rows(*arguments: object) -> RowGradients:
        return by_rows(loss, *arguments)  # type: ignore[arg-type]

    split, traced = split_parameters(network), Traced(rows)
    timings = in_turn(
        {
            "one summed backward": summed,
            "by_rows, recorded": lambda: traced(split, inputs, targets),
            "by_rows": lambda: rows(split, inputs, targets),
            "loop over tasks": loop,
        },
        calls=5,
    )
    return table(
        f"Per-task gradients, K = {TASKS}, {ROWS} rows a task, 3 x 400",
        ("route", "CPU ms", "time / one backward"),
        against("one summed backward", timings),
    )
