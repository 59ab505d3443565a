"""Pictures of predictions beside the truth."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.reporting.figures import PALETTE, new_figure, save_figure
from mtrl_imgrad.supervised.masks import IGNORED_LABEL
from mtrl_imgrad.supervised.splits import ItemDataset, length
from mtrl_imgrad.supervised.tasks import TaskSpec

if TYPE_CHECKING:
    from mtrl_imgrad.supervised.trainer import MultiTaskTrainer

__all__ = ["draw_panel", "draw_run_panel", "sample_items"]

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
    range, black is unmeasured; normals show x, y, z as red, green, blue. Attributes are listed: those that an image
    has, and those that are predicted.

    Args:
        path: of the picture, ``.png``, ``.pdf`` or ``.svg``; folders are made.
        images: ``[B, 3, H, W]`` from 0 to 1.
        targets: as `TaskSpec` describes them.
        predictions: by method, as networks give them.
        tasks: columns in this order; attributes share one.

    Returns:
        The path of the picture.

    Raises:
        ArgumentError: for no image or no method.
    """
    if not len(images) or not predictions:
        raise ArgumentError(f"a panel needs an image and a method, got {len(images)} and {len(predictions)}")
    dense = [task for task in tasks if task.kind != "attribute"]
    attributes = [task.name for task in tasks if task.kind == "attribute"]
    columns = 1 + len(dense) + bool(attributes)
    rows = ["truth", *predictions]
    height, width = images.shape[-2:]
    figure = new_figure(2.2 * columns, (2.2 * height / width + 0.12) * len(rows) * len(images) + 0.3, _DPI)
    grid = figure.subplots(len(rows) * len(images), columns, squeeze=False)
    for b, image in enumerate(images):
        for r, row in enumerate(rows):
            axes = grid[b * len(rows) + r]
            for cell in axes:
                cell.set_axis_off()
            if r == 0:
                axes[0].imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
            else:
                name = row.replace(":", ":\n").replace(",", ",\n")
                axes[0].text(0.96, 0.5, name, va="center", ha="right", fontsize=8, transform=axes[0].transAxes)
            for axis, task in zip(axes[1:], dense, strict=False):
                truth = targets[task.name][b]
                picture = _truth(task, truth) if r == 0 else _prediction(task, predictions[row][task.name][b], truth)
                axis.imshow(picture, interpolation="nearest")
            if attributes:
                found = targets if r == 0 else predictions[row]
                present = [name for name in attributes if float(found[name][b]) > (0.5 if r == 0 else 0.0)]
                axes[-1].text(0, 1, "\n".join(present) or "none", va="top", fontsize=6, transform=axes[-1].transAxes)
    for axis, title in zip(
        grid[0], ["image", *(task.name for task in dense), *["attributes"][: bool(attributes)]], strict=True
    ):
        axis.set_title(title, fontsize=9)
    return save_figure(figure, path)


def draw_run_panel(trainer: MultiTaskTrainer, path: Path, count: int) -> Path:
    """`draw_panel` for a trained network, on images spread over its validation split."""
    images, targets = sample_items(trainer.data.evaluation["val"], count)
    trainer.model.eval()
    with torch.no_grad():
        predictions = trainer.model(images.to(trainer.device))
    on_host = {name: prediction.float().cpu() for name, prediction in predictions.items()}
    return draw_panel(path, images, targets, {"prediction": on_host}, trainer.model.tasks)


def sample_items(split: ItemDataset, count: int) -> tuple[Tensor, dict[str, Tensor]]:
    """At most ``count`` items spread evenly over a split, as one batch."""
    places = np.unique(np.linspace(0, length(split) - 1, count).round().astype(int))
    items = [split[int(place)] for place in places]
    targets = {name: torch.stack([target[name] for _, target in items]) for name in items[0][1]}
    return torch.stack([image for image, _ in items]), targets


def _truth(task: TaskSpec, target: Tensor) -> NDArray[Any]:
    if task.kind == "segmentation":
        return _classes(target)
    if task.kind == "depth":
        return _depth(target[0], target[0])
    return _normals(target)


def _prediction(task: TaskSpec, prediction: Tensor, truth: Tensor) -> NDArray[Any]:
    if task.kind == "segmentation":
        return _classes(prediction.argmax(0))
    if task.kind == "depth":
        return _depth(prediction[0], truth[0])
    return _normals(prediction)


def _classes(labels: Tensor) -> NDArray[Any]:
    """Colours of the classes, going round where there are many."""
    colours = np.array([[int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)] for name in PALETTE])
    picture = colours[labels.numpy() % len(colours)]
    picture[labels.numpy() == IGNORED_LABEL] = 0
    return picture


def _depth(depth: Tensor, truth: Tensor) -> NDArray[Any]:
    from matplotlib import colormaps

    measured = truth[truth > 0]
    low, high = (float(measured.min()), float(measured.max())) if len(measured) else (0.0, 1.0)
    picture = colormaps["viridis"](((depth - low) / max(high - low, 1e-9)).clamp(0, 1).numpy())[..., :3]
    picture[depth.numpy() == 0] = 0
    return picture


def _normals(normals: Tensor) -> NDArray[Any]:
    picture = (normals.permute(1, 2, 0).numpy() + 1) / 2
    picture[(normals == 0).all(0).numpy()] = 0
    return picture.clip(0, 1)
