"""Every example runs, for a moment, and prints what it says it prints."""

import re
import runpy
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.replicas.launched import outputs_of_ranks

EXAMPLES = ROOT / "examples"
SHORT = {
    "ddp.py": (["--epochs", "2"], r"1 rank\(s\), left of the loss of each task: +\d+\.\d% "),
    "distributed.py": (["--steps", "2"], r"same bits on all ranks: True"),
    "lightning_module.py": (["--epochs", "2"], r"1 process\(es\), left of the loss of each task: +\d+\.\d% "),
    "own_combiner.py": ([], r"unit_gradients  cosine with each task: \+"),
    "own_encoder.py": (["--steps", "1020"], r"toy-reach/down .*\n(.*\n)*mean"),
    "own_tasks.py": (["--steps", "1016", "--episodes", "1"], r"moon .*\n.*mars .*\n.*earth .*\n.*uranus"),
    "tune_optuna.py": (["--steps", "1020", "--trials", "2"], r"best of 2 trials: success \d\.\d\d with .*'c': 0\.\d"),
    "plain_pytorch.py": (["--steps", "100"], r"linear_scalarization: .*%\n +imgrad: .*%"),
}

NEEDS = {"lightning_module.py": "lightning", "tune_optuna.py": "optuna"}
"""Packages of others that no extra brings, or `dev` alone."""


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs(path, tmp_path, monkeypatch, capsys):
    if path.name in NEEDS:
        pytest.importorskip(NEEDS[path.name])
    arguments, printed = SHORT[path.name]
    monkeypatch.setattr(sys, "argv", [path.name, *arguments])
    monkeypatch.chdir(tmp_path)  # for what it writes
    runpy.run_path(str(path), run_name="__main__")
    assert re.search(printed, capsys.readouterr().out)


def test_two_ranks_of_ddp_print_once(tmp_path):
    first, second = outputs_of_ranks(EXAMPLES / "ddp.py", ["--epochs", "2"], size=2, folder=tmp_path)
    assert re.fullmatch(r"2 rank\(s\), left of the loss of each task: +\d+\.\d% +\d+\.\d%\n", first)
    assert second == ""


def test_a_trial_that_lies_behind_is_cut_short(tmp_path):
    optuna = pytest.importorskip("optuna")
    example = runpy.run_path(str(EXAMPLES / "tune_optuna.py"))
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=1.5))
    study.optimize(lambda trial: example["objective"](trial, example["toy_config"](1000), tmp_path), n_trials=1)
    (trial,) = study.trials
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert list(trial.intermediate_values) == [200], "after the first of five evaluations"
    assert not (tmp_path / "trial_0" / "result.json").exists()
