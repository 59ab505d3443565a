"""From a batch to the losses of its tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from mtrl_imgrad.supervised.batch_norm import frozen_statistics
from mtrl_imgrad.supervised.misfits import images_named, target_named
from mtrl_imgrad.supervised.models import FeatureModel, TaskModel
from mtrl_imgrad.supervised.objectives import Loss, make_loss
from mtrl_imgrad.supervised.parts import Part
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec

_AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Forward:
    """A network with the losses of its tasks.

    Args:
        model: the network.
        protocol: of the losses, and of a second look at a batch.
        amp: mixed precision, ``"none"`` for none.
        keeps_features: whether `predict` returns the representation, too.
        scales: what the losses of some tasks are multiplied by.
    """

    def __init__(
        self, model: TaskModel, protocol: Protocol, amp: str, keeps_features: bool, scales: Mapping[str, float]
    ) -> None:
        self.model, self.protocol, self.amp, self.keeps_features = model, protocol, amp, keeps_features
        self.by_task = {
            task.name: _named(task, _scaled(make_loss(task, protocol), scales.get(task.name, 1.0)))
            for task in model.tasks
        }

    def predict(self, images: Tensor, tasks: Sequence[str] | None = None) -> tuple[dict[str, Tensor], Tensor | None]:
        """Predictions in float32, of some tasks or all, and the representation if gradients are combined there."""
        autocast = nullcontext() if self.amp == "none" else torch.autocast(images.device.type, _AMP_TYPES[self.amp])
        with images_named(images), autocast:
            features = None
            if self.keeps_features and isinstance(self.model, FeatureModel):
                features = self.model.features(images)
                predictions = self.model.heads(features)
            elif tasks is None or len(tasks) == len(self.by_task):
                predictions = self.model(images)
            else:
                predictions = self.model.predict(images, tasks)
        return {name: prediction.float() for name, prediction in predictions.items()}, features

    def losses(self, predictions: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> list[Tensor]:
        """Of all tasks, in their order."""
        return [loss(predictions[name], targets[name]) for name, loss in self.by_task.items()]

    def losses_of(self, part: Part) -> dict[str, Tensor]:
        """Of the tasks of a part."""
        predictions, _ = self.predict(part.images, list(part.targets))
        return {name: self.by_task[name](predictions[name], target) for name, target in part.targets.items()}

    @contextmanager
    def second_look(self) -> Iterator[None]:
        """For losses after a step, in training mode, as FAMO's authors take them.

        Under ``"fixed"`` batch norm does not take the batch into its running statistics again.
        """
        with torch.no_grad(), frozen_statistics(self.model) if self.protocol == "fixed" else nullcontext():
            yield


def _named(task: TaskSpec, loss: Loss) -> Loss:
    def named(prediction: Tensor, target: Tensor) -> Tensor:
        with target_named(task, target):
            return loss(prediction, target)

    return named


def _scaled(loss: Loss, scale: float) -> Loss:
    return loss if scale == 1 else lambda prediction, target: scale * loss(prediction, target)
