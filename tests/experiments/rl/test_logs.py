"""A run's logs: one table in one order of columns, also over a break; TensorBoard's layout; trackers."""

import csv
import types

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtrl_imgrad.cli import main
from mtrl_imgrad.errors import MissingDependencyError
from mtrl_imgrad.experiments.rl.config import train_config_class
from mtrl_imgrad.experiments.rl.logs import LAYOUT, begin_tensorboard, record_hparams, run_logger
from mtrl_imgrad.experiments.rl.tracking import start_tracker

STEPS = "time/total_timesteps"


def write(logger, rows):
    for step, row in enumerate(rows):
        for name, value in row.items():
            logger.record(name, value)
        logger.dump(step)
    logger.close()


def read(path):
    with path.open() as file:
        header = next(csv.reader(file))
        file.seek(0)
        return header, [{name: text for name, text in row.items() if text} for row in csv.DictReader(file)]


NAMES = [f"train/{name}" for name in "hcgaebfd"]


def test_columns_have_one_order_and_rows_keep_their_values(tmp_path):
    rows = [dict.fromkeys(NAMES[:5], 1), {"eval/z": 0.5, "eval/b": 0, "own": 1}, dict.fromkeys(NAMES, 3), {STEPS: 4}]
    write(run_logger(tmp_path, 0), rows)
    header, found = read(tmp_path / "progress.csv")
    assert header == [STEPS, "eval/b", "eval/z", *sorted(NAMES), "own"]
    assert found == [{name: str(value) for name, value in row.items()} for row in rows]
    write(run_logger(tmp_path / "again", 0), rows[::-1])
    assert read(tmp_path / "again" / "progress.csv")[0] == header, "whatever comes first"


def test_a_run_that_goes_on_loses_the_rows_that_a_break_threw_away(tmp_path):
    write(run_logger(tmp_path, 0), [{STEPS: 400, "a": 1}, {STEPS: 800, "a": 2}, {STEPS: 900, "b": 9}, {"a": 3}])
    write(run_logger(tmp_path, 800), [{STEPS: 1000, "c": "text, with a comma"}])
    header, rows = read(tmp_path / "progress.csv")
    assert header == [STEPS, "a", "b", "c"]
    assert [row[STEPS] for row in rows] == ["400", "800", "1000"]
    assert rows[-1]["c"] == "text, with a comma"
    write(run_logger(tmp_path, 0), [{STEPS: 1}])
    assert read(tmp_path / "progress.csv") == ([STEPS], [{STEPS: "1"}]), "a run that starts anew has a new table"


def test_tensorboard_opens_with_success_and_holds_the_options_once(tmp_path):
    logger = run_logger(tmp_path, 0)
    begin_tensorboard(logger)
    record_hparams(logger, train_config_class("mtppo")(seed=7))
    write(logger, [{"eval/success_rate": 0.5}, {"eval/success_rate": 1.0}])
    events = EventAccumulator(str(tmp_path)).Reload()
    metadata = {tag: events.SummaryMetadata(tag).plugin_data for tag in events.Tags()["tensors"]}
    assert [plugin.plugin_name for plugin in metadata.values()].count("custom_scalars") == 1
    assert next(iter(LAYOUT)) == "success"
    start = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"agent.n_steps" in start
    assert b"seed" in start
    assert b"run_dir" not in start
    assert "hparams" not in (tmp_path / "progress.csv").read_text()


class Stub(types.ModuleType):
    """A tracker's interface, which keeps what it is given."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


@pytest.mark.parametrize(
    ("name", "begin", "log", "end"),
    [
        ("wandb", ["init"], "log", "finish"),
        ("trackio", ["init"], "log", "finish"),
        ("mlflow", ["set_experiment", "start_run", "log_params"], "log_metrics", "end_run"),
    ],
)
def test_a_tracker_gets_what_tensorboard_gets(tmp_path, monkeypatch, name, begin, log, end):
    stub = Stub(name)
    monkeypatch.setitem(__import__("sys").modules, name, stub)
    logger = run_logger(tmp_path, 0, [start_tracker(name, tmp_path, {"seed": 7})])
    logger.record("a", np.float32(0.5))
    logger.record("text", "no number")
    logger.record("hidden", 1, exclude="tensorboard")
    logger.dump(12)
    logger.close()
    names = [call[0] for call in stub.calls]
    assert names == [*begin, log, end]
    assert stub.calls[-2][1:] == (({"a": 0.5},), {"step": 12})
    assert "7" in str(stub.calls[: len(begin)])


def test_a_run_is_tracked_by_an_option(tmp_path, monkeypatch):
    stub = Stub("trackio")
    monkeypatch.setitem(__import__("sys").modules, "trackio", stub)
    options = "--env toy-reach --total-timesteps 40 --learning-starts 20 --net-arch 4 --batch-size 8 --eval-freq 0"
    more = "--eval-episodes 1 --final-episodes 1 --checkpoint-every 0 --no-progress-bar --track trackio"
    assert main(["train", *options.split(), *more.split(), "--run-dir", str(tmp_path / "run")]) == 0
    logged = [call for call in stub.calls if call[0] == "log"]
    assert "eval/success_rate" in logged[0][1][0]
    assert stub.calls[0][2]["config"]["total_timesteps"] == 40
    assert stub.calls[-1][0] == "finish"


def test_a_missing_tracker_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(MissingDependencyError, match="pip install wandb"):
        start_tracker("wandb", tmp_path, {})
