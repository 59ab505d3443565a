"""A supervised step with each method beside linear scalarization, published ratios, and a naive loop over tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.timing import in_turn, table
from mtrl_imgrad.combiners import Combiner, make_combiner
from mtrl_imgrad.supervised.models import FeatureModel, TaskModel, make_model, split_parameters
from mtrl_imgrad.supervised.objectives import make_loss
from mtrl_imgrad.supervised.tasks import TaskSpec

PUBLISHED = {
    "MTAN": {"famo": 1.19, "pcgrad": 2.23, "cagrad": 2.09, "imtl_g": 2.10, "mgda": 2.32, "nash_mtl": 2.34},
    "CelebA": {"famo": 1.07, "pcgrad": 8.70, "cagrad": 3.45, "imtl_g": 3.05, "mgda": 5.28, "nash_mtl": 12.49},
}
"""Time of an epoch over LS's, on a GPU with the full networks: figure of the LDC-MTL repository (NYUv2, CelebA)."""

DENSE = (
    TaskSpec("segmentation", "segmentation", 13),
    TaskSpec("depth", "depth", 1),
    TaskSpec("normal", "normal", 3),
)
"""NYUv2's tasks."""

METHODS = ("pcgrad", "cagrad", "imtl_g", "mgda", "nash_mtl", "fairgrad", "imgrad")


def run() -> str:
    """Small networks on the CPU: MTAN with three dense tasks, and the nine-layer network with forty attributes."""
    attributes = tuple(TaskSpec(f"attribute {k}", "attribute", 1) for k in range(40))
    return "\n".join(
        [
            _case("MTAN", "segnet_mtan", DENSE, (2, 64, 64), "K = 3, SegNet with MTAN, width 1/8, 2 x 64 x 64"),
            _case("CelebA", "attribute_net", attributes, (32, 32, 32), "K = 40, nine layers, width 1/8, 32 x 32 x 32"),
        ]
    )


def _case(published: str, network: str, tasks: Sequence[TaskSpec], shape: tuple[int, int, int], title: str) -> str:
    torch.manual_seed(0)
    model = make_model(network, tasks, width=1 / 8)
    images, targets = torch.rand(shape[0], 3, *shape[1:]), random_targets(tasks, shape)
    candidates: dict[str, Callable[[], object]] = {"LS": step_of(model, images, targets, "linear_scalarization")}
    for method in METHODS:
        candidates[method] = step_of(model, images, targets, method)
    candidates["imgrad, update_every=4"] = step_of(model, images, targets, "imgrad", update_every=4)
    if isinstance(model, FeatureModel):
        candidates["imgrad, at the features"] = step_of(model, images, targets, "imgrad", at_features=True)
    candidates["cagrad, naive loop"] = _naive(model, images, targets)
    timings = in_turn(candidates, calls=4, rounds=3, warm_up=1)
    rows = [
        (name, f"{timing.median:.1f}", f"{timing.ratio_to(timings['LS']):.2f}", _quote(published, name))
        for name, timing in timings.items()
    ]
    return table(title, ("method", "CPU ms a step", "over LS", "published, over LS"), rows)


def _quote(published: str, name: str) -> str:
    found = PUBLISHED[published].get(name)
    return "" if found is None else f"{found:.2f}"


def _losses(model: TaskModel, predictions: dict[str, Tensor], targets: dict[str, Tensor]) -> list[Tensor]:
    return [make_loss(task)(predictions[task.name], targets[task.name]) for task in model.tasks]


def step_of(
    model: TaskModel,
    images: Tensor,
    targets: dict[str, Tensor],
    method: str,
    at_features: bool = False,
    **kwargs: object,
) -> Callable[[], object]:
    """Forward, backward and Adam as `MultiTaskTrainer` does it."""
    combiner: Combiner = make_combiner(method, reduction="sum", **kwargs)
    shared, own = split_parameters(model)
    heads = [parameter for parameters in own.values() for parameter in parameters]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        features = None
        if at_features and isinstance(model, FeatureModel):
            features = model.features(images)
            predictions = model.heads(features)
        else:
            predictions = model(images)
        combiner.backward(_losses(model, predictions, targets), shared, heads, features=features)
        optimizer.step()

    return step


def _naive(model: TaskModel, images: Tensor, targets: dict[str, Tensor]) -> Callable[[], object]:
    """CAGrad as it is often written: stacked losses, whole backwards that keep the graph, a copy of every gradient."""
    combiner = make_combiner("cagrad", reduction="sum")
    shared, _ = split_parameters(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        losses = torch.stack(_losses(model, model(images), targets))
        rows = []
        for k in range(len(losses)):
            optimizer.zero_grad()
            losses[k].backward(retain_graph=True)
            rows.append(torch.cat([parameter.grad.flatten().clone() for parameter in shared]))  # type: ignore[union-attr]
        direction = combiner(torch.stack(rows), losses.detach()).gradient
        assert isinstance(direction, Tensor)
        optimizer.zero_grad()
        losses.sum().backward()
        start = 0
        for parameter in shared:
            parameter.grad = direction[start : start + parameter.numel()].view_as(parameter).clone()
            start += parameter.numel()
        optimizer.step()

    return step


def random_targets(tasks: Sequence[TaskSpec], shape: tuple[int, int, int]) -> dict[str, Tensor]:
    count, height, width = shape
    kinds: dict[str, Callable[[TaskSpec], Tensor]] = {
        "segmentation": lambda task: torch.randint(-1, task.channels, (count, height, width)),
        "depth": lambda _: torch.rand(count, 1, height, width),
        "normal": lambda _: torch.nn.functional.normalize(torch.randn(count, 3, height, width), dim=1),
        "attribute": lambda _: torch.randint(2, (count, 1)).float(),
    }
    return {task.name: kinds[task.kind](task) for task in tasks}
