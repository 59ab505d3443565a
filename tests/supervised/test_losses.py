"""Losses against loops over pixels in float64, and batches without a measurement."""

import numpy as np
import pytest
import torch

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.objectives import make_loss
from tests.support.supervised.benchmark_tasks import CELEBA, NYUV2

SEGMENTATION, DEPTH, NORMAL = NYUV2
PROTOCOLS = ("paper", "fixed")


def _unit(shape, generator):
    return torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=1)


@pytest.fixture
def maps():
    """Predictions and targets ``[2, C, 6, 5]`` by kind, each target with unmeasured pixels."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 13, 6, 5, generator=generator).log_softmax(1)
    labels = torch.randint(-1, 13, (2, 6, 5), generator=generator)
    depth = torch.rand(2, 1, 6, 5, generator=generator) * 5 + 0.5
    depth[:, :, 0] = 0
    normal = _unit((2, 3, 6, 5), generator)
    normal[:, :, :, 0] = 0
    normal[0, :, 3, 3] = torch.tensor([0.6, -0.6, 0.0]) / 0.6 / 2**0.5  # its components cancel
    return {
        "segmentation": (scores, labels),
        "depth": (torch.rand(2, 1, 6, 5, generator=generator) * 5, depth),
        "normal": (_unit((2, 3, 6, 5), generator), normal),
    }


def _by_loop(kind, prediction, target, protocol):
    """Mean over measured pixels, one pixel after the other."""
    prediction, target = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    found = []
    for image, row, column in np.ndindex(2, 6, 5):
        p, t = prediction[image, :, row, column], target[image, ..., row, column]
        if kind == "segmentation":
            if t >= 0:
                found.append(-p[int(t)])
        elif abs(t.sum()) > 1e-9 if protocol == "paper" else t.any():
            found.append(abs(p - t)[0] if kind == "depth" else 1 - p @ t)
    return np.mean(found)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("task", NYUV2, ids=lambda task: task.kind)
def test_dense_losses_are_means_over_measured_pixels(task, protocol, maps):
    prediction, target = maps[task.kind]
    loss = make_loss(task, protocol)(prediction, target)
    assert loss.item() == pytest.approx(_by_loop(task.kind, prediction, target, protocol), rel=1e-5)


def test_protocols_differ_where_components_cancel(maps):
    prediction, target = maps["normal"]
    assert make_loss(NORMAL, "paper")(prediction, target) != make_loss(NORMAL, "fixed")(prediction, target)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("task", NYUV2, ids=lambda task: task.kind)
def test_a_batch_without_measurement_has_loss_zero_and_gradient_zero(task, protocol, maps):
    prediction, target = maps[task.kind]
    prediction = prediction.clone().requires_grad_()
    nothing = torch.full_like(target, -1 if task.kind == "segmentation" else 0)
    loss = make_loss(task, protocol)(prediction, nothing)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert loss.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("task", NYUV2, ids=lambda task: task.kind)
def test_what_is_predicted_at_unmeasured_pixels_does_not_count(task, maps):
    prediction, target = maps[task.kind]
    unmeasured = target == -1 if task.kind == "segmentation" else ~target.any(dim=1)
    spoiled = torch.where(unmeasured.unsqueeze(1), torch.nan, prediction).requires_grad_()
    loss = make_loss(task)(spoiled, target)
    (gradient,) = torch.autograd.grad(loss, spoiled)
    assert loss.item() == pytest.approx(make_loss(task)(prediction, target).item())
    assert gradient.isfinite().all()


def test_attribute_loss_is_cross_entropy_of_the_sigmoid():
    logits = torch.linspace(-4, 4, 10, dtype=torch.float64).unsqueeze(1)
    target = (torch.arange(10) % 3 == 0).double().unsqueeze(1)
    expected = torch.nn.BCELoss()(torch.sigmoid(logits), target)
    assert make_loss(CELEBA[0])(logits, target).item() == pytest.approx(expected.item(), rel=1e-12)


def test_attribute_loss_has_a_gradient_where_the_sigmoid_saturates():
    logits = torch.tensor([[200.0]], requires_grad=True)
    loss = make_loss(CELEBA[0])(logits, torch.zeros(1, 1))
    assert loss.item() == 200
    assert torch.autograd.grad(loss, logits)[0].item() == 1


def test_unknown_protocol():
    with pytest.raises(ArgumentError, match="protocol must be one of 'paper', 'fixed', got 'published'"):
        make_loss(DEPTH, "published")
