"""The command line, from training to evaluation of the folder it leaves, on the toy set."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtrl_imgrad import __version__
from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.cli import COMMANDS, main, read
from mtrl_imgrad.combiners import list_combiners
from mtrl_imgrad.envs import list_tasks
from mtrl_imgrad.errors import CheckpointError
from mtrl_imgrad.evaluation import EvaluationHistory, EvaluationProtocol, SuccessReport
from mtrl_imgrad.experiments.comparisons.plan import plan_comparison
from mtrl_imgrad.experiments.presets import list_presets
from mtrl_imgrad.experiments.rl.config import load_config

SMALL = (
    "--env toy-reach --total-timesteps 800 --learning-starts 600 --net-arch 16 --batch-size 16 --eval-freq 400 "
    "--eval-episodes 2 --final-episodes 3 --combiner imgrad --no-progress-bar"
).split()
TASKS = list_tasks("toy-reach")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", *SMALL, "--run-dir", str(folder)]) == 0
    return folder


def status_of(arguments):
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code


def _png_size(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_a_run_leaves_everything_behind(run):
    config = load_config(run / "config.yaml")
    assert config.total_timesteps == 800
    assert config.env.env == ("toy-reach",)
    rows = list(csv.DictReader((run / "progress.csv").read_text().splitlines()))
    assert int(rows[-1]["time/total_timesteps"]) <= 800
    assert f"rollout/success_rate/{TASKS[0]}" in rows[0]
    events = EventAccumulator(str(run)).Reload()
    tags = events.Tags()["scalars"]
    for tag in ("eval/success_rate", f"eval/success_rate/{TASKS[1]}", "train/critic_loss"):
        assert tag in tags
    assert "grad/cos_min" in rows[-1]
    assert "grad/cos_min" not in tags, "which repeats grad/critic/cos_min"
    assert load_config(run / "config.yaml").run_dir is None
    for tag in ("grad/critic/imbalance", f"combiner/actor/weight/{TASKS[0]}", "combiner/critic/residual"):
        assert tag in tags
    history = EvaluationHistory.load(run / "evaluations.npz")
    assert history.timesteps.tolist() == [0, 400, 800, 800]
    assert history.num_episodes.tolist() == [2, 2, 2, 3]
    after = SuccessReport.load(run / "evaluation_after")
    assert after.num_episodes == 3
    assert np.array_equal(after.returns, history.reports[-1].returns)
    assert after.protocol == EvaluationProtocol(True, "toy", 10_000, 800)
    for value, tag in ((after.mean_success, "eval/success_rate"), (after.returns.mean(), "eval/mean_reward")):
        assert float(rows[-1][tag]) == pytest.approx(value)
        assert events.Scalars(tag)[-1].value == pytest.approx(value)
    shown = [float(row["eval/success_rate"]) for row in rows if row["eval/success_rate"]]
    np.testing.assert_allclose(shown, history.mean_success)
    np.testing.assert_allclose([event.value for event in events.Scalars("eval/success_rate")], shown)
    summary = json.loads((run / "evaluation_after.json").read_text())
    assert (summary["mean_success"], summary["timesteps"]) == (after.mean_success, 800)
    assert set(json.loads((run / "evaluation_before.json").read_text())["tasks"]) == set(TASKS)
    for name in ("success_curve.png", "success_per_task.png"):
        assert min(_png_size(run / name)) > 300
    assert MTSAC.load(run / "model.zip").num_timesteps == 800
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
        "--agent mtppo --env toy-reach --total-timesteps 600 --n-steps 50 --net-arch 16 --eval-freq 200 "
        "--eval-episodes 1 --final-episodes 1 --combiner pcgrad --value-normalization popart --no-progress-bar"
    ).split()
    assert main(["train", *arguments, "--run-dir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "agent: MTPPO" in out
    assert "30 epochs of updates" in out
    assert load_config(folder / "config.yaml").agent.n_steps == 50
    assert MTPPO.load(folder / "model.zip").num_timesteps == 600
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
    assert main(["train", "--agent", "mtpo"]) == 2


def test_a_run_folder_is_never_overwritten(run, capsys):
    before = (run / "config.yaml").read_bytes()
    assert main(["train", *SMALL, "--run-dir", str(run)]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (run / "config.yaml").read_bytes() == before


def test_printed_commands_can_be_copied_whatever_the_folder_is_called(tmp_path, capsys):
    folder = tmp_path / "a run & more"
    assert main(["train", *SMALL, "--total-timesteps", "0", "--eval-freq", "0", "--run-dir", str(folder)]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    words = [shlex.split(line) for line in lines if line.startswith(("mtrl-imgrad ", "tensorboard "))]
    assert [[word for word in line if "run" in word] for line in words] == [
        [str(folder)],
        [str(folder)],
        [str(folder / "config.yaml")],
    ]
    comparison = plan_comparison(load_config(folder / "config.yaml"), ["ls"], [0], folder)
    assert shlex.split(comparison.command()) == ["mtrl-imgrad", "compare", "--out", str(folder)]


def test_evaluate_prints_a_table_and_keeps_the_report(run, capsys):
    assert main(["evaluate", str(run), "--episodes", "4", "--model", "best_model"]) == 0
    out = capsys.readouterr().out
    assert all(task in out for task in TASKS)
    assert SuccessReport.load(run / "evaluation_best_model_toy_seed20000_4").num_episodes == 4
    assert main(["evaluate", str(run), "--episodes", "4", "--seed", "3", "--stochastic", "--no-progress-bar"]) == 0
    assert SuccessReport.load(run / "evaluation_model_toy_seed3_4_stochastic").num_episodes == 4


def test_a_home_folder_is_meant_after_an_equals_sign_too(run, monkeypatch, capsys):
    """A shell expands ``~`` at the start of a word only."""
    monkeypatch.setenv("HOME", str(run.parent))
    assert main(["evaluate", f"~/{run.name}", "--episodes=1", "--seed=5", "--no-progress-bar"]) == 0
    assert "evaluation_model_toy_seed5_1.npz" in capsys.readouterr().out.replace("\n", "")
    assert main(["train", f"--resume=~/{run.name}"]) == 2
    assert f"{run} is at its end" in capsys.readouterr().err.replace("\n", " ")
    assert status_of(["train", "--config=~/none.yaml"]) == 2
    assert f"{run.parent}/none.yaml" in capsys.readouterr().err.replace("\n", "")


def test_an_evaluation_that_cannot_be_kept_is_printed(run, monkeypatch, capsys):
    def full(*_):
        raise CheckpointError("no space left")

    monkeypatch.setattr(SuccessReport, "save", full)
    assert main(["evaluate", str(run), "--episodes", "1", "--no-progress-bar"]) == 1
    out = capsys.readouterr().out
    assert all(task in out for task in TASKS)


def test_evaluating_no_run_says_what_is_missing(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == 2
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
    assert MTSAC.load(tmp_path / "short" / "model.zip").num_timesteps < 800


def test_a_wrong_argument_is_one_line_and_exit_2(tmp_path, capsys):
    assert main(["train", *SMALL, "--run-dir", str(tmp_path / "[/x]"), "--combiner", "imgard"]) == 2
    assert not list(tmp_path.iterdir()), "a mistake leaves no folder behind"
    captured = capsys.readouterr()
    assert "Did you mean 'imgrad'" in captured.err.replace("\n", " ")
    assert "Traceback" not in captured.err
    assert main(["train", "--preset", "mt01"]) == 2


@pytest.mark.parametrize(
    "option",
    "--total-timesteps=-1 --max-minutes=-1 --torch-threads=0 --eval-freq=-1 --eval-episodes=0 --final-episodes=0 "
    "--eval-envs-per-task=0 --checkpoint-every=-1 --checkpoints-kept=0".split(),
)
@pytest.mark.parametrize("agent", ["mtsac", "mtppo"])
def test_numbers_out_of_range_are_refused_before_anything_runs(option, agent, tmp_path, capsys):
    assert main(["train", "--agent", agent, "--env=toy-reach", f"--run-dir={tmp_path / 'run'}", option]) == 2
    name, value = option.removeprefix("--").split("=")
    says = capsys.readouterr().err
    assert f"{name.replace('-', '_')} must be" in says
    assert f"got {value}" in says
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert f"mtrl-imgrad {command}" in capsys.readouterr().out


def test_lists(capsys):
    assert main(["combiners"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in list_combiners())
    assert main(["combiners", "imgrad"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("arXiv:2503.08006", "official_k2_quirk", "@inproceedings{zhou2025injecting"))
    assert main(["combiners", "imgard"]) == 2
    assert "imgrad" in capsys.readouterr().err
    assert main(["presets"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for kind in ("rl", "supervised") for name in list_presets(kind))


def test_doctor_finds_what_is_here(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "envpool" in out
    for word in ("torch", "metaworld", "simulator metaworld", "device", "rendering", "combiners", "solved"):
        assert word in out


def test_without_arguments_there_is_help_and_it_costs_no_torch():
    code = "import sys; from mtrl_imgrad.cli import main\ntry: main([])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "False"
    assert all(f"• {name} " in done.stdout for name in COMMANDS if " " not in name)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mtrl-imgrad {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "Did you mean 'train'"),
        (["--hlp"], "Unrecognized options: --hlp"),
        (["train", "--total-timestep", "1"], "--total-timesteps"),
        (["train", "--preset", "mt10", "--config", "x"], "not allowed together"),
        (["train", "--resume", "x", "--seed", "1"], "Unrecognized options: --seed"),
        (["train", "--total-timesteps", "1.5e0"], "expected an integer"),
        (["train", "--total-timesteps", "1e17"], "expected an integer"),
        (["supervised"], "--data NAME"),
        (["supervised", "--data", "nyuv3"], "Did you mean 'nyuv2'"),
        (["supervised", "comapre"], "Did you mean 'compare'"),
        (["supervised", "analyse"], "one folder or more"),
        (["supervised", "make-data", "photographs"], "primitives"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_arguments_end_with_2_and_a_hint(arguments, says, capsys):
    assert status_of(arguments) == 2
    assert says in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_integers_may_have_an_exponent():
    options = read(["train", "--total-timesteps", "1e6", "--eval-freq", "5_000", "--horizon", "2E2"])
    assert (options.config.total_timesteps, options.config.evaluation.eval_freq) == (1_000_000, 5000)
    assert options.config.env.horizon == 200


@pytest.mark.parametrize("options", ["--preset mt10_ppo", "--agent mtppo"])
def test_help_shows_the_options_and_defaults_of_what_was_chosen(options, capsys):
    with pytest.raises(SystemExit):
        main(["train", *options.split(), "--help"])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--gae-lambda" in out
    assert "--tau" not in out
    assert f"(default: {options.split()[1]})" in out


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["presets"]], ids=" ".join)
def test_a_reader_that_leaves_ends_a_list_quietly(arguments, monkeypatch, capfd):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as gone:  # to be flushed at the end, as Python does at its own
        monkeypatch.setattr(sys, "stdout", gone)
        assert status_of(arguments) == 1
    assert capfd.readouterr().err == ""


COMPLETE = """
source completion.bash
complete=$(complete -p mtrl-imgrad | sed "s/.*-F //; s/ .*//")
while read -ra COMP_WORDS; do
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
  $complete; echo "${COMPREPLY[@]}"
done
"""
"""Completes the last word of each line."""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash completes")
def test_completion_knows_commands_options_and_presets(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["completion", "bash"])
    assert not stop.value.code
    (tmp_path / "completion.bash").write_text(capsys.readouterr().out)
    expected = {
        "tra": {"train"},
        "train --pres": {"--preset"},
        "train --gae": {"--gae-lambda"},
        "train --learning-st": {"--learning-starts"},
        "train --agent mtp": {"mtppo"},
        "train --preset mt10_c": {"mt10_cagrad_paper", "mt10_cpu"},
        "supervised --resu": {"--resume"},
        "supervised --data cel": {"celeba"},
        "supervised cot": {"cotbal"},
        "supervised compare --see": {"--seed", "--seeds"},
    }
    lines = "".join(f"mtrl-imgrad {words}\n" for words in expected)
    done = subprocess.run(
        ["bash", "-c", COMPLETE], input=lines, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = dict(zip(expected, (set(line.split()) for line in done.stdout.splitlines()), strict=True))
    assert found == expected
