"""Runs as tasks of a cluster: two nodes of Ray on this machine, and what a task does without any."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from mtrl_imgrad.cli import main
from mtrl_imgrad.experiments.comparisons.processes import BrokenOffError, make_run

SMALL = (
    "--env toy-reach --total-timesteps 1600 --learning-starts 200 --net-arch 8 --batch-size 16 --eval-freq 800 "
    "--eval-episodes 2 --final-episodes 3 --checkpoint-every 400 --methods ls mgda --seeds 0"
).split()


@pytest.fixture(scope="module")
def two_nodes():
    """The address of a cluster of two nodes with a core each."""
    utils = pytest.importorskip("ray.cluster_utils")
    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = utils.Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**{name: value for name, value in node.items() if name != "include_dashboard"})
        yield cluster.address
    finally:
        cluster.shutdown()


def start(address, *arguments):
    command = [sys.executable, "-m", "mtrl_imgrad.cli", "compare", *arguments, "--launcher", "ray", "--jobs", "2"]
    env = {**os.environ, "RAY_ADDRESS": address}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(found, process):
    while not found() and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


@pytest.mark.slow
def test_runs_on_two_nodes_killed_stopped_and_resumed_end_as_those_of_one_process(two_nodes, tmp_path):
    out, here = tmp_path / "out", tmp_path / "here"
    runs = {name: out / "runs" / name / "seed_0" for name in ("ls", "mgda")}
    logs = [run / "output.log" for run in runs.values()]
    process = start(two_nodes, *SMALL, "--out", str(out))
    wait_until(lambda: list(runs["ls"].glob("checkpoints/*/manifest.json")), process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert f"to go on: mtrl-imgrad compare --out {out}" in said
    assert "learning was interrupted by SIGTERM" in logs[0].read_text()
    process = start(two_nodes, "--out", str(out))
    wait_until(lambda: "resumed from" in logs[0].read_text(), process)
    os.kill(int((runs["ls"] / ".lock").read_text().split()[1]), signal.SIGKILL)
    said = process.communicate()
    assert process.returncode == 0, said
    nodes = [re.findall(r"^on .*, node (\w+)$", log.read_text(), re.MULTILINE) for log in logs]
    assert len({*nodes[0], *nodes[1]}) == 2, "a core a run, a core a node"
    assert len(nodes[0]) == 3, "begun, gone on with, tried again"
    assert main(["compare", *SMALL, "--out", str(here), "--jobs", "0"]) == 0
    for name, run in runs.items():
        found, expected = (
            json.loads((folder / "runs" / name / "seed_0" / "result.json").read_text()) for folder in (out, here)
        )
        for key in ("method", "config_hash", "timesteps", "final", "best"):
            assert found[key] == expected[key], (run, key)
        for key in ("timesteps", "successes", "returns"):
            assert found["curve"][key] == expected["curve"][key], (run, key)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes a shell script the interpreter of the runs."""

    def write(text):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return write


def arguments(folder):
    (folder / "runs").mkdir()
    return str(folder), "runs/ls", str(folder / "runs/output.log"), 2, str(folder), "n7", True


def test_a_task_is_one_run_with_its_log(tmp_path, program, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    program('echo "$@" $OMP_NUM_THREADS [$CUDA_VISIBLE_DEVICES]; exit 3')
    assert make_run(*arguments(tmp_path)) == 3
    head, line = (tmp_path / "runs/output.log").read_text().splitlines()
    assert head.endswith(", node n7")
    assert line == f"-m mtrl_imgrad.experiments.comparisons.worker --with-parent {tmp_path} runs/ls 2 []"


@pytest.mark.parametrize("how", ["exit 75", "kill -KILL $$"])
def test_a_run_that_was_broken_off_is_to_be_tried_again(tmp_path, program, how):
    program(how)
    with pytest.raises(BrokenOffError, match="broken off with status"):
        make_run(*arguments(tmp_path))


@pytest.mark.usefixtures("interruptible")
def test_a_cancelled_task_lets_its_run_save(tmp_path, program):
    program(f"trap 'touch {tmp_path}/saved; exit 75' TERM; touch {tmp_path}/begun; while true; do sleep 0.05; done")

    def cancel():
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=cancel).start()
    assert make_run(*arguments(tmp_path)) == 75
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--launcher", "ray", "--jobs", "0"], "jobs must be 1 or more with launcher ray"),
        (["--num-gpus", "1"], "num_cpus, num_gpus and retries are for launcher ray"),
        (["--launcher", "ray", "--num-cpus", "-1"], "num_cpus must be a finite number >= 0"),
        (["--launcher", "ray"], "launcher ray needs ray, which is not installed: pip install 'mtrl-imgrad[cluster]'"),
    ],
)
def test_mistakes_are_said(options, says, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "mtrl_imgrad.experiments.comparisons.cluster", raising=False)
    assert main(["compare", *SMALL, *options, "--out", str(tmp_path / "out")]) in (1, 2)
    assert says in " ".join(capsys.readouterr().err.split())
