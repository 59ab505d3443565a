"""Combiners by name, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mtrl_imgrad import combiners
from mtrl_imgrad.combiners import IMGrad, list_combiners, make_combiner
from mtrl_imgrad.combiners.solvers.conic import require_cvxpy
from mtrl_imgrad.errors import ArgumentError, MissingDependencyError, UnknownNameError
from tests.support.combiners.examples import make_example


@pytest.mark.parametrize("name", list_combiners())
def test_every_name_makes_a_combiner_of_that_name(name):
    combiner = make_example(name, 3)
    assert combiner.name == name
    assert combiner.paper
    assert combiner.cite()


def test_linear_scalarization_is_ls_in_tables_and_here():
    assert type(make_combiner("ls")) is type(make_combiner("linear_scalarization"))


def test_a_combiner_is_handed_back():
    combiner = IMGrad(c=0.7)
    assert make_combiner(combiner) is combiner
    with pytest.raises(ArgumentError, match="takes no arguments, got c"):
        make_combiner(combiner, c=0.5)


@pytest.mark.parametrize("name", ["imgard", "IMGrad", None, 3])
def test_an_unknown_name_lists_the_known(name):
    with pytest.raises(UnknownNameError, match="imgrad"):
        make_combiner(name)


def test_an_argument_that_must_be_given_is_named():
    with pytest.raises(ArgumentError, match="'cotbal' must be given the arguments 'mini', 'single'"):
        make_combiner("cotbal")


def test_an_unknown_argument_lists_the_accepted():
    with pytest.raises(ArgumentError, match=r"'imgrad' takes no argument 'alpha'; accepted: c, form, measure"):
        make_combiner("imgrad", alpha=1)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("imgrad", {"form": "code"}, "form must be one of 'authors', 'paper', got 'code'"),
        ("imgrad", {"measure": "xx"}, "measure must be one of 'pm', 'lm', 'dc'"),
        ("imgrad", {"base": "mgda"}, "base must be one of 'cagrad', 'nash_mtl', got 'mgda'"),
        ("imgrad", {"solver": "slsqp"}, "solver must be one of 'exact', 'cvxpy'"),
        ("cagrad", {"c": -0.1}, "c must be a finite number >= 0"),
        ("cagrad", {"c": float("nan")}, "c must be a finite"),
        ("cagrad", {"c": "0.4"}, "c must be a finite"),
        ("cagrad", {"c": True}, "c must be a finite"),
        ("cagrad", {"c": 10**400}, "c must be a finite"),
        ("cagrad", {"update_every": 0.5}, "update_every must be an integer >= 1"),
        ("conicgrad", {"c": 1.5}, r"c must be a finite number in \[0, 1\], got 1.5"),
        ("moco", {"beta": 0}, r"beta must be a finite number in \(0, 1\], got 0"),
        ("fairgrad", {"alpha": 0}, "alpha must be a finite number > 0"),
        ("nash_mtl", {"max_norm": "1"}, "max_norm must be a finite number > 0"),
        ("cagrad_fast", {"tasks_per_step": 1}, "tasks_per_step must be an integer >= 2"),
        (
            "linear_scalarization",
            {"task_weights": 2.0},
            "task_weights must be a non-empty sequence of finite",
        ),
        ("linear_scalarization", {"task_weights": []}, "task_weights must be a non-empty sequence"),
        ("cagrad", {"reduction": "max"}, "reduction must be"),
        ("mgda", {"normalization": "norm"}, "normalization must be one of 'none', 'l2'"),
        ("linear_scalarization", {"task_weights": [0, 0]}, "task_weights must be"),
        ("linear_scalarization", {"task_weights": [1, -1]}, "task_weights must be"),
        (
            "si",
            {"lower_bound": "low"},
            "lower_bound must be a finite number or a non-empty sequence",
        ),
        ("gls", {"lower_bound": [0.0, float("nan")]}, "lower_bound must be a finite number or a non-empty sequence"),
        ("rlw", {"seed": -1}, "seed must be"),
        ("uw", {"learning_rate": -0.1}, "learning_rate must be a finite number >= 0, got -0.1"),
        ("uw", {"initial": float("inf")}, "initial must be a finite number"),
        ("dwa", {"window": 0}, "window must be an integer >= 1, got 0"),
        ("dwa", {"temperature": 0}, "temperature must be a finite number > 0"),
        ("famo", {"weight_decay": True}, "weight_decay must be a finite number >= 0"),
        ("igb_v2", {"update_every": 1.5}, "update_every must be an integer >= 1"),
        ("stch", {"warm_up": -1}, "warm_up must be an integer >= 0"),
        ("stch", {"mu": 0.0}, "mu must be a finite number > 0"),
        ("bilb4mtl", {"router": "linear"}, "router must be one of 'sigmoid', 'relu_sigmoid', .*, got 'linear'"),
        ("bilb4mtl", {"lam": -1}, "lam must be a finite number >= 0"),
    ],
)
def test_a_bad_value_names_the_argument(name, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        make_combiner(name, **arguments)


def test_numpy_numbers_are_numbers():
    found = make_combiner("cagrad", c=np.float32(0.5), update_every=np.int64(2))
    assert (found.c, found.update_every) == (0.5, 2)


def test_cvxpy_is_asked_for_only_when_it_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    make_combiner("imgrad")
    with pytest.raises(MissingDependencyError, match="pip install cvxpy"):
        require_cvxpy()
    with pytest.raises(MissingDependencyError, match="pip install cvxpy"):
        make_combiner("imgrad", solver="cvxpy")


def test_combiners_import_neither_simulators_nor_agents():
    code = (
        "import sys; from mtrl_imgrad.combiners import make_combiner; make_combiner('imgrad'); "
        "heavy = {'gymnasium', 'stable_baselines3', 'metaworld', 'mujoco', 'cvxpy', 'matplotlib', 'scipy'}; "
        "ours = {name for name in sys.modules if name.startswith('mtrl_imgrad.')}; "
        "base = ('mtrl_imgrad.combiners', 'mtrl_imgrad.errors', 'mtrl_imgrad.validation'); "
        "print(sorted(heavy & set(sys.modules)), sorted(n for n in ours if not n.startswith(base)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[] []"


def test_without_torchjd_everything_else_works_and_the_adapters_say_what_to_install():
    code = (
        "import sys; sys.modules['torchjd'] = None; import mtrl_imgrad.combiners\n"
        "from mtrl_imgrad.errors import MissingDependencyError\n"
        "try: import mtrl_imgrad.combiners.torchjd\n"
        "except MissingDependencyError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'mtrl-imgrad[torchjd]'" in found.stdout


def test_public_names_exist():
    assert all(hasattr(combiners, name) for name in combiners.__all__)
