"""``mtrl-imgrad train --resume``: a run that a signal broke off ends as the run that none did."""

import csv
import io
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr

import numpy as np
import pytest
import torch

from mtrl_imgrad.agents import MTSAC, latest_checkpoint
from mtrl_imgrad.cli import main
from mtrl_imgrad.evaluation import EvaluationHistory, SuccessReport
from mtrl_imgrad.experiments.rl import train as train_module

pytestmark = pytest.mark.faults

SMALL = (
    "--env toy-reach --total-timesteps 500 --learning-starts 300 --net-arch 16 --batch-size 16 --eval-freq 200 "
    "--eval-episodes 2 --final-episodes 3 --combiner famo --actor-combiner gradvac --checkpoint-every 200 "
    "--no-progress-bar"
).split()
UNTRAINED = "--total-timesteps 200".split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a run in one go, and of one that was stopped by SIGTERM between two checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    on_step = train_module.MTCheckpointCallback._on_step

    def stopped(callback):
        if callback.num_timesteps == 352:
            signal.raise_signal(signal.SIGTERM)
        return on_step(callback)

    with pytest.MonkeyPatch.context() as patch, redirect_stderr(io.StringIO()) as err:
        patch.setattr(train_module.MTCheckpointCallback, "_on_step", stopped)
        assert main(["train", *SMALL, "--run-dir", str(folder / "broken")]) == 128 + signal.SIGTERM
    assert "learning was interrupted by SIGTERM" in err.getvalue()
    assert main(["train", *SMALL, "--run-dir", str(folder / "whole")]) == 0
    return folder


@pytest.mark.slow
def test_a_process_that_sigterm_ends_says_so_in_a_line(tmp_path):
    options = [*SMALL, "--total-timesteps", "100000", "--run-dir", str(tmp_path / "run")]
    command = [sys.executable, "-m", "mtrl_imgrad.cli", "train", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("run/checkpoints/*/manifest.json")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "learning was interrupted by SIGTERM" in err
    assert "Traceback" not in err


def test_a_resumed_run_ends_as_one_without_a_break(runs, capsys):
    broken = runs / "broken"
    stopped = int(latest_checkpoint(broken / "checkpoints").name.removeprefix("step_"))
    assert 200 < stopped < 400
    assert not (broken / "evaluation_after.npz").exists()
    assert main(["train", "--resume", str(broken), "--no-progress-bar"]) == 0
    out = capsys.readouterr().out.replace("\n", "")
    assert f"step_{stopped:012d}" in out
    agents = [
        MTSAC.load_checkpoint(latest_checkpoint(runs / name / "checkpoints"), device="cpu")
        for name in ("broken", "whole")
    ]
    assert [agent.num_timesteps for agent in agents] == [500, 500]
    for ours, theirs in zip(*(agent.policy.state_dict().values() for agent in agents), strict=True):
        assert torch.equal(ours, theirs)
    a, b = (EvaluationHistory.load(runs / name / "evaluations.npz") for name in ("broken", "whole"))
    assert a.timesteps.tolist() == b.timesteps.tolist() == [0, 200, 400, 500]
    for ours, theirs in zip(a.reports, b.reports, strict=True):
        assert np.array_equal(ours.returns, theirs.returns), "evaluations go on where they were, too"
    after, expected = (SuccessReport.load(runs / name / "evaluation_after") for name in ("broken", "whole"))
    assert after.num_episodes == 3
    assert np.array_equal(after.returns, expected.returns)
    assert len(list(broken.glob("progress*.csv"))) == 1
    rows, others = (_records(runs / name / "progress.csv") for name in ("broken", "whole"))
    assert rows == others, "one table, as without a break"
    headers = [(runs / name / "progress.csv").read_text().partition("\n")[0] for name in ("broken", "whole")]
    assert headers[0] == headers[1], "in one order"
    assert {"train/critic_loss", "eval/success_rate", "grad/critic/cos_min"} <= set().union(*rows)


def _records(table):
    """The rows of a table of logs, without times."""
    rows = list(csv.DictReader(table.read_text().splitlines()))
    times = ("time/fps", "time/time_elapsed")
    return [{key: text for key, text in row.items() if text and key not in times} for row in rows]


def test_a_run_stopped_between_its_last_evaluation_and_its_figures_is_finished(runs, tmp_path, capsys):
    run = shutil.copytree(runs / "whole", tmp_path / "run")
    curve = (run / "success_curve.png").read_bytes()
    (run / "success_curve.png").unlink()
    (run / "success_per_task.png").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert "success before (2 episodes a task) and after (3) in %" in capsys.readouterr().out
    assert (run / "success_curve.png").read_bytes() == curve
    assert (run / "success_per_task.png").exists()
    assert main(["train", "--resume", str(run)]) == 2


def test_ctrl_c_in_the_first_evaluation_leaves_a_run_that_resumes(runs, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        patch.setattr(train_module, "evaluate_success", lambda *args, **options: signal.raise_signal(signal.SIGINT))
        assert main(["train", *SMALL, "--run-dir", str(run)]) == 130
    assert f"mtrl-imgrad train --resume {run}" in capsys.readouterr().out
    assert (run / "config.yaml").exists()
    assert not list(run.glob("*.zip"))
    assert main(["train", "--resume", str(run), "--no-progress-bar"]) == 0
    assert "the run starts anew" in capsys.readouterr().out.replace("\n", " ")
    found, expected = (SuccessReport.load(folder / "evaluation_after") for folder in (run, runs / "whole"))
    assert np.array_equal(found.returns, expected.returns)
    assert _records(run / "progress.csv") == _records(runs / "whole" / "progress.csv")


def test_models_without_a_checkpoint_are_not_overwritten(tmp_path, capsys):
    options = ["--checkpoint-every", "0", "--run-dir", str(tmp_path / "run")]
    assert main(["train", *SMALL, *UNTRAINED, *options]) == 0
    (tmp_path / "run" / "evaluation_after.npz").unlink()
    model = (tmp_path / "run" / "model.zip").read_bytes()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err.replace("\n", " ")
    assert (tmp_path / "run" / "model.zip").read_bytes() == model


def test_what_cannot_be_resumed_is_said(runs, tmp_path, capsys):
    assert main(["train", "--resume", str(runs / "whole")]) == 2
    assert "is at its end" in capsys.readouterr().err.replace("\n", "")
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "config.yaml" in capsys.readouterr().err.replace("\n", "")
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--resume", str(runs / "whole"), "--seed", "3"])
    assert "Unrecognized options: --seed" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(runs, tmp_path, capsys):
    assert main(["train", *SMALL, *UNTRAINED, "--run-dir", str(tmp_path / "run")]) == 0
    (tmp_path / "run" / "evaluation_after.npz").unlink()
    member = next((tmp_path / "run" / "checkpoints").glob("step_000000000200/tensors-*"))
    member.write_bytes(member.read_bytes()[:-1])
    assert main(["train", "--resume", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err.replace("\n", "")
    assert "step_000000000200: member 'tensors' is damaged" in error
