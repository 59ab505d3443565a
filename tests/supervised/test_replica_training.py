"""The supervised trainer on several ranks against one process."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.replicas import RankBatches, Replica
from mtrl_imgrad.supervised.tasks import TaskSpec
from tests.support.replicas import training as runs
from tests.support.replicas.pool import running_pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with running_pool(tmp_path_factory.mktemp("ranks"), "mtrl_imgrad.supervised.trainer") as found:
        yield found


def numbers(record):
    plain = dataclasses.asdict(record)
    del plain["seconds"]
    return plain


def close(ours, theirs):
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            close(ours[name], theirs[name])
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for pair in zip(ours, theirs, strict=True):
            close(*pair)
    else:
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize(
    ("combiner", "gradients"), [("imgrad", "losses"), ("famo", "losses"), ("mgda", "features"), ("rlw", "features")]
)
def test_ranks_train_like_one_process(pool, combiner, gradients):
    """Parameters, losses, metrics and diagnostics, with a last batch of one image for two ranks."""
    ranks = pool.run(runs.run, 2, combiner, gradients)
    parameters, records = runs.run(None, combiner, gradients)
    assert torch.equal(ranks[0][0], ranks[1][0])
    torch.testing.assert_close(ranks[0][0], parameters, rtol=1e-4, atol=1e-4)
    for ours, other, theirs in zip(ranks[0][1], ranks[1][1], records, strict=True):
        assert repr(numbers(ours)) == repr(numbers(other))
        close(numbers(ours), numbers(theirs))


def test_a_run_on_ranks_resumes_exactly(pool):
    whole, resumed = pool.run(runs.run, 2, "pcgrad", "losses"), pool.run(runs.run, 2, "pcgrad", "losses", True)
    assert torch.equal(whole[0][0], resumed[0][0])
    assert repr([numbers(one) for one in whole[0][1]]) == repr([numbers(one) for one in resumed[0][1]])


def test_every_image_is_in_one_part():
    order = torch.randperm(11).tolist()
    for size in (2, 3):
        parts = [list(RankBatches(order, 4, False, True, rank, size)) for rank in range(size)]
        for number, batch in enumerate((order[:4], order[4:8], order[8:])):
            assert sorted(image for part in parts for image in part[number]) == sorted(batch)
        whole = [list(RankBatches(order, 4, False, False, rank, size)) for rank in range(size)]
        assert sorted(image for part in whole for batch in part for image in batch) == sorted(order)


def test_batches_that_cannot_be_shared_are_refused():
    replica = Replica(None)
    replica.check_batches(runs.TASKS, 1)

    class Two(Replica):
        size = 2

    with pytest.raises(ArgumentError, match="batch_size must be at least 2 with 2 ranks"):
        Two(None).check_batches(runs.TASKS, 1)
    with pytest.raises(ArgumentError, match="batch_size must be at least 4 with 2 ranks"):
        Two(None).check_batches([TaskSpec("a", "attribute", 1)], 3)


def test_an_error_of_the_first_rank_does_not_leave_the_others_waiting(monkeypatch):
    met = []
    monkeypatch.setattr(Replica, "_meet", lambda self: met.append(self))
    replica = Replica(None)
    with pytest.raises(ArgumentError, match="no data"), replica.first_alone():
        raise ArgumentError("no data")
    assert met == [replica]


@pytest.mark.slow
def test_torchrun_leaves_one_run_folder(tmp_path):
    """The command on two processes: one writes, a finished run is not run again, other commands are refused."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def torchrun(*arguments):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
        found = subprocess.run(
            [*command, "mtrl_imgrad.cli", *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        return found.returncode, found.stdout + found.stderr

    options = "--data demo --epochs 1 --simulate-counts 8 4 --width 0.0625 --run-dir run"
    code, said = torchrun("supervised", *options.split(), "--no-progress-bar")
    assert code == 0, said
    assert len(re.findall("^result:", said, re.MULTILINE)) == 1
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "epochs.csv", "checkpoint", "result.json", "panel.png", "model"} <= names
    assert len([name for name in names if name.startswith("events.")]) == 1
    before = (Path(tmp_path) / "run" / "epochs.csv").read_text()
    code, said = torchrun("supervised", "--resume", "run")
    assert code == 0, said
    assert (Path(tmp_path) / "run" / "epochs.csv").read_text() == before
    code, said = torchrun("train", "--preset", "mt10_demo")
    assert code != 0
    assert "mtrl-imgrad train works in one process, torchrun started 2" in said
