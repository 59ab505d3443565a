"""Metrics against loops over pixels in float64; what the two protocols differ in; merging; bad input."""

import numpy as np
import pytest
import torch

from mtrl_imgrad.errors import ArgumentError, TaskMismatchError
from mtrl_imgrad.supervised.metric_set import MetricSet
from mtrl_imgrad.supervised.objectives import make_metric
from mtrl_imgrad.supervised.tasks import TaskSpec
from tests.support.supervised.benchmark_tasks import CELEBA, CITYSCAPES, NYUV2

PROTOCOLS = ("paper", "fixed")
FOUR_CLASSES = TaskSpec("segmentation", "segmentation", 4)
TASKS = (FOUR_CLASSES, *NYUV2[1:], CELEBA[0])
SIZES = (2, 2, 1)
"""Images of the batches; the last one is short, as in a real split."""


def _unit(shape, generator):
    return torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=1)


def _batch(images, generator):
    """Predictions and targets by task; unmeasured pixels differ in number from batch to batch."""
    size = (7, 5)
    labels = torch.randint(-1, 4, (images, *size), generator=generator)
    depth = torch.rand(images, 1, *size, generator=generator) * 5 + 0.1
    depth[:, :, : images + 1] = 0
    normal = _unit((images, 3, *size), generator)
    normal[:, :, :, :images] = 0
    normal[0, :, 6, 4] = torch.tensor([0.5, -0.5, 0.0])  # components cancel, and not of unit length
    near = torch.nn.functional.normalize(normal + 0.5 * torch.randn(normal.shape, generator=generator), dim=1)
    predictions = {
        "segmentation": torch.randn(images, 4, *size, generator=generator).log_softmax(1),
        "depth": torch.rand(images, 1, *size, generator=generator) * 5,
        "normal": near,
        CELEBA[0].name: torch.randn(images, 1, generator=generator),
    }
    targets = {
        "segmentation": labels,
        "depth": depth,
        "normal": normal,
        CELEBA[0].name: torch.randint(0, 2, (images, 1), generator=generator).float(),
    }
    return predictions, targets


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(3)
    return [_batch(images, generator) for images in SIZES]


def _pixels(prediction, target):
    """``(p, t)`` of every pixel, as float64 vectors."""
    prediction, target = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    for image, row, column in np.ndindex(target.shape[0], *target.shape[-2:]):
        yield prediction[image, :, row, column], target[image, ..., row, column]


def _measured(t, protocol):
    return abs(t.sum()) > 1e-9 if protocol == "paper" else t.any()


def _segmentation_by_loop(pairs):
    hits, truly, said = np.zeros(4), np.zeros(4), np.zeros(4)
    for prediction, target in pairs:
        for p, t in _pixels(prediction, target):
            if t >= 0:
                truly[int(t)] += 1
                said[np.argmax(p)] += 1
                hits[int(t)] += np.argmax(p) == t
    return {"miou": 100 * np.mean(hits / (truly + said - hits)), "pix_acc": 100 * hits.sum() / truly.sum()}


def _depth_by_loop(pairs, protocol):
    errors = [
        [(abs(p - t)[0], abs(p - t)[0] / t[0]) for p, t in _pixels(*pair) if _measured(t, protocol)] for pair in pairs
    ]
    if protocol == "paper":
        means = np.mean([np.mean(batch, axis=0) for batch in errors], axis=0)
    else:
        means = np.mean(np.concatenate(errors), axis=0)
    return dict(zip(("abs_err", "rel_err"), means, strict=True))


def _normal_by_loop(pairs, protocol):
    def angle(p, t):
        length = 1 if protocol == "paper" else np.linalg.norm(p) * np.linalg.norm(t)
        return np.degrees(np.arccos(np.clip(p @ t / length, -1, 1)))

    def summary(angles):
        angles = np.asarray(angles)
        shares = [100 * np.mean(angles < limit) for limit in (11.25, 22.5, 30)]
        return np.array([angles.mean(), np.median(angles), *shares])

    angles = [[angle(p, t) for p, t in _pixels(*pair) if _measured(t, protocol)] for pair in pairs]
    found = np.mean([summary(batch) for batch in angles], axis=0)
    if protocol == "fixed":
        found = summary(np.concatenate(angles))
    names = ("ang_mean", "ang_median", "within_11_25", "within_22_5", "within_30")
    return dict(zip(names, found, strict=True))


def _f1_by_loop(pairs):
    rows = [(p[0] > 0, t[0] > 0) for pair in pairs for p, t in zip(*(np.asarray(x) for x in pair), strict=True)]
    hits = sum(p and t for p, t in rows)
    precision = hits / sum(p for p, _ in rows)
    recall = hits / sum(t for _, t in rows)
    return {"f1": 2 * precision * recall / (precision + recall)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metrics_are_those_of_a_loop_over_pixels(protocol, batches):
    metrics = MetricSet(TASKS, protocol)
    for predictions, targets in batches:
        metrics.update(predictions, targets)
    pairs = {task.name: [(p[task.name], t[task.name]) for p, t in batches] for task in TASKS}
    expected = {
        "segmentation": _segmentation_by_loop(pairs["segmentation"]),
        "depth": _depth_by_loop(pairs["depth"], protocol),
        "normal": _normal_by_loop(pairs["normal"], protocol),
        CELEBA[0].name: _f1_by_loop(pairs[CELEBA[0].name]),
    }
    found = metrics.compute()
    assert list(found) == list(expected)
    for task, values in expected.items():
        median = values.pop("ang_median", None)
        if median is not None:
            assert found[task].pop("ang_median") == pytest.approx(median, abs=1.1e-3 if protocol == "fixed" else 1e-3)
        assert found[task] == pytest.approx(values, rel=1e-5)


def test_the_protocols_differ_on_short_batches(batches):
    found = {}
    for protocol in PROTOCOLS:
        metrics = MetricSet(TASKS, protocol)
        for batch in batches:
            metrics.update(*batch)
        found[protocol] = metrics.compute()
    paper, fixed = found["paper"], found["fixed"]
    assert paper["segmentation"] == fixed["segmentation"]
    for task in ("depth", "normal"):
        for metric, value in paper[task].items():
            assert value != pytest.approx(fixed[task][metric], rel=1e-4)


def test_the_median_of_a_split_is_right_to_a_thousandth_of_a_degree():
    """Odd and even numbers of pixels, spread out and in two lumps that the median falls between."""
    axis = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    for angles in (np.linspace(0, 179.9, 35), np.linspace(3, 4, 30), np.array([10.0] * 5 + [80.0] * 5)):
        radians = torch.as_tensor(np.radians(angles))
        vectors = torch.stack([radians.sin(), torch.zeros_like(radians), radians.cos()]).view(1, 3, 1, -1)
        metric = make_metric(NYUV2[2])
        metric.update(vectors, axis.double().expand_as(vectors))
        found = metric.compute()
        assert found["ang_median"] == pytest.approx(np.median(angles), abs=1e-3)
        assert found["ang_mean"] == pytest.approx(np.mean(angles), abs=1e-9)


def test_small_angles_are_exact_when_fixed_and_have_a_floor_on_paper():
    """0.01 degrees: a cosine in float32 cannot tell them from 0."""
    angle = 0.01
    target = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    prediction = torch.tensor([np.sin(np.radians(angle)), 0.0, np.cos(np.radians(angle))], dtype=torch.float32)
    found = {}
    for protocol in PROTOCOLS:
        metric = make_metric(NYUV2[2], protocol)
        metric.update(prediction.view(1, 3, 1, 1), target)
        found[protocol] = metric.compute()["ang_mean"]
    assert found == {"fixed": pytest.approx(angle, rel=1e-4), "paper": 0}


def test_a_prediction_of_length_zero_is_ninety_degrees_off():
    metric = make_metric(NYUV2[2])
    metric.update(torch.zeros(1, 3, 2, 2), _unit((1, 3, 2, 2), torch.Generator().manual_seed(0)))
    found = metric.compute()
    assert found["ang_mean"] == 90
    assert found["ang_median"] == pytest.approx(90, abs=1e-3)
    assert found["within_30"] == 0


@pytest.mark.parametrize(("protocol", "miou"), [("paper", np.nan), ("fixed", 100 / 3)])
def test_a_class_that_never_occurs(protocol, miou):
    """Two of four classes; two of three pixels of class 1 are taken for class 0, so that both have an IoU of 1/3."""
    metric = make_metric(FOUR_CLASSES, protocol)
    labels = torch.tensor([[[0, 1, 1, -1], [-1, -1, 1, -1]]])
    guesses = torch.tensor([[[0, 0, 1, 3], [2, 2, 0, 1]]])
    metric.update(torch.nn.functional.one_hot(guesses, 4).movedim(-1, 1).float(), labels)
    assert metric.compute() == {"miou": pytest.approx(miou, nan_ok=True), "pix_acc": 50}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_batch_without_measurement_changes_nothing(protocol, batches):
    metrics, with_empty = MetricSet(NYUV2[1:], protocol), MetricSet(NYUV2[1:], protocol)
    empty = {"depth": torch.zeros(2, 1, 7, 5), "normal": torch.zeros(2, 3, 7, 5)}
    for predictions, targets in batches:
        metrics.update(predictions, targets)
        with_empty.update(predictions, targets)
        with_empty.update({**predictions, **{task: torch.ones_like(t) for task, t in empty.items()}}, empty)
    assert with_empty.compute() == metrics.compute()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_a_measurement_all_is_nan(protocol):
    for results in MetricSet(TASKS, protocol).compute().values():
        assert all(np.isnan(value) for value in results.values())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_nan_prediction_is_not_hidden(protocol, batches):
    (predictions, targets), *_ = batches
    metrics = MetricSet(NYUV2[1:], protocol)
    spoiled = {task: values.clone() for task, values in predictions.items()}
    for task in ("depth", "normal"):
        spoiled[task][0, 0, 6, 3] = torch.nan
    metrics.update(spoiled, targets)
    found = metrics.compute()
    for task, metric in (("depth", "abs_err"), ("depth", "rel_err"), ("normal", "ang_mean"), ("normal", "ang_median")):
        assert np.isnan(found[task][metric])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_merged_metrics_are_those_of_all_batches(protocol, batches):
    whole, first, second = (MetricSet(TASKS, protocol) for _ in range(3))
    for number, batch in enumerate(batches):
        whole.update(*batch)
        (first if number == 0 else second).update(*batch)
    first.merge(second)
    for task, values in whole.compute().items():
        assert first.compute()[task] == pytest.approx(values, rel=1e-12)
    first.reset()
    first.update(*batches[0])
    second.reset()
    first.merge(second)
    alone = MetricSet(TASKS, protocol)
    alone.update(*batches[0])
    assert first.compute() == alone.compute()


def test_what_cannot_be_merged():
    with pytest.raises(ArgumentError, match="must be a metric like DepthMetric"):
        make_metric(NYUV2[1], "paper").merge(make_metric(NYUV2[1]))
    with pytest.raises(ArgumentError, match="must be a metric like SegmentationMetric"):
        make_metric(NYUV2[0]).merge(make_metric(CITYSCAPES[0]))
    with pytest.raises(TaskMismatchError, match="must be of tasks"):
        MetricSet(NYUV2).merge(MetricSet(CITYSCAPES))


def test_an_attribute_that_never_occurs_has_f1_zero():
    metric = make_metric(CELEBA[0])
    metric.update(torch.full((4, 1), -1.0), torch.zeros(4, 1))
    assert metric.compute() == {"f1": 0}


def test_an_unknown_attribute_counts_nowhere():
    metric = make_metric(CELEBA[0])
    metric.update(torch.tensor([[1.0], [-1.0], [2.0]]), torch.tensor([[1.0], [1.0], [-1.0]]))
    assert metric.compute()["f1"] == pytest.approx(2 / 3)  # one hit, one miss
    metric.reset()
    metric.update(torch.tensor([[2.0]]), torch.tensor([[-1.0]]))
    assert np.isnan(metric.compute()["f1"])


def test_labels_that_are_no_class_are_reported():
    metric = make_metric(FOUR_CLASSES)
    metric.update(torch.zeros(1, 4, 2, 2), torch.tensor([[[0, 4], [-1, 255]]]))
    with pytest.raises(ArgumentError, match="labels from -1 to 3, 2 pixels did not"):
        metric.compute()


@pytest.mark.parametrize(
    ("task", "prediction", "target", "expected"),
    [
        (FOUR_CLASSES, (1, 3, 2, 2), (1, 2, 2), r"\[B, 4, H, W\] and \[B, H, W\], got \[1, 3, 2, 2\] and \[1, 2, 2\]"),
        (FOUR_CLASSES, (1, 4, 2, 2), (1, 1, 2, 2), r"\[B, 4, H, W\] and \[B, H, W\]"),
        (NYUV2[1], (1, 1, 2, 2), (1, 2, 2), r"both \[B, 1, H, W\]"),
        (NYUV2[2], (1, 1, 2, 2), (1, 3, 2, 2), r"both \[B, 3, H, W\]"),
        (CELEBA[0], (4, 1), (4,), r"both \[B, 1\], got \[4, 1\] and \[4\]"),
    ],
)
def test_shapes_that_do_not_fit(task, prediction, target, expected):
    with pytest.raises(ArgumentError, match=expected):
        make_metric(task).update(torch.zeros(prediction), torch.zeros(target))


def test_missing_task_and_unknown_protocol(batches):
    predictions, targets = batches[0]
    with pytest.raises(TaskMismatchError, match="targets must have task 'depth', got segmentation"):
        MetricSet(NYUV2[1:]).update(predictions, {"segmentation": targets["segmentation"]})
    with pytest.raises(ArgumentError, match="protocol must be .*, got 'papre'"):
        MetricSet(NYUV2, "papre")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_update_needs_no_value_on_the_host(protocol, batches):
    """Tensors of the meta device have none: whatever asks for one, or for a number of elements, raises."""
    metrics = MetricSet(TASKS, protocol)
    for batch in batches:
        metrics.update(*({name: value.to("meta") for name, value in part.items()} for part in batch))
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        metrics.compute()
