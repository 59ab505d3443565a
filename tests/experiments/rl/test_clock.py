"""Seconds of learning in ``clock.csv``."""

import math
from types import SimpleNamespace

import pytest

from mtrl_imgrad.experiments.rl import clock
from mtrl_imgrad.experiments.rl.clock import read_clock


def test_an_evaluation_that_is_interrupted_does_not_count_as_learning(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock, "_now", lambda: (now[0], now[0]))
    run_clock = clock.RunClock(tmp_path)
    run_clock.init_callback(SimpleNamespace(num_timesteps=0, train_success=math.nan, get_env=lambda: None))
    run_clock.on_training_start({}, {})
    now[0] = 10.0

    def evaluate():
        with run_clock.paused():
            now[0] = 70.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate()
    run_clock.close()
    assert read_clock(tmp_path)[-1].wall_seconds == read_clock(tmp_path)[-1].cpu_seconds == 10.0


def test_a_clock_whose_last_line_was_cut_is_read(tmp_path):
    (tmp_path / "clock.csv").write_text(
        "timesteps,wall_seconds,cpu_seconds,train_success\n0,0.0,0.0,\n100,2.5,2.25,0.5\n200,5.0"
    )
    assert [(row.timesteps, row.cpu_seconds) for row in read_clock(tmp_path)] == [(0, 0.0), (100, 2.25)]
