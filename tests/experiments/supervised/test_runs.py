"""Run folders: what they hold, going on, the best epoch, damaged checkpoints."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from mtrl_imgrad.checkpoints.format import read_checkpoint, write_checkpoint
from mtrl_imgrad.errors import ArgumentError, CheckpointError
from mtrl_imgrad.experiments.supervised.config import (
    DataConfig,
    ModelConfig,
    SupervisedConfig,
    load_config,
)
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.experiments.supervised.history import RunResult, best_epoch, read_rows
from mtrl_imgrad.experiments.supervised.run import load_model, make_trainer, resume, train
from mtrl_imgrad.supervised.epoch_record import EpochRecord
from mtrl_imgrad.supervised.settings import OptimizationConfig, ReportConfig
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.supervised.trainer import MultiTaskTrainer
from tests.support.supervised.learned import config_for, write_faces, write_scenes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_faces(tmp_path_factory.mktemp("data") / "faces")


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    return folder, train(config_for(root, folder, combiner="pcgrad"), progress_bar=False)


def test_a_run_leaves_its_result_and_everything_behind_it(run, root):
    folder, result = run
    rows = read_rows(folder / "epochs.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    for task, metrics in result.results.items():
        for metric, value in metrics.items():
            assert value == pytest.approx(np.mean([row[f"val/{task}/{metric}"] for row in rows[-2:]]))
    assert RunResult.load(folder / "result.json") == result
    assert result.how == "val, mean of the last 2 of 3 epochs"
    assert [row["step"] for row in read_rows(folder / "diagnostics.csv")] == [0, 2, 4, 6, 8]
    for name in ("panel.png", "config.yaml", "checkpoint/manifest.json"):
        assert (folder / name).stat().st_size > 100
    config = load_config(folder / "config.yaml")
    assert config == config_for(root, None, combiner="pcgrad")
    model = load_model(folder, load_splits(config.data))
    state = read_checkpoint(folder / "checkpoint")["model"]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    with pytest.raises(ArgumentError, match="holds a run already"):
        train(config_for(root, folder))
    assert resume(folder) == result


@pytest.mark.parametrize(
    ("combiner", "anew"), [("pcgrad", False), ("imgrad", False), pytest.param("pcgrad", True, marks=pytest.mark.slow)]
)
def test_a_stopped_run_continues_bit_for_bit(root, tmp_path, monkeypatch, combiner, anew):
    """Stopped after an epoch, continued here, where random numbers were drawn since, or by another process."""
    kwargs = {"update_every": 2} if combiner == "imgrad" else {}
    straight = train(
        config_for(root, tmp_path / "straight", combiner=combiner, combiner_kwargs=kwargs), progress_bar=False
    )

    class StoppedError(Exception):
        pass

    def stop(self, advance):
        if self.epoch == 2:
            raise StoppedError
        return original(self, advance)

    original = MultiTaskTrainer._run_epoch
    monkeypatch.setattr(MultiTaskTrainer, "_run_epoch", stop)
    with pytest.raises(StoppedError):
        train(config_for(root, tmp_path / "stopped", combiner=combiner, combiner_kwargs=kwargs), progress_bar=False)
    monkeypatch.undo()
    if not anew:
        torch.rand(7)
        continued = resume(tmp_path / "stopped", progress_bar=False)
    else:
        command = [sys.executable, "-m", "mtrl_imgrad.cli", "supervised", "--no-progress-bar", "--resume"]
        subprocess.run([*command, str(tmp_path / "stopped")], check=True, capture_output=True)
        continued = RunResult.load(tmp_path / "stopped" / "result.json")
    assert continued.results == straight.results
    assert continued.steps == straight.steps
    first, second = (read_checkpoint(tmp_path / name / "model")["model"] for name in ("straight", "stopped"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    columns = [name for name in read_rows(tmp_path / "straight" / "epochs.csv")[0] if name != "seconds"]
    one, two = (read_rows(tmp_path / name / "epochs.csv") for name in ("straight", "stopped"))
    assert [[row[c] for c in columns] for row in one] == [[row[c] for c in columns] for row in two]
    assert (tmp_path / "straight/diagnostics.csv").read_bytes() == (tmp_path / "stopped/diagnostics.csv").read_bytes()


def test_the_best_epoch_in_validation_is_reported_on_test(faces, tmp_path):
    config = SupervisedConfig(
        data=DataConfig(format="celeba", root=faces, image_size=(16, 16)),
        model=ModelConfig(model="attribute_net", single_task_model="attribute_net", width=1 / 8),
        optimization=OptimizationConfig(epochs=4, batch_size=8, learning_rate=1e-3, lr_schedule="constant"),
        reporting=ReportConfig(report="best", log_every=0, panel_images=2),
        device="cpu",
        run_dir=tmp_path / "run",
    )
    result = train(config, progress_bar=False)
    rows = read_rows(tmp_path / "run/epochs.csv")
    scores = [np.mean([row["val/Red/f1"], row["val/Green/f1"]]) for row in rows]
    best = int(np.argmax(scores))
    assert result.epochs == [best]
    assert result.split == "test"
    assert result.results["Red"]["f1"] == rows[best]["test/Red/f1"]
    data = load_splits(config.data)
    trainer = make_trainer(config, data)
    trainer.model.load_state_dict(load_model(tmp_path / "run", data).state_dict())
    assert trainer.evaluate("test")[0] == result.results


def test_the_best_epoch_of_dense_tasks_is_that_of_the_lowest_relative_loss():
    def record(epoch, seg, depth):
        losses = {"val": {"segmentation": seg, "depth": depth}}
        return EpochRecord(epoch, epoch, 1e-3, {}, losses, {"val": {}}, 1.0)

    tasks = [TaskSpec("segmentation", "segmentation", 3), TaskSpec("depth", "depth", 1)]
    # Relative to the first: 1, (0.5 + 1.1) / 2 = 0.8, (0.9 + 0.6) / 2 = 0.75; the plain sum would choose the second.
    records = [record(0, 10.0, 1.0), record(1, 5.0, 1.1), record(2, 9.0, 0.6)]
    assert best_epoch(records, tasks) == 2
    # What is not finite is never best, be it the first, to which the others are relative.
    assert best_epoch([record(0, np.inf, 1.0), record(1, np.nan, 0.1), record(2, 9.0, 0.6)], tasks) == 2


def test_a_table_with_a_row_of_another_length_is_refused(tmp_path):
    path = tmp_path / "epochs.csv"
    path.write_text("epoch,loss\n0,\n1,0.5\n")
    assert read_rows(path)[1] == {"epoch": 1, "loss": 0.5}
    for text in ("epoch,loss\n0\n", "epoch,loss\n0,0.5,2\n"):
        path.write_text(text)
        with pytest.raises(CheckpointError, match="cannot be read as a table of numbers"):
            read_rows(path)


@pytest.mark.parametrize("part", ["model", "checkpoint"])
def test_a_damaged_checkpoint_of_a_run_is_named(run, part, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    (folder / "result.json").unlink()
    tensors = next((folder / part).glob("tensors-*"))
    tensors.write_bytes(tensors.read_bytes()[:-1])
    data = load_splits(load_config(folder / "config.yaml").data)
    with pytest.raises(CheckpointError, match=rf"{part}: member 'tensors' is damaged"):
        load_model(folder, data) if part == "model" else resume(folder, progress_bar=False)


@pytest.mark.parametrize("change", [{"history": [{"epoch": 1}]}, {"history": None}, {"model": {}}, {"optimizer": []}])
def test_a_forged_checkpoint_of_a_run_is_refused(run, change, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    (folder / "result.json").unlink()
    write_checkpoint(folder / "checkpoint", {**read_checkpoint(folder / "checkpoint"), **change})
    with pytest.raises(CheckpointError, match=f"{folder}/checkpoint cannot be restored"):
        resume(folder, progress_bar=False)
    write_checkpoint(folder / "model", change)
    data = load_splits(load_config(folder / "config.yaml").data)
    with pytest.raises(CheckpointError, match=f"{folder}/model does not fit"):
        load_model(folder, data)


def test_a_run_of_an_earlier_version_is_not_begun_again(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    (tmp_path / "run" / "checkpoint").rename(tmp_path / "run" / "checkpoint.pt")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is of an earlier version"):
        resume(tmp_path / "run", progress_bar=False)
    (tmp_path / "run" / "model").rename(tmp_path / "run" / "model.pt")
    data = load_splits(load_config(run[0] / "config.yaml").data)
    with pytest.raises(CheckpointError, match=r"model\.pt is of an earlier version"):
        load_model(tmp_path / "run", data)
