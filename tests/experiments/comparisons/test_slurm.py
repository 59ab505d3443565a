"""The job array, under a scheduler and an interpreter that are shell scripts."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mtrl_imgrad.cli import main
from mtrl_imgrad.experiments.comparisons.slurm import array_script

COMPARE = "compare --env toy-reach --methods ls imgrad:c=0.4 --seeds 0 1 --launcher slurm".split()


def script(path, text):
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder of programs that come first on the PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script(programs / "sbatch", f'cp "$1" {tmp_path}/submitted.sh; echo Submitted batch job 7')
    script(programs / "scontrol", f'echo "$@" > {tmp_path}/requeued')
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return programs


def task(path, number):
    env = {**os.environ, "SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "7"}
    return subprocess.Popen(["bash", str(path)], env=env)


def test_every_run_is_a_task_of_the_array(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", str(script(cluster / "python", f'echo "$@" >> {tmp_path}/called')))
    assert main([*COMPARE, "--jobs", "3", "--out", str(tmp_path / "a b")]) == 0
    assert "Submitted batch job 7: 4 runs" in capsys.readouterr().out
    submitted = tmp_path / "submitted.sh"
    assert "#SBATCH --array=0-3%3" in submitted.read_text()
    for number in range(4):
        assert task(submitted, number).wait() == 0
    names = ["runs/ls/seed_0", "runs/imgrad-c=0.4/seed_0", "runs/ls/seed_1", "runs/imgrad-c=0.4/seed_1"]
    worker = "-m mtrl_imgrad.experiments.comparisons.worker"
    assert (tmp_path / "called").read_text().splitlines() == [f"{worker} {tmp_path}/a b {name}" for name in names]
    assert not (tmp_path / "requeued").exists()


def test_a_task_whose_time_is_over_saves_and_is_queued_again(cluster, tmp_path, monkeypatch):
    text = f"trap 'sleep 0.3; touch {tmp_path}/saved; exit 75' TERM; touch {tmp_path}/begun\n"
    text += "while true; do sleep 0.05; done"
    monkeypatch.setattr(sys, "executable", str(script(cluster / "python", text)))
    path = tmp_path / "slurm.sh"
    path.write_text(array_script(tmp_path / "out", ["runs/ls/seed_0", "runs/ls/seed_1"], 1))
    process = task(path, 1)
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "requeued").read_text() == "requeue 7_1\n"


def test_a_task_that_failed_is_not_queued_again(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(script(cluster / "python", "exit 1")))
    path = tmp_path / "slurm.sh"
    path.write_text(array_script(tmp_path / "out", ["runs/ls/seed_0"], 1))
    assert task(path, 0).wait() == 1
    assert not (tmp_path / "requeued").exists()


def test_without_a_scheduler_the_script_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*COMPARE, "--out", str(tmp_path / "out")]) == 1
    assert "slurm.sh" in "".join(capsys.readouterr().err.split())
