"""Every network for dense tasks: parameters at full width, and a step at half of it beside SegNet's."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.supervised import DENSE, random_targets, step_of
from benchmarks.timing import in_turn, table
from mtrl_imgrad.supervised.models import list_models, make_model, split_parameters

SHAPE, WIDTH = (2, 64, 64), 1 / 2
OF_IMAGES = ("attribute_net", "molecule_net")


def run() -> str:
    """NYUv2's three tasks; one network beside SegNet at a time, for memory."""
    rows = [_row(name) for name in list_models() if name not in OF_IMAGES]
    title = f"K = 3, steps of linear scalarization at width {WIDTH}, {' x '.join(map(str, SHAPE))}"
    return table(title, ("network", "parameters", "shared", "step over segnet's"), rows)


def _row(name: str) -> tuple[str, ...]:
    torch.manual_seed(0)
    with torch.device("meta"):
        model = make_model(name, DENSE)
    shared = sum(parameter.numel() for parameter in split_parameters(model).shared)
    total = sum(parameter.numel() for parameter in model.parameters())
    timings = in_turn({"segnet": _step("segnet"), name: _step(name)}, calls=1, rounds=3, warm_up=1)
    ratio = timings[name].ratio_to(timings["segnet"])
    return f"`{name}`", f"{total:_}".replace("_", " "), f"{shared:_}".replace("_", " "), f"{ratio:.2f}"


def _step(name: str) -> Callable[[], object]:
    images = torch.rand(SHAPE[0], 3, *SHAPE[1:])
    return step_of(make_model(name, DENSE, width=WIDTH), images, random_targets(DENSE, SHAPE), "linear_scalarization")
