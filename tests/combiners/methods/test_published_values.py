"""Default arguments and constants of the methods against where they come from.

`test_authors` holds formulas to the authors' code, where values are given; here are the values that a user gets who
gives none. "ours" marks a value without a source, held so that it does not change by accident.
"""

from __future__ import annotations

import inspect

import pytest
import torch

from mtrl_imgrad.combiners import list_combiners, make_combiner
from mtrl_imgrad.combiners.registry import combiner_class

DEFAULTS = {
    "adatask": {"algorithm": "adam", "betas": (0.9, 0.999)},  # AdaTask @84853de
    "aligned_mtl": {"scale_mode": "min"},  # paper and code
    "bilb4mtl": {"lam": 0.01, "learning_rate": 1e-3, "router": "sigmoid", "gap": "weighted"},  # LDC-MTL, CelebA
    "cagrad": {"c": 0.4, "rescale": True},  # NYUv2 and CityScapes scripts; rescale 1
    "cagrad_fast": {"c": 0.4, "tasks_per_step": 4, "rescale": True},  # MT10: cagrad_fast4
    "conicgrad": {"c": 0.5},  # ours
    "cotbal": {"temperature": 1.0, "shares": (0.25, 0.25, 0.5), "smallest_gain": 0.01},  # paper, M3IT; ours
    "db_mtl": {"beta": 0.9, "sigma": 0.0},  # LibMTL, by the authors
    "dwa": {"window": 25, "temperature": 2.0},  # nash-mtl; paper
    "fairgrad": {"alpha": 1.0},  # code's default; its scripts take 2
    "famo": {"learning_rate": 0.025, "weight_decay": 1e-3, "lower_bound": 0.0},  # FAMO, NYUv2 and CelebA
    "gls": {"lower_bound": 0.0},
    "graddrop": {"leak": 0.0},  # paper
    "gradnorm": {"alpha": 1.5, "learning_rate": 0.025, "optimizer": "adam"},  # paper, NYUv2; ours
    "gradvac": {"beta": 0.01},  # paper
    "igb_v1": {"window": 25, "lower_bound": 0.0},  # ours
    "igb_v2": {"window": 25, "update_every": 50, "lower_bound": 0.0},  # ours; IGB4MTL
    "imgrad": {"form": "authors", "measure": "pm", "base": "cagrad", "rescale": True, "official_k2_quirk": False},
    "imtl": {"learning_rate": 0.025},  # ours
    "imtl_l": {"learning_rate": 0.025},  # ours
    "mgda": {"normalization": "none", "combine_normalized": False},  # nash-mtl, LibMTL
    "moco": {"beta": 0.5, "gamma": 0.1, "sigma_beta": 0.5, "sigma_gamma": 0.5, "rho": 0.0, "window": 1},  # LibMTL; ours
    "nash_mtl": {"max_norm": 1.0, "update_every": 1},  # nash-mtl
    "pcgrad": {"shuffle": True},  # paper
    "sdmgrad": {"lam": 0.3, "halves": False},  # sdmgrad, NYUv2 and CityScapes
    "sdmgrad_os": {"num_sampled": 4, "lam": 0.6},  # sdmgrad, MT10
    "si": {"lower_bound": 0.0},
    "stch": {"window": 25, "warm_up": 4, "mu": 1.0, "lower_bound": 0.0},  # ours; STCH
    "uw": {"learning_rate": 0.025, "initial": 0.0},  # nash-mtl
}
COMMON = {"reduction": "mean", "seed": None, "solver": "exact", "pareto_safe": False, "update_every": 1}
"""Of all methods that have them; not the papers'."""
FREE = {"task_weights": None, "eps": None, "alpha": 0.99, "c": None, "tasks_per_step": None, "normalization": "none"}
"""Other arguments: PyTorch's, or nothing given."""
FREE |= {"scale": "none"}


@pytest.mark.parametrize("name", list_combiners())
def test_default_arguments_are_those_of_the_source(name):
    expected = {**COMMON, **FREE, **DEFAULTS.get(name, {})}
    for argument, parameter in inspect.signature(combiner_class(name)).parameters.items():
        if parameter.default is not parameter.empty:
            assert parameter.default == expected[argument], argument


def _doubles(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_imgrad_takes_c_040():
    G = torch.tensor([[1, 0, 2, 0], [0, 3, -1, 0], [-1, 1, 0, 0.5]], dtype=torch.float64)
    # A golden vector of the project's own reference solver, c = 0.4, divided by 1.16.
    torch.testing.assert_close(
        make_combiner("imgrad")(G).weights, _doubles(0.496080, 0.287356, 0.494504), atol=2e-6, rtol=0
    )


def test_the_first_numbers_of_bilb4mtl_are_one():
    """sigmoid(1) each, so the 40 weights of CelebA sum to 29.24; the value is the authors' code's."""
    losses = torch.linspace(1, 2, 40, dtype=torch.float64)
    weights = make_combiner("bilb4mtl").weights(losses).values
    assert float(weights[-1]) == pytest.approx(0.03231, abs=5e-6)
    assert float(weights[1]) == pytest.approx(1 / 40, rel=1e-12)  # between neighbours: no slope


def test_famo_adds_its_epsilon_to_a_loss_at_the_bound():
    """Weights are as 1 / (L + 1e-8)."""
    weights = make_combiner("famo").weights(_doubles(1e-9, 1e-8)).values
    assert float(weights[0] / weights[1]) == pytest.approx(2e-8 / 1.1e-8, rel=1e-9)


def test_db_mtl_adds_its_epsilon_to_the_loss():
    G = torch.eye(2, dtype=torch.float64)
    # |g / (L + 1e-8)|: 1 / 2e-8 and 1 / 1e-7.
    found = make_combiner("db_mtl", beta=0, reduction="sum")(G, _doubles(1e-8, 9e-8))
    assert float(found.gradient.norm()) == pytest.approx(2**0.5 / 2e-8, rel=1e-9)


def test_learned_numbers_take_adams_usual_moments():
    """The second step of Adam with betas 0.9 and 0.999, by hand: gradients 1, then -0.5; epsilon 1e-8."""
    combiner = make_combiner("imtl_l", learning_rate=0.1)
    combiner.weights(_doubles(2.0))  # s = 0: gradient e^0 * 2 - 1 = 1, so s = -0.1
    s = -0.1 / (1 + 1e-8)
    loss = 0.5 / 2.718281828459045**s  # gradient -0.5
    combiner.weights(_doubles(loss))
    mean = (0.9 * 0.1 * 1 + 0.1 * -0.5) / (1 - 0.81)
    square = (0.999 * 0.001 * 1 + 0.001 * 0.25) / (1 - 0.999**2)
    moved = s - 0.1 * mean / (square**0.5 + 1e-8)
    numbers = combiner.state_dict()["log_scales"]["numbers"]
    assert float(numbers[0]) == pytest.approx(moved, rel=1e-9)


def test_adams_epsilon_shows_for_the_smallest_gradients():
    """The first step is lr g / (|g| + 1e-8): with g = 1e-8 half of lr."""
    combiner = make_combiner("imtl_l", learning_rate=0.1)
    combiner.weights(_doubles(1 + 1e-8))
    assert float(combiner.state_dict()["log_scales"]["numbers"][0]) == pytest.approx(-0.05, rel=1e-6)
