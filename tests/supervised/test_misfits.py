"""Data sets of one's own that do not fit are told with the task and the remedy, not by torch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from mtrl_imgrad.errors import ArgumentError, DatasetError, MtrlImgradError
from mtrl_imgrad.supervised.misfits import check_values
from mtrl_imgrad.supervised.models import make_model
from mtrl_imgrad.supervised.settings import OptimizationConfig
from mtrl_imgrad.supervised.splits import Splits, TaskSplits
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.supervised.trainer import MultiTaskTrainer

TASKS = (TaskSpec("kind", "classification", 3), TaskSpec("red", "attribute", 1))


class Pictures(torch.utils.data.Dataset):
    """Three pictures; ``change`` is what was done to an item by mistake."""

    def __init__(self, change=lambda item: item, count=3):
        self.change, self.count = change, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        targets = {"kind": torch.tensor(index % 3), "red": torch.tensor([float(index % 2)])}
        return self.change((torch.full((3, 64, 64), index / 3), targets))


def _with(name, change):
    return lambda item: (item[0], {**item[1], name: change(item[1][name])})


def _train(train, val=None, batch_size=3):
    splits = Splits(train, {"val": val or Pictures()}, TASKS)
    options = OptimizationConfig(epochs=1, batch_size=batch_size)
    model = make_model("attribute_net", TASKS, width=1 / 16)
    return list(MultiTaskTrainer(model, splits, "imgrad", optimization=options, device="cpu").epochs())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda item: (item[0], {"red": item[1]["red"]}), "no target of task 'kind'; it has red"),
        (
            lambda item: {"image": item[0], **item[1]},
            r"an item .* is a \{image: Tensor \[3, 64, 64\], kind: .*expected",
        ),
        (lambda item: (*item, 1), r"is a \(Tensor \[3, 64, 64\], .*, int\); expected \(image, \{task: target\}\)"),
        (lambda item: None, "is a NoneType; expected"),
        (lambda item: (object(), item[1]), "items do not make a batch; expected tensors"),
        (lambda item: ((item[0] * 255).byte(), item[1]), r"images of torch.uint8; expected float32, RGB from 0 to 1"),
        (
            _with("kind", lambda target: target + 255),
            "task 'kind': .*expected classes 0 to 2, -1 where unknown, got 25",
        ),
        (_with("kind", lambda target: target.float()), r"task 'kind': .*float32; expected int64: target.long\(\)"),
        (_with("kind", lambda target: target[None]), r"task 'kind': log_probabilities and classes must be"),
        (_with("red", lambda target: target > 0), "task 'red': a target of torch.bool; expected float32"),
        (_with("red", lambda target: target + 1), "task 'red': expected 0 to 1, -1 where unknown, got 2"),
        (lambda item: (item[0] * 255, item[1]), "images with values up to 170; expected RGB from 0 to 1"),
        (_with("red", lambda target: target[0]), "task 'red': logits and target must have the same shape"),
    ],
)
def test_an_item_that_does_not_fit_is_told(change, message):
    for split in ("train", "val"):
        data = {split: Pictures(change)}
        with pytest.raises(MtrlImgradError, match=message):
            _train(data.get("train", Pictures()), data.get("val"))


@pytest.mark.parametrize(
    ("kind", "channels", "right", "wrong", "message"),
    [
        ("depth", 1, torch.rand(2, 1, 4, 4), -torch.ones(2, 1, 4, 4), "depths above 0, 0 where unknown, got -1"),
        ("normal", 3, F.normalize(torch.randn(2, 3, 4, 4)), torch.full((2, 3, 4, 4), 0.3), "lengths of about 0.52"),
        ("segmentation", 4, torch.randint(-1, 4, (2, 4, 4)), torch.full((2, 4, 4), 255), "classes 0 to 3, .* got 255"),
        ("attribute", 1, torch.tensor([[0.0], [0.3], [1.0], [-1.0]]), torch.tensor([[-2.0]]), "0 to 1, .* got -2"),
        ("regression", 1, torch.tensor([[-1e6], [math.nan]]), None, ""),
    ],
)
def test_values_of_another_unit_are_told(kind, channels, right, wrong, message):
    task, images = TaskSpec("it", kind, channels), torch.randn(2, 3, 4, 4)
    check_values(images, {"it": right}, [task])
    unknown = torch.full_like(right, task.record.unknown)
    check_values(images, {"it": unknown}, [task])
    if wrong is not None:
        with pytest.raises(DatasetError, match=f"task 'it': expected .*{message}"):
            check_values(images, {"it": wrong}, [task])


def test_items_of_several_shapes_are_told():
    def crop(item):
        side = 64 if float(item[0].max()) > 0 else 32
        return item[0][:, :side, :side], item[1]

    with pytest.raises(DatasetError, match=r"items do not make a batch; expected .*one shape in all: \(Tensor \[3, "):
        _train(Pictures(crop))


def test_an_error_of_the_users_own_stays_as_it_is():
    def fail(item):
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        _train(Pictures(fail))


def test_a_loader_a_task_names_the_target_that_is_missing():
    without = Pictures(lambda item: (item[0], {"red": item[1]["red"]}))
    data = TaskSplits({"kind": without, "red": Pictures()}, {"val": {"kind": Pictures(), "red": Pictures()}}, TASKS)
    trainer = MultiTaskTrainer(make_model("attribute_net", TASKS, width=1 / 16), data, "imgrad", device="cpu")
    with pytest.raises(DatasetError, match="no target of task 'kind'; it has red"):
        next(trainer.epochs())


def test_batches_of_one_image_are_told_where_batch_norm_needs_two():
    with pytest.raises(ArgumentError, match="batch_size: batch norm needs two images in a batch, got 1"):
        _train(Pictures(), batch_size=1)
    with pytest.raises(ArgumentError, match=r"1 training image\(s\) in batches of 3: batch norm needs two"):
        _train(Pictures(count=1))


def test_numpy_images_and_plain_numbers_make_a_batch():
    records = _train(
        Pictures(lambda item: (np.asarray(item[0]), {"kind": int(item[1]["kind"]), "red": item[1]["red"]}))
    )
    assert set(records[0].train_losses) == {"kind", "red"}
