"""Every encoder as MT10's actor: its size, and its cost beside the plain trunk that sees the one-hot."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call

from benchmarks.timing import in_turn, table
from mtrl_imgrad.agents.encoders import Encoder, NetworkSpec, list_encoders, make_encoder
from mtrl_imgrad.combiners import make_combiner
from mtrl_imgrad.envs import list_tasks
from mtrl_imgrad.gradients import RowGradients, by_rows, combine_rows, over_tasks, split_parameters
from mtrl_imgrad.gradients.tracing import Traced

ROWS, STATE, OUTPUTS = 128, 39, 8
NAMES = tuple(list_tasks("MT10"))
PLAIN = "one_hot"


def run() -> str:
    """Three layers of 400, default options, 128 rows a task."""
    torch.manual_seed(0)
    spec = NetworkSpec(STATE, OUTPUTS, NAMES, True, (400, 400, 400))
    encoders = {name: make_encoder(name, spec) for name in list_encoders()}
    forwards = in_turn({name: _forward(encoder) for name, encoder in encoders.items()}, calls=2)
    updates = in_turn({name: _update(encoder) for name, encoder in encoders.items()}, calls=1)
    rows = [
        (
            name,
            *_sizes(encoder),
            f"{forwards[name].ratio_to(forwards[PLAIN]):.2f}",
            f"{updates[name].ratio_to(updates[PLAIN]):.2f}",
        )
        for name, encoder in encoders.items()
    ]
    return table(
        f"Encoders as MT10's actor, 3 x 400, {ROWS} rows a task ({PLAIN}: forward "
        f"{forwards[PLAIN].median:.3g} ms, update {updates[PLAIN].median:.3g} ms)",
        ("encoder", "parameters", "of a task's own", f"forward / {PLAIN}", f"update / {PLAIN}"),
        rows,
    )


def _sizes(encoder: Encoder) -> tuple[str, str]:
    """Trainable parameters, and how many of them one task owns."""
    found = split_parameters(encoder)
    shared, own = (sum(value.numel() for value in part.values()) for part in (found.shared, found.task_specific))
    return f"{shared + own:,}", f"{own // len(NAMES):,}"


def _batch() -> tuple[Tensor, Tensor]:
    tasks = torch.eye(len(NAMES))[:, None].expand(-1, ROWS, -1).contiguous()
    return torch.randn(len(NAMES), ROWS, STATE), tasks


def _forward(encoder: Encoder) -> Callable[[], object]:
    """Outputs for all tasks without gradients, as targets are computed."""
    parameters, batch = split_parameters(encoder), _batch()
    traced = Traced(lambda *arguments: over_tasks(lambda p, *rows: functional_call(encoder, p, rows), *arguments))

    @torch.no_grad()
    def forward() -> Tensor:
        return traced(parameters, *batch)

    return forward


def _update(encoder: Encoder) -> Callable[[], object]:
    """All K gradients by rows, and IMGrad of them."""
    parameters, batch, combiner = split_parameters(encoder), _batch(), make_combiner("imgrad")
    targets = torch.randn(len(NAMES), ROWS, OUTPUTS)

    def loss(values: dict[str, Tensor], *rows: Tensor) -> tuple[Tensor, tuple[()]]:
        return (functional_call(encoder, values, rows[:2]) - rows[2]).square().mean(), ()

    def gradients(*arguments: object) -> RowGradients:
        return by_rows(loss, *arguments)  # type: ignore[arg-type]

    traced = Traced(gradients)
    return lambda: combine_rows(combiner, traced(parameters, *batch, targets))
