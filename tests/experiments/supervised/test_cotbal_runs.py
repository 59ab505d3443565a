"""CoTBal's K + 1 runs: what they see, the tables they leave, and training with them."""

import dataclasses
import json

import pytest
import torch
from rich.console import Console

from mtrl_imgrad.combiners import CoTBal
from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.experiments.supervised.config import DataConfig, ModelConfig, SupervisedConfig, load_config
from mtrl_imgrad.experiments.supervised.cotbal import measure_cotbal
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.experiments.supervised.history import read_rows
from mtrl_imgrad.experiments.supervised.run import make_trainer
from mtrl_imgrad.supervised.datasets.partly_labeled import PartlyLabeled
from mtrl_imgrad.supervised.objectives import make_loss
from mtrl_imgrad.supervised.settings import OptimizationConfig, ReportConfig
from mtrl_imgrad.supervised.tasks import TaskSpec
from tests.supervised.test_run_combiner import TASKS, Faces

QUIET = {"console": Console(quiet=True), "progress_bar": False}


class Maps(torch.utils.data.Dataset):
    tasks = (TaskSpec("seg", "segmentation", 3), TaskSpec("depth", "depth", 1), TaskSpec("normal", "normal", 3))

    def __len__(self):
        return 8

    def __getitem__(self, index):
        ones = torch.ones(3, 2, 2)
        targets = {"seg": torch.ones(2, 2, dtype=torch.int64), "depth": ones[:1], "normal": ones / 3**0.5}
        return ones * index, targets


def test_mini_is_a_share_of_the_images_and_the_same_share_in_every_run():
    mini = PartlyLabeled(Maps(), Maps.tasks, 0.25, (), seed=3)
    drawn = {int(image[0, 0, 0]) for image, _ in mini}
    assert len(mini) == len(drawn) == 2
    full = PartlyLabeled(Maps(), Maps.tasks, 0.25, ("depth",), seed=3)
    assert len(full) == 8
    for index, (image, targets) in enumerate(full):
        assert int(image[0, 0, 0]) == index
        assert targets["depth"].all()
        labeled = index in drawn
        assert bool((targets["seg"] == 1).all()) == labeled
        assert bool((targets["seg"] == -1).all()) == (not labeled)
        assert bool(targets["normal"].any()) == labeled


def test_a_single_task_has_all_labels_only_where_it_is_a_full_task(small):
    data = dataclasses.replace(small.data, train_fraction=0.25, full_tasks=("depth",))
    sizes = {name: len(load_splits(dataclasses.replace(data, tasks=(name,))).train) for name in ("depth", "normal")}
    assert sizes == {"depth": 8, "normal": 2}
    for fraction in (0.25, 1.0):
        wrong = dataclasses.replace(data, train_fraction=fraction, full_tasks=("dept",))
        with pytest.raises(UnknownNameError, match="depth"):
            load_splits(wrong)


def test_unknown_attributes_have_no_part_in_the_loss():
    hidden = PartlyLabeled(Faces(), TASKS, 0.1, ("a",), seed=0)
    targets = torch.stack([target["b"] for _, target in hidden])
    assert targets.eq(-1).sum() == 9
    logits = torch.randn(10, 1, dtype=torch.float64, requires_grad=True)
    loss = make_loss(TASKS[1])(logits, targets.double())
    (gradient,) = torch.autograd.grad(loss, logits)
    known = targets != -1
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[known], targets.double()[known])
    assert loss.item() == pytest.approx(expected.item())
    assert (gradient != 0).sum() == 1
    nothing = make_loss(TASKS[1])(logits, torch.full_like(logits, -1))
    assert nothing.item() == 0
    assert nothing.requires_grad
    assert TASKS[1].record.measured(targets, "fixed").sum() == 1  # what a replica counts as its rows


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("cotbal") / "scenes"
    config = SupervisedConfig(
        data=DataConfig(root=root, simulate="primitives", simulate_counts=(8, 4), simulate_size=(32, 32)),
        model=ModelConfig(model="segnet", width=1 / 16),
        optimization=OptimizationConfig(epochs=1, batch_size=4, learning_rate=5e-3, lr_schedule="constant"),
        reporting=ReportConfig(last_epochs=1, log_every=0, panel_images=1),
        device="cpu",
    )
    load_splits(config.data, progress_bar=False)
    return config


def test_the_tables_are_the_runs_validation_scores_and_train_with_one_command(small, tmp_path):
    tables = measure_cotbal(small, tmp_path, mini=0.25, temperature=0.5, **QUIET)
    assert tables.tasks == ["segmentation", "depth", "normal"]
    runs = ["mini-seed0", *(f"{task}-mini-seed0" for task in tables.tasks)]
    assert sorted(runs) == sorted(entry.name for entry in (tmp_path / "runs").iterdir())
    for run, row in zip(runs, [tables.mini, *tables.single], strict=True):
        (last,) = read_rows(tmp_path / "runs" / run / "epochs.csv")
        found = [last["val/segmentation/miou"], 1 / last["val/depth/abs_err"], 1 / last["val/normal/ang_mean"]]
        assert row == pytest.approx(found)
    assert sum(tables.weights) == pytest.approx(3)
    assert json.loads((tmp_path / "cotbal.json").read_text())["weights"] == tables.weights
    config = load_config(tmp_path / "config.yaml")
    trainer = make_trainer(config, load_splits(config.data, progress_bar=False))
    assert isinstance(trainer.combiner, CoTBal)
    assert trainer.combiner.task_weights == pytest.approx(tables.weights)
    assert trainer.heads == "unweighted"
    # Again: nothing is run anew, and other settings do not mix in.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*")}
    assert measure_cotbal(small, tmp_path, mini=0.25, temperature=0.5, **QUIET) == tables
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*")} == before
    with pytest.raises(ArgumentError, match="other settings"):
        measure_cotbal(small, tmp_path, mini=0.5, **QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mini": 0.0}, "mini"),
        ({"mini": 1.0}, "mini must be a"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_wrong_arguments_are_told_before_anything_runs(small, tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        measure_cotbal(small, tmp_path, **options, **QUIET)
    assert not list(tmp_path.iterdir())


def test_one_task_has_nothing_to_balance(small, tmp_path):
    one = dataclasses.replace(small, data=dataclasses.replace(small.data, tasks=("depth",)))
    with pytest.raises(ArgumentError, match=r"tasks must be two or more for CoTBal, got \['depth'\]"):
        measure_cotbal(one, tmp_path, **QUIET)
