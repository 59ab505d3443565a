"""Kinds with one target for the image: a yes-or-no attribute, a class, a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor

from mtrl_imgrad.supervised.kinds.encodings import outside_classes, outside_probabilities
from mtrl_imgrad.supervised.kinds.record import TaskKind
from mtrl_imgrad.supervised.losses import attribute_loss, classification_loss, regression_loss
from mtrl_imgrad.supervised.masks import IGNORED_LABEL, UNKNOWN_ATTRIBUTE, UNKNOWN_NUMBER
from mtrl_imgrad.supervised.metrics.attributes import AttributeMetric
from mtrl_imgrad.supervised.metrics.classification import ClassificationMetric
from mtrl_imgrad.supervised.metrics.regression import RegressionMetric

if TYPE_CHECKING:
    from mtrl_imgrad.supervised.tasks import TaskSpec


def _attribute_text(task: TaskSpec, value: Tensor, truth: Tensor) -> str:
    return task.name if float(value) > 0.5 else ""


def _class_text(task: TaskSpec, value: Tensor, truth: Tensor) -> str:
    return f"{task.name}: class {int(value)}" if int(truth) != IGNORED_LABEL else ""


def _number_text(task: TaskSpec, value: Tensor, truth: Tensor) -> str:
    return f"{task.name}: {float(value) * task.scale + task.offset:.4g}" if not truth.isnan().any() else ""


ATTRIBUTE = TaskKind(
    name="attribute",
    loss=lambda prediction, target, protocol: attribute_loss(prediction, target),
    metric=lambda task, protocol: AttributeMetric(protocol),
    head=lambda raw, protocol: raw,
    measured=lambda target, protocol: target != UNKNOWN_ATTRIBUTE,
    unknown=UNKNOWN_ATTRIBUTE,
    dense=False,
    as_target=lambda logits: (logits > 0).to(logits.dtype),
    show=_attribute_text,
    score="f1",
    selects=True,  # the papers on CelebA
    channels=1,
    misfit=outside_probabilities,
)

CLASSIFICATION = TaskKind(
    name="classification",
    loss=lambda prediction, target, protocol: classification_loss(prediction, target),
    metric=lambda task, protocol: ClassificationMetric(task.channels, protocol),
    head=lambda raw, protocol: F.log_softmax(raw, dim=1),
    measured=lambda target, protocol: target != IGNORED_LABEL,
    unknown=IGNORED_LABEL,
    dense=False,
    as_target=lambda prediction: prediction.argmax(dim=1),
    show=_class_text,
    score="accuracy",
    selects=True,
    misfit=outside_classes,
)

REGRESSION = TaskKind(
    name="regression",
    loss=lambda prediction, target, protocol: regression_loss(prediction, target),
    metric=lambda task, protocol: RegressionMetric(task.scale, protocol),
    head=lambda raw, protocol: raw,
    measured=lambda target, protocol: ~target.isnan(),
    unknown=UNKNOWN_NUMBER,
    dense=False,
    as_target=lambda prediction: prediction,
    show=_number_text,
    score="mae",
    score_is_error=True,
    channels=1,
)
