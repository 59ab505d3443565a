"""Weights computed once with independent code, to six digits."""

from __future__ import annotations

import pytest
import torch

from mtrl_imgrad.combiners import make_combiner
from mtrl_imgrad.combiners.imbalance import direct, plumb_line, smallest_norm
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.combiners.solvers.simplex_problems import min_norm_point

G3 = torch.tensor([[1, 0, 2, 0], [0, 3, -1, 0], [-1, 1, 0, 0.5]], dtype=torch.float64)
G2 = torch.tensor([[2, 0], [-1, 1]], dtype=torch.float64)
PAIR = torch.eye(2, dtype=torch.float64)

CASES = [
    (G3, "linear_scalarization", {}, (1 / 3, 1 / 3, 1 / 3)),
    (G3, "mgda", {}, (0.351351, 0, 0.648649)),
    (G3, "cagrad", {"rescale": False}, (0.579912, 0.333333, 0.557786)),
    (G3, "cagrad", {}, (0.499924, 0.287356, 0.480850)),
    (G3, "cagrad", {"c": 0.8, "rescale": False}, (0.774805, 0.333333, 0.917588)),
    (G3, "cagrad", {"c": 0.8}, (0.472442, 0.203252, 0.559505)),
    (G3, "imgrad", {"rescale": False}, (0.575453, 0.333333, 0.573625)),
    (G3, "imgrad", {}, (0.496080, 0.287356, 0.494504)),
    (G3, "imgrad", {"c": 0.8, "rescale": False}, (0.768201, 0.333333, 0.929467)),
    (G3, "imgrad", {"c": 0.8}, (0.468415, 0.203252, 0.566748)),
    (G2, "mgda", {}, (0.4, 0.6)),
    (G2, "cagrad", {"rescale": False}, (0.5, 0.7)),
    (G2, "cagrad", {}, (0.431034, 0.603448)),
    (G2, "cagrad", {"c": 0.8, "rescale": False}, (0.696648, 1.044972)),
    (G2, "imgrad", {"rescale": False}, (0.549188, 0.743045)),
    (G2, "imgrad", {}, (0.473438, 0.640556)),
    (G2, "imgrad", {"c": 0.8, "rescale": False}, (0.763451, 1.064439)),
    (G3, "pcgrad", {"shuffle": False, "reduction": "sum"}, (1.6, 1.2, 1.177778)),
    (G2, "pcgrad", {"reduction": "sum"}, (1.5, 2.0)),
    (G3, "nash_mtl", {"max_norm": None}, (0.580269, 0.284712, 0.608579)),
    (G2, "nash_mtl", {"max_norm": None}, (0.923880, 1.306563)),
    (G3, "fairgrad", {}, (0.580269, 0.284712, 0.608579)),
    (G3, "fairgrad", {"alpha": 2.0}, (0.472544, 0.167012, 0.573976)),
    (G3, "fairgrad", {"alpha": 0.5}, (0.710331, 0.444298, 0.681171)),
    (G2, "fairgrad", {"alpha": 2.0}, (0.942321, 1.369568)),
    (G2, "fairgrad", {"alpha": 0.5}, (0.917774, 1.241940)),
    (G3, "imtl_g", {}, (0.435279, 0.172998, 0.391723)),
    (G2, "imtl_g", {}, (0.414214, 0.585786)),
    (G3, "config", {"reduction": "sum"}, (1.424456, 0.566139, 1.281918)),
    (G2, "config", {"reduction": "sum"}, (0.853553, 1.207107)),
    (G3, "aligned_mtl", {"reduction": "sum"}, (0.617659, 0.254314, 0.798334)),
    (G2, "aligned_mtl", {"reduction": "sum"}, (0.829180, 1.105573)),
    (G3, "upgrad", {}, (0.533333, 0.370370, 0.432099)),
    (G2, "upgrad", {}, (0.75, 1.0)),
    (G3, "sdmgrad", {}, (0.365904, 0.076923, 0.557173)),
    (G2, "sdmgrad", {}, (0.4, 0.6)),
]


@pytest.mark.parametrize(("jacobian", "name", "arguments", "expected"), CASES)
def test_weights_agree_with_the_golden_vectors(jacobian, name, arguments, expected):
    weights = make_combiner(name, **arguments)(jacobian).weights
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("jacobian", "name", "c", "expected"),
    [
        (G3, "cagrad", 0.4, (0.523487, 0, 0.476513)),
        (G3, "imgrad", 0.4, (0.501895, 0, 0.498105)),
        (G3, "cagrad", 0.8, (0.430399, 0, 0.569601)),
        (G3, "imgrad", 0.8, (0.421792, 0, 0.578208)),
        (G2, "cagrad", 0.4, (0, 1)),
        (G2, "imgrad", 0.4, (0.168319, 0.831681)),
        (G2, "cagrad", 0.8, (0.265160, 0.734840)),
        (G2, "imgrad", 0.8, (0.318220, 0.681780)),
        (PAIR, "cagrad", 0.4, (0.5, 0.5)),
        (PAIR, "imgrad", 0.4, (0.5, 0.5)),
        (PAIR, "imgrad", 0.8, (0.5, 0.5)),
    ],
)
def test_simplex_weights_agree_with_the_golden_vectors(jacobian, name, c, expected):
    found = make_combiner(name, c=c).weights(jacobian @ jacobian.T).extras["simplex_weights"]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("jacobian", "pm", "lm", "dc"),
    [(G3, 0.7912663, 0.6821865, 0.4743416), (G2, 0.8944272, 0.0, 0.7071068), (PAIR, 1.0, 0.7071068, 1.0)],
)
def test_imbalance_measures_agree_with_the_golden_values(jacobian, pm, lm, dc):
    problem = normalize(jacobian @ jacobian.T)
    assert plumb_line(problem, min_norm_point(problem)).item() == pytest.approx(pm, abs=2e-6)
    assert smallest_norm(problem).item() == pytest.approx(lm, abs=2e-6)
    assert direct(problem).item() == pytest.approx(dc, abs=2e-6)


@pytest.mark.parametrize(("measure", "mu"), [("pm", 0.7912663), ("lm", 0.6821865), ("dc", 0.4743416)])
def test_imgrad_reports_the_imbalance_it_used(measure, mu):
    for form, offset in (("authors", 1.5), ("paper", 1.0)):
        extras = make_combiner("imgrad", measure=measure, form=form).weights(G3 @ G3.T).extras
        assert extras["mu"].item() == pytest.approx(mu, abs=2e-6)
        assert extras["kappa"].item() == pytest.approx(mu / (offset - mu), abs=2e-5)
        assert ("cos_theta" in extras) == (measure == "pm")
