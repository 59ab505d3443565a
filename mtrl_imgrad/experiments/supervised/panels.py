"""Pictures of predictions beside the truth."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.reporting.figures import new_figure, save_figure
from mtrl_imgrad.supervised.splits import ItemDataset, Splits, TaskSplits, length
from mtrl_imgrad.supervised.tasks import TaskSpec

if TYPE_CHECKING:
    from mtrl_imgrad.supervised.trainer import MultiTaskTrainer

Maps = Mapping[str, Tensor]
"""Predictions or targets of a batch by task name, see `TaskSpec` and `TaskModel`."""
_DPI = 110


def draw_panel(
    path: str | os.PathLike[str],
    images: Tensor,
    targets: Maps,
    predictions: Mapping[str, Maps],
    tasks: Sequence[TaskSpec],
) -> Path:
    """Each image beside the truth and, below, what each method predicts; a column for each task.

    Classes have colours of their own, black is unlabelled; depth goes from dark (near) to light, with the truth's
    range, black is unmeasured; normals show x, y, z as red, green, blue. Tasks of whole images are listed: attributes
    that an image has, and those that are predicted; classes; numbers.

    Args:
        path: of the picture, ``.png``, ``.pdf`` or ``.svg``; folders are made.
        images: ``[B, 3, H, W]`` from 0 to 1; other inputs, such as molecules, are only numbered.
        targets: as `TaskSpec` describes them.
        predictions: by method, as networks give them.
        tasks: columns in this order; those of whole images share one.

    Returns:
        The path of the picture.

    Raises:
        ArgumentError: for no image or no method.
    """
    if not len(images) or not predictions:
        raise ArgumentError(f"a panel needs an image and a method, got {len(images)} and {len(predictions)}")
    dense = [task for task in tasks if task.record.dense]
    of_images = [task for task in tasks if not task.record.dense]
    titles = ["image", *(task.name for task in dense)]
    if of_images:
        titles.append("attributes" if all(task.kind == "attribute" for task in of_images) else "predictions")
    shown = {"truth": targets, **{name: _as_targets(maps, tasks) for name, maps in predictions.items()}}
    height, width = images.shape[-2:] if images.ndim == 4 else (1, 1)
    size = (2.2 * len(titles), (2.2 * height / width + 0.12) * len(shown) * len(images) + 0.3)
    figure = new_figure(*size, _DPI)
    grid = figure.subplots(len(shown) * len(images), len(titles), squeeze=False)
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    for number, axes in enumerate(grid):
        b, r = divmod(number, len(shown))
        name, maps = list(shown.items())[r]
        for axis in axes:
            axis.set_axis_off()
        if r > 0:
            _write(axes[0], name.replace(":", ":\n").replace(",", ",\n"))
        elif images.ndim == 4:
            axes[0].imshow(images[b].permute(1, 2, 0).clamp(0, 1).numpy())
        else:
            _write(axes[0], f"input {b + 1}")
        for axis, task in zip(axes[1:], dense, strict=False):
            axis.imshow(_show(task, maps, targets, b), interpolation="nearest")
        if of_images:
            lines = [text for task in of_images if (text := str(_show(task, maps, targets, b)))]
            axes[-1].text(0, 1, "\n".join(lines) or "none", va="top", fontsize=6, transform=axes[-1].transAxes)
    return save_figure(figure, path)


def draw_run_panel(trainer: MultiTaskTrainer, path: Path, count: int) -> Path:
    """`draw_panel` for a trained network, on images spread over its validation split."""
    images, targets = sample_items(trainer.data, count)
    trainer.model.eval()
    with torch.no_grad():
        predictions = trainer.model(images.to(trainer.device))
    on_host = {name: prediction.float().cpu() for name, prediction in predictions.items()}
    return draw_panel(path, images, targets, {"prediction": on_host}, trainer.model.tasks)


def sample_items(data: Splits | TaskSplits, count: int) -> tuple[Tensor, dict[str, Tensor]]:
    """At most ``count`` items of ``"val"``, spread evenly, as one batch.

    Where every task has a loader: so many of each task, whose other targets are unknown; of tasks with images of the
    first one's size only.
    """
    if isinstance(data, Splits):
        return _spread(data.evaluation["val"], count)
    batches = {task: _spread(data.evaluation["val"][task.name], count) for task in data.tasks}
    size = batches[data.tasks[0]][0].shape[1:]
    drawn = {task: batch for task, batch in batches.items() if batch[0].shape[1:] == size}
    targets = {
        task.name: torch.cat(
            [
                items[task.name] if one == task else _unknown(task, batches[task][1][task.name], len(images))
                for one, (images, items) in drawn.items()
            ]
        )
        for task in data.tasks
    }
    return torch.cat([images for images, _ in drawn.values()]), targets


def _spread(split: ItemDataset, count: int) -> tuple[Tensor, dict[str, Tensor]]:
    places = np.unique(np.linspace(0, length(split) - 1, count).round().astype(int))
    items = [split[int(place)] for place in places]
    targets = {name: torch.stack([target[name] for _, target in items]) for name in items[0][1]}
    return torch.stack([image for image, _ in items]), targets


def _unknown(task: TaskSpec, like: Tensor, count: int) -> Tensor:
    return torch.full_like(like[:1], task.record.unknown).expand(count, *like.shape[1:])


def _write(axis: Axes, text: str) -> None:
    axis.text(0.96, 0.5, text, va="center", ha="right", fontsize=8, transform=axis.transAxes)


def _as_targets(predictions: Maps, tasks: Sequence[TaskSpec]) -> dict[str, Tensor]:
    return {task.name: task.record.as_target(predictions[task.name]) for task in tasks}


def _show(task: TaskSpec, maps: Maps, targets: Maps, b: int) -> NDArray[Any] | str:
    return task.record.show(task, maps[task.name][b], targets[task.name][b])
