"""``mtrl-imgrad compare``: every run once, whatever breaks in between, in a folder that is enough to go on."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr

import numpy as np
import pytest

from mtrl_imgrad.cli import main
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.comparisons.plan import load_comparison
from mtrl_imgrad.experiments.comparisons.state import locked, read_state
from mtrl_imgrad.experiments.comparisons.worker import execute
from mtrl_imgrad.experiments.rl.config import load_config

SMALL = (
    "compare --env toy-reach --total-timesteps 800 --learning-starts 200 --train-freq 2 --net-arch 8 --batch-size 16 "
    "--eval-freq 400 --eval-episodes 2 --final-episodes 3 --checkpoint-every 200"
).split()
METHODS = ["--methods", "ls", "pcgrad+fairgrad:alpha=2.0"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A comparison in one go, and one of its first method that SIGTERM stopped, that was moved and went on."""
    folder = tmp_path_factory.mktemp("comparisons")
    broken, whole, moved = (folder / name for name in ("broken", "whole", "moved"))
    status, said = interrupted([*SMALL, "--methods", "ls", "--seeds", "0", "--out", str(broken)], broken)
    assert status == 128 + signal.SIGTERM, said
    assert f"to go on: mtrl-imgrad compare --out {broken}" in said
    left = load_comparison(broken)
    assert [read_state(left.kind, run).status for run in left.runs()] == ["stopped"], "not failed"
    broken.rename(moved)
    assert main(["compare", "--out", str(moved), "--no-progress-bar"]) == 0
    assert main([*SMALL, *METHODS, "--seeds", "0", "--out", str(whole), "--jobs", "0"]) == 0
    return moved, whole


STOPPED = "learning was interrupted by SIGTERM"


def interrupted(command, folder):
    """What a command returns and says, if SIGTERM comes once a run in ``folder`` has a checkpoint."""
    over = threading.Event()

    def interrupt():
        while not list(folder.glob("runs/*/*/checkpoints/*/manifest.json")):
            if over.wait(0.02):
                return
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one that comes too late is not the end of all tests
    sender = threading.Thread(target=interrupt)
    sender.start()
    try:
        with redirect_stderr(io.StringIO()) as said:
            return main(command), said.getvalue()
    finally:
        over.set()
        sender.join()
        signal.signal(signal.SIGTERM, before)


def results(folder):
    return {
        path.parent.relative_to(folder): json.loads(path.read_text()) for path in folder.glob("runs/**/result.json")
    }


def test_a_broken_comparison_ends_as_an_unbroken_one(folders):
    moved, whole = map(results, folders)
    assert {str(name) for name in moved} == {"runs/ls/seed_0"}
    assert {str(name) for name in whole} == {"runs/ls/seed_0", "runs/pcgrad+fairgrad-alpha=2.0/seed_0"}
    log = (folders[0] / "runs/ls/seed_0/output.log").read_text()
    assert "resumed from" in log.partition(STOPPED)[2]
    assert "Traceback" not in log
    for name, run in moved.items():
        for key in ("method", "seed", "config_hash", "timesteps", "final", "best"):
            assert run[key] == whole[name][key], key
        for key in ("timesteps", "episodes", "successes", "returns"):
            assert run["curve"][key] == whole[name]["curve"][key], key


@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_comparison_takes_its_runs_along_and_ends_as_an_unbroken_one(folders, tmp_path):
    command = [sys.executable, "-m", "mtrl_imgrad.cli", *SMALL, "--methods", "ls", "--seeds", "0"]
    run = tmp_path / "runs/ls/seed_0"
    process = subprocess.Popen([*command, "--out", str(tmp_path)], stdout=subprocess.DEVNULL)
    while not list(run.glob("checkpoints/*/manifest.json")) and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    with locked(run, patience=60):  # the run has ended, too, though nobody told it to
        assert STOPPED in (run / "output.log").read_text()
    assert main(["compare", "--out", str(tmp_path), "--no-progress-bar"]) == 0
    (found,), expected = results(tmp_path).values(), results(folders[1])[run.relative_to(tmp_path)]
    assert {key: found[key] for key in ("final", "best")} == {key: expected[key] for key in ("final", "best")}
    assert found["curve"]["returns"] == expected["curve"]["returns"]


def test_a_result_has_counts_seconds_and_a_curve(folders):
    run = results(folders[1])[next(iter(results(folders[1])))]
    assert run["final"]["episodes"] == 3
    assert len(run["final"]["successes"]) == len(run["tasks"]) == 4
    assert run["curve"]["timesteps"] == [0, 400, 800, 800]
    assert run["curve"]["cpu_seconds"] == sorted(run["curve"]["cpu_seconds"])
    assert run["cpu_seconds"] > 0
    assert run["versions"]["torch"]
    assert run["logs"]["timesteps"]
    assert len(run["logs"]["grad/critic/imbalance"]) == len(run["logs"]["timesteps"])
    task = run["tasks"][0]
    assert min(run["logs"][f"train/critic_loss/{task}"]) > 0
    assert {*run["logs"]["grad/actor/pareto_failure"]} <= {0, 1}
    matrices = np.array([one for one in run["cosines"]["critic"] if one is not None])
    assert matrices.shape[1:] == (4, 4)
    np.testing.assert_array_equal(matrices, matrices.swapaxes(1, 2))
    assert np.abs(matrices).max() == 1


def test_each_side_has_its_combiner(folders):
    agent = load_config(folders[1] / "runs/pcgrad+fairgrad-alpha=2.0/seed_0/config.yaml").agent
    assert (agent.actor_combiner, agent.critic_combiner) == ("pcgrad", "fairgrad")
    assert (agent.actor_combiner_kwargs, agent.critic_combiner_kwargs) == ({}, {"alpha": 2.0})


def test_what_is_finished_is_not_run_again(folders, tmp_path, capsys):
    folder = shutil.copytree(folders[1], tmp_path / "copy")
    times = {path: path.stat().st_mtime_ns for path in folder.glob("runs/**/*") if path.is_file()}
    assert main(["compare", "--out", str(folder)]) == 0
    assert "2 runs in" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_other_settings_are_refused_with_the_difference(folders, capsys):
    assert main([*SMALL, *METHODS, "--seeds", "0", "--gamma", "0.9", "--out", str(folders[1])]) == 2
    assert "agent.gamma: 0.99 there, 0.9 given" in " ".join(capsys.readouterr().err.split())
    assert main(["compare", "--out", str(folders[1]), "--tau", "0.1"]) == 2


def test_methods_and_seeds_are_added(folders, tmp_path, monkeypatch):
    folder = shutil.copytree(folders[1], tmp_path / "copy")
    ran = []
    monkeypatch.setattr(
        "mtrl_imgrad.experiments.comparisons.local.execute", lambda folder, name, console: ran.append(name)
    )
    assert main(["compare", "--out", str(folder), "--methods", "ls", "mgda", "--seeds", "0", "1", "--jobs", "0"]) == 0
    assert ran == ["runs/mgda/seed_0", "runs/ls/seed_1", "runs/mgda/seed_1"]
    assert load_comparison(folder).methods == {"ls": (0, 1), "pcgrad+fairgrad:alpha=2.0": (0,), "mgda": (0, 1)}


def test_a_failed_run_is_named_and_does_not_stop_the_others(tmp_path, capsys):
    out = tmp_path / "out"
    damaged = out / "runs/ls/seed_0"
    damaged.mkdir(parents=True)
    (damaged / "config.yaml").write_text("agent: {gama: 1}\n")
    options = ["--seeds", "0", "--total-timesteps", "100", "--out", str(out), "--jobs", "0"]
    assert main([*SMALL, "--methods", "ls", "mgda", *options]) == 1
    captured = capsys.readouterr()
    assert "1 of 2 runs failed (ls seed 0" in " ".join(captured.err.split())
    assert (out / "runs/mgda/seed_0/result.json").exists()
    comparison = load_comparison(out)
    state = read_state(comparison.kind, comparison.run_named("runs/ls/seed_0"))
    assert state.status == "failed"
    assert "gama" in state.error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--methods", "imgard", "--seeds", "0"], "Did you mean 'imgrad'"),
        (["--methods", "imgrad:d=1", "--seeds", "0"], "'d'"),
        (["--methods", "ls+ls+ls", "--seeds", "0"], "ACTOR+CRITIC"),
        (["--methods", "ls", "--seeds", "0", "0"], "seeds must be different ones"),
        (["--methods", "ls"], "--methods and --seeds are needed"),
        (["--methods", "imgrad:c=1", "imgrad:c=1.0", "--seeds", "0"], "'imgrad:c=1.0' is 'imgrad:c=1'"),
    ],
)
def test_mistakes_are_said_before_anything_runs(arguments, says, tmp_path, capsys):
    assert main([*SMALL, *arguments, "--out", str(tmp_path / "out")]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_run_is_run_by_one_process_only(folders, tmp_path):
    folder = shutil.copytree(folders[1], tmp_path / "copy")
    comparison = load_comparison(folder)
    run = comparison.run_named("runs/ls/seed_0")
    (run.folder / "result.json").unlink()
    with locked(run.folder):
        assert read_state(comparison.kind, run).status == "running"
        with pytest.raises(ArgumentError, match="another process"):
            execute(folder, run.name)
    assert read_state(comparison.kind, run).status == "stopped"
