"""The imbalance dial: the loss of a task times a number, metrics as they were."""

import pytest
import torch

from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.experiments.supervised.config import DataConfig
from mtrl_imgrad.supervised.settings import OptimizationConfig
from mtrl_imgrad.supervised.splits import Splits
from mtrl_imgrad.supervised.trainer import MultiTaskTrainer
from tests.support.replicas import training as runs


def trainer_of(combiner="imtl_g", **scales):
    scenes = runs.Scenes(8, 0)
    return MultiTaskTrainer(
        runs.Net(),
        Splits(scenes, {"val": scenes}, runs.TASKS),
        combiner,
        optimization=OptimizationConfig(epochs=1, batch_size=4),
        task_scales=scales,
        device="cpu",
    )


def test_a_scale_multiplies_loss_and_gradient_and_no_metric():
    plain, scaled = trainer_of("linear_scalarization"), trainer_of("linear_scalarization", depth=30.0)
    part = next(plain.feed.in_order(plain.data.train))
    for trainer in (plain, scaled):
        trainer._optimizer.step = lambda: None
    (first, one), (second, other) = (t.update(part.images, part.targets, log=True) for t in (plain, scaled))
    torch.testing.assert_close(second, first * torch.tensor([1.0, 30.0]))
    assert other["norm/depth"] == pytest.approx(30 * one["norm/depth"], rel=1e-4)
    assert other["norm/segmentation"] == pytest.approx(one["norm/segmentation"], rel=1e-4)
    assert other["imbalance"] != pytest.approx(one["imbalance"], rel=0.1)
    assert scaled.evaluate("val")[0] == plain.evaluate("val")[0]


def test_wrong_scales_are_refused():
    with pytest.raises(UnknownNameError, match="task 'dept'"):
        trainer_of(dept=2.0)
    with pytest.raises(ArgumentError, match="task_scales"):
        trainer_of(depth=-1.0)
    with pytest.raises(ArgumentError, match=r"task_scales\['depth'\] must be a finite number > 0, got 0"):
        DataConfig(task_scales={"depth": 0})
