"""The command line, from training to evaluation of the folder it leaves, on the toy set."""

import csv
import json
import shutil

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.cli import COMMANDS, main
from mtrl_imgrad.combiners import list_combiners
from mtrl_imgrad.envs import list_tasks
from mtrl_imgrad.evaluation import EvaluationHistory, EvaluationProtocol, SuccessReport
from mtrl_imgrad.experiments.presets import list_presets
from mtrl_imgrad.experiments.rl.config import load_config

SMALL = (
    "--env toy-reach --total-timesteps 1200 --learning-starts 200 --net-arch 16 --batch-size 16 --eval-every 400 "
    "--eval-episodes 2 --final-episodes 3 --combiner imgrad --no-progress-bar"
).split()
TASKS = list_tasks("toy-reach")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", *SMALL, "--run-dir", str(folder)]) == 0
    return folder


def _png_size(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_a_run_leaves_everything_behind(run):
    config = load_config(run / "config.yaml")
    assert config.total_timesteps == 1200
    assert config.env.env == ("toy-reach",)
    rows = list(csv.DictReader((run / "progress.csv").read_text().splitlines()))
    assert int(rows[-1]["time/total_timesteps"]) <= 1200
    assert f"rollout/success_rate/{TASKS[0]}" in rows[0]
    events = EventAccumulator(str(run)).Reload()
    tags = events.Tags()["scalars"]
    for tag in ("eval/success_rate", f"eval/success_rate/{TASKS[1]}", "train/critic_loss", "grad/cos_min"):
        assert tag in tags
    assert load_config(run / "config.yaml").run_dir is None
    for tag in ("grad/critic/imbalance", f"combiner/actor/weight/{TASKS[0]}", "combiner/critic/residual"):
        assert tag in tags
    history = EvaluationHistory.load(run / "evaluations.npz")
    assert history.timesteps.tolist() == [0, 400, 800, 1200, 1200]
    assert history.num_episodes.tolist() == [2, 2, 2, 2, 3]
    after = SuccessReport.load(run / "evaluation_after")
    assert after.num_episodes == 3
    assert np.array_equal(after.returns, history.reports[-1].returns)
    assert after.protocol == EvaluationProtocol(True, "toy", 10_000, 1200)
    for value, tag in ((after.mean_success, "eval/success_rate"), (after.returns.mean(), "eval/mean_reward")):
        assert float(rows[-1][tag]) == pytest.approx(value)
        assert events.Scalars(tag)[-1].value == pytest.approx(value)
    shown = [float(row["eval/success_rate"]) for row in rows if row["eval/success_rate"]]
    np.testing.assert_allclose(shown, history.mean_success)
    np.testing.assert_allclose([event.value for event in events.Scalars("eval/success_rate")], shown)
    summary = json.loads((run / "evaluation_after.json").read_text())
    assert (summary["mean_success"], summary["timesteps"]) == (after.mean_success, 1200)
    assert set(json.loads((run / "evaluation_before.json").read_text())["tasks"]) == set(TASKS)
    for name in ("success_curve.png", "success_per_task.png"):
        assert min(_png_size(run / name)) > 300
    assert MTSAC.load(run / "model.zip").num_timesteps == 1200
    assert MTSAC.load(run / "best_model.zip").task_names == TASKS


def test_a_runs_config_repeats_it(run, tmp_path, capsys):
    again = tmp_path / "again"
    arguments = ["--config", str(run / "config.yaml"), "--run-dir", str(again), "--no-progress-bar"]
    assert main(["train", *arguments]) == 0
    out = capsys.readouterr().out
    assert "success before (2 episodes a task) and after (3) in %" in out
    assert str(again) in out.replace("\n", "")
    first, second = (MTSAC.load(folder / "model.zip") for folder in (run, again))
    for name, value in first.policy.state_dict().items():
        assert np.array_equal(value.numpy(), second.policy.state_dict()[name].numpy()), name
    a, b = (SuccessReport.load(folder / "evaluation_after") for folder in (run, again))
    assert np.array_equal(a.returns, b.returns)


def test_the_other_agent_trains_and_is_evaluated(tmp_path, capsys):
    folder = tmp_path / "ppo"
    arguments = (
        "--agent mtppo --env toy-reach --total-timesteps 800 --n-steps 100 --net-arch 16 --eval-every 400 "
        "--eval-episodes 1 --final-episodes 1 --combiner pcgrad --value-normalization popart --no-progress-bar"
    ).split()
    assert main(["train", *arguments, "--run-dir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "agent: MTPPO" in out
    assert "20 epochs of updates" in out
    assert load_config(folder / "config.yaml").agent.n_steps == 100
    assert MTPPO.load(folder / "model.zip").num_timesteps == 800
    rows = list(csv.DictReader((folder / "progress.csv").read_text().splitlines()))
    assert {"train/value_loss", f"train/value_loss/{TASKS[0]}", f"grad/actor/norm/{TASKS[0]}"} <= set(rows[0])
    assert main(["evaluate", str(folder), "--episodes", "2"]) == 0
    assert SuccessReport.load(folder / "evaluation_model_toy_seed10000_2").num_episodes == 2


def test_options_of_the_other_agent_are_refused(capsys):
    for arguments in (["--agent", "mtppo", "--tau", "0.1"], ["--preset", "mt10_ppo", "--agent", "mtsac"]):
        with pytest.raises(SystemExit) as stop:
            main(["train", *arguments])
        assert stop.value.code != 0
        assert arguments[-2] in capsys.readouterr().err.replace("\n", " ")
    assert main(["train", "--agent", "mtpo"]) == 1


def test_a_run_folder_is_never_overwritten(run, capsys):
    before = (run / "config.yaml").read_bytes()
    assert main(["train", *SMALL, "--run-dir", str(run)]) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert (run / "config.yaml").read_bytes() == before


def test_evaluate_prints_a_table_and_keeps_the_report(run, capsys):
    assert main(["evaluate", str(run), "--episodes", "4", "--model", "best_model"]) == 0
    out = capsys.readouterr().out
    assert all(task in out for task in TASKS)
    assert SuccessReport.load(run / "evaluation_best_model_toy_seed20000_4").num_episodes == 4
    assert main(["evaluate", str(run), "--episodes", "4", "--seed", "3", "--stochastic"]) == 0
    assert SuccessReport.load(run / "evaluation_model_toy_seed3_4_stochastic").num_episodes == 4


def test_evaluating_no_run_says_what_is_missing(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "config.yaml" in capsys.readouterr().err


def test_a_damaged_model_is_named(run, tmp_path, capsys):
    shutil.copy(run / "config.yaml", tmp_path)
    (tmp_path / "model.zip").write_bytes((run / "model.zip").read_bytes()[:1000])
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "model.zip cannot be read" in capsys.readouterr().err.replace("\n", "")


def test_max_minutes_stops_early_and_says_so(tmp_path, capsys):
    arguments = [*SMALL, "--max-minutes", "0.0001", "--run-dir", str(tmp_path / "short")]
    assert main(["train", *arguments]) == 0
    assert "stopped early" in capsys.readouterr().out
    assert MTSAC.load(tmp_path / "short" / "model.zip").num_timesteps < 1200


def test_an_error_of_ours_is_one_line_and_exit_1(tmp_path, capsys):
    assert main(["train", *SMALL, "--run-dir", str(tmp_path / "[/x]"), "--combiner", "imgard"]) == 1
    assert not list(tmp_path.iterdir()), "a mistake leaves no folder behind"
    captured = capsys.readouterr()
    assert "Did you mean 'imgrad'" in captured.err.replace("\n", " ")
    assert "Traceback" not in captured.err
    assert main(["train", "--preset", "mt01"]) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"mtrl-imgrad {command}" in capsys.readouterr().out


def test_lists(capsys):
    assert main(["combiners"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in list_combiners())
    assert main(["combiners", "imgrad"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("arXiv:2503.08006", "official_k2_quirk", "@inproceedings{zhou2025injecting"))
    assert main(["combiners", "imgard"]) == 1
    assert "imgrad" in capsys.readouterr().err
    assert main(["presets"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in list_presets("rl"))


def test_doctor_finds_what_is_here(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "envpool" in out
    for word in ("torch", "metaworld", "simulator metaworld", "device", "rendering", "combiners", "solved"):
        assert word in out
