"""``print`` of what combiners answer: one line, whatever the sizes."""

import pytest
import torch
from torch import nn

from mtrl_imgrad.combiners import IMGrad, LinearScalarization, list_combiners, min_norm_point
from mtrl_imgrad.gradients import by_rows, combine_rows, split_parameters
from tests.support.combiners.examples import make_example

G = torch.tensor([[3.0, 0.0], [0.0, 4.0]])


def test_one_line_says_what_matters():
    found = LinearScalarization()(G, torch.ones(2))
    assert str(found) == "Combination(SOLVED, residual 0, weights [0.5, 0.5], norm 2.5)"
    assert str(LinearScalarization().weights(torch.ones(2))) == "Weights(SOLVED, residual 0, values [0.5, 0.5])"
    assert "weights [0.64, 0.36])" in str(min_norm_point(G @ G.T))
    assert "values of shape [5, 2]" in str(IMGrad().weights((G @ G.T).expand(5, 2, 2)))


@pytest.mark.parametrize("name", list_combiners())
def test_every_method_prints_one_short_line(name):
    x = nn.Parameter(torch.ones(1000))
    found = make_example(name, 30).backward([(k + x).square().mean() + 1 for k in range(30)], [x])
    assert "\n" not in str(found)
    assert len(str(found)) < 150
    assert f"norm {found.gradient[0].double().norm():.4g}" in str(found)


def test_what_was_left_out_is_told():
    x = nn.Parameter(torch.ones(2))
    losses = [x.sum(), x.sum() * torch.nan, 2 * x.sum()]
    assert str(IMGrad().backward(losses, [x], on_nonfinite="skip")) == "Combination(skipped, tasks [1] not finite)"
    assert "tasks [1] not finite" in str(IMGrad().backward([*losses[:2], x[0] * 2], [x], on_nonfinite="drop_task"))


def test_gradients_by_rows():
    module = nn.Linear(3, 1)

    def loss(parameters, x):
        return torch.func.functional_call(module, parameters, x).square().mean(), {}

    parameters, rows = split_parameters(module), torch.ones(2, 5, 3)
    assert str(by_rows(loss, parameters, rows)).startswith("RowGradients(2 shared, 0 task-specific, losses [")
    assert "2 gradients, losses [" in str(combine_rows(IMGrad(), by_rows(loss, parameters, rows)))
