"""Kinds of tasks as data: classification and regression, and a kind of one's own through the whole of a run."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.experiments.supervised.history import best_epoch
from mtrl_imgrad.experiments.supervised.panels import draw_panel, draw_run_panel
from mtrl_imgrad.supervised.epoch_record import EpochRecord
from mtrl_imgrad.supervised.kinds import TaskKind, list_kinds, register_kind, task_kind
from mtrl_imgrad.supervised.metrics import RegressionMetric
from mtrl_imgrad.supervised.models import make_model
from mtrl_imgrad.supervised.objectives import make_loss, make_metric
from mtrl_imgrad.supervised.settings import OptimizationConfig
from mtrl_imgrad.supervised.splits import Splits
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.supervised.trainer import MultiTaskTrainer
from tests.support.registries import forget_registrations

COLOUR = TaskSpec("colour", "classification", 4)
SIZE = TaskSpec("size", "regression", 1, scale=2.5, offset=1.0)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    forget_registrations(monkeypatch)


def test_classification_is_cross_entropy_and_accuracy_over_labelled_images():
    scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 3, -1, 2, 2, 1])
    prediction, known = scores.log_softmax(1), classes >= 0
    found = make_loss(COLOUR)(prediction, classes)
    torch.testing.assert_close(found, F.cross_entropy(scores[known], classes[known]))
    metric = make_metric(COLOUR)
    metric.update(prediction[:3], classes[:3])
    metric.update(prediction[3:], classes[3:])
    hits = [int(row.argmax()) == label for row, label in zip(scores, classes.tolist(), strict=True) if label >= 0]
    assert metric.compute()["accuracy"] == pytest.approx(100 * np.mean(hits))


def test_regression_is_squared_error_and_the_error_in_the_tables_unit():
    prediction = torch.tensor([[1.0], [2.0], [-1.0]], requires_grad=True)
    target = torch.tensor([[0.5], [math.nan], [1.0]])
    loss = make_loss(SIZE)(prediction, target)
    assert loss.item() == pytest.approx((0.25 + 4) / 2)
    loss.backward()
    assert prediction.grad[:, 0].tolist() == [0.5, 0.0, -2.0]  # nothing, and no NaN, where it is unknown
    metric = make_metric(SIZE)
    metric.update(prediction, target)
    assert metric.compute()["mae"] == pytest.approx(2.5 * (0.5 + 2) / 2)


@pytest.mark.parametrize("task", [COLOUR, SIZE])
def test_a_batch_in_which_nothing_is_known_has_loss_zero_and_no_metric(task):
    raw = torch.randn(3, task.channels, requires_grad=True)
    target = torch.full((3,) if task is COLOUR else (3, 1), task.record.unknown)
    target = target.long() if task is COLOUR else target
    loss = make_loss(task)(task.record.head(raw, "fixed"), target)
    loss.backward()
    assert loss.item() == 0
    assert not raw.grad.any()
    metric = make_metric(task)
    metric.update(task.record.head(raw, "fixed"), target)
    assert all(math.isnan(value) for value in metric.compute().values())


@pytest.mark.parametrize("name", list_kinds())
def test_every_kind_scores_by_a_metric_that_it_has_and_in_its_direction(name):
    kind = task_kind(name)
    task = TaskSpec("a", name, kind.channels or 3)
    assert make_metric(task).higher_is_better[kind.score] is not kind.score_is_error


def test_wrong_tasks_and_kinds_are_refused():
    with pytest.raises(UnknownNameError, match=r"kind of task 'clasification'.*Did you mean 'classification'"):
        TaskSpec("a", "clasification", 3)
    with pytest.raises(ArgumentError, match="channels must be at least 2 for classification, got 1"):
        TaskSpec("a", "classification", 1)
    with pytest.raises(ArgumentError, match="channels must be 1 for regression, got 2"):
        TaskSpec("a", "regression", 2)
    with pytest.raises(ArgumentError, match="name of its own, got 'depth'"):
        register_kind(task_kind("depth"))
    with pytest.raises(ArgumentError, match="no head for task 'colour' of kind 'classification'; kinds: depth, normal"):
        make_model("segnet", [COLOUR])
    with pytest.raises(ArgumentError, match=r"must be \[B, 4\] and \[B\], got"):
        make_metric(COLOUR).update(torch.zeros(2, 4), torch.zeros(2, 1))


class Discs(torch.utils.data.Dataset):
    """Pictures of one of four colours: the class, and how bright."""

    def __init__(self, count, start, tasks):
        generator = torch.Generator().manual_seed(start)
        colours = torch.randint(4, (count,), generator=generator)
        bright = torch.rand(count, 1, generator=generator)
        palette = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
        self.images = (palette[colours] * (0.4 + 0.6 * bright))[..., None, None].expand(-1, -1, 8, 8)
        self.targets = {"colour": colours, "size": 2 * bright - 1, "count": bright}
        self.tasks = tasks

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], {task.name: self.targets[task.name][index] for task in self.tasks}


def trainer_of(tasks, epochs=1, count=33):
    torch.manual_seed(0)
    splits = Splits(Discs(count, 0, tasks), {"val": Discs(10, 1, tasks)}, tasks)
    optimization = OptimizationConfig(epochs=epochs, batch_size=8, learning_rate=3e-3, lr_schedule="constant")
    model = make_model("attribute_net", tasks, width=1 / 16)
    return MultiTaskTrainer(model, splits, "imgrad", optimization=optimization, device="cpu")


def test_a_network_learns_a_class_and_a_number_side_by_side(tmp_path):
    trainer = trainer_of((COLOUR, SIZE), epochs=12)
    records = list(trainer.epochs())
    assert trainer.steps_per_epoch == 4  # a last batch of one image has no statistics for batch norm
    assert records[-1].train_losses["colour"] < records[0].train_losses["colour"]
    assert records[-1].train_losses["size"] < records[0].train_losses["size"]
    assert set(records[-1].results["val"]) == {"colour", "size"}
    assert draw_run_panel(trainer, tmp_path / "panel.png", 2).exists()


def test_an_epoch_without_a_batch_is_refused():
    with pytest.raises(ArgumentError, match=r"1 training image\(s\) in batches of 8: batch norm needs two"):
        trainer_of((COLOUR, SIZE), count=1)


def test_a_kind_of_ones_own_is_one_record(tmp_path):
    huber = TaskKind(
        "huber",
        loss=lambda prediction, target, protocol: F.huber_loss(prediction, target),
        metric=lambda task, protocol: RegressionMetric(1.0, protocol),
        head=lambda raw, protocol: raw.exp(),
        measured=lambda target, protocol: target >= 0,
        unknown=-1.0,
        dense=False,
        as_target=lambda prediction: prediction,
        show=lambda task, value, truth: f"{float(value):.1f} of {float(truth):.1f}",
        score="mae",
        score_is_error=True,
        channels=1,
    )
    register_kind(huber)
    trainer = trainer_of((COLOUR, TaskSpec("count", "huber", 1)))
    (record,) = trainer.epochs()
    assert record.results["val"]["count"]["mae"] > 0
    assert draw_run_panel(trainer, tmp_path / "panel.png", 1).exists()


@pytest.mark.parametrize(("kind", "name", "best"), [("classification", "accuracy", 1), ("regression", "mae", 0)])
def test_accuracy_chooses_an_epoch_and_for_numbers_the_loss_does(kind, name, best):
    tasks = [TaskSpec("a", kind, task_kind(kind).channels or 2)]
    records = [
        EpochRecord(epoch, 1, 0.1, {}, {"val": {"a": loss}}, {"val": {"a": {name: value}}}, 0.0)
        for epoch, (loss, value) in enumerate([(1.0, 50.0), (2.0, 60.0)])
    ]
    assert best_epoch(records, tasks) == best


def test_a_task_without_labels_in_validation_does_not_choose_the_epoch():
    tasks = [TaskSpec("a", "classification", 2), TaskSpec("b", "classification", 2)]
    records = [
        EpochRecord(
            epoch,
            1,
            0.1,
            {},
            {"val": {"a": 1.0, "b": 0.0}},
            {"val": {"a": {"accuracy": value}, "b": {"accuracy": math.nan}}},
            0.0,
        )
        for epoch, value in enumerate([50.0, 60.0])
    ]
    assert best_epoch(records, tasks) == 1


def test_the_panel_lists_what_belongs_to_the_whole_image(tmp_path):
    images = torch.rand(2, 3, 8, 8)
    targets = {"colour": torch.tensor([1, -1]), "size": torch.tensor([[0.5], [math.nan]])}
    predictions = {"mine": {"colour": torch.eye(4)[:2], "size": torch.zeros(2, 1)}}
    assert draw_panel(tmp_path / "panel.png", images, targets, predictions, (COLOUR, SIZE)).exists()
    pairs = [(task, targets[task.name][b]) for task in (COLOUR, SIZE) for b in (0, 1)]
    show = [task.record.show(task, value, value) for task, value in pairs]
    assert show == ["colour: class 1", "", "size: 2.25", ""]
