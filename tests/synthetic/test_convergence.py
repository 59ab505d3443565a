"""The convergence theorem of docs/convergence.md, step by step on problems whose smoothness is known."""

import pytest
import torch

from mtrl_imgrad.combiners import make_combiner
from mtrl_imgrad.synthetic import evaluate
from tests.support.synthetic.descent import TOY_SMOOTHNESS, bowls, descend_and_record, toy

METHODS = [("imgrad", 0.4), ("imgrad", 0.9), ("cagrad", 0.4)]
BELOW = [(0.5, (-8.5, -5.0)), (0.9, (9.0, -1.0))]


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize(("method", "c"), METHODS)
def test_every_step_descends_as_promised_and_the_rate_holds(method, c, rescale):
    problem = bowls(seed=3)
    ledger = descend_and_record(problem, make_combiner(method, c=c, rescale=rescale), 150)
    assert float(ledger.off_centre.max()) <= c * (1 + 1e-9)
    assert not ledger.broken_promises(c).any()
    assert (ledger.least_squared() <= ledger.rate_bound(c, problem.lowest)).all()
    assert float(ledger.least_squared()[-1]) < 1e-2 * float(ledger.squared[0])


@pytest.mark.parametrize("form", ["authors", "paper"])
@pytest.mark.parametrize("measure", ["pm", "lm", "dc"])
def test_no_form_or_measure_leaves_the_ball(form, measure):
    generator = torch.Generator().manual_seed(5)
    jacobians = torch.randn(200, 3, 8, generator=generator, dtype=torch.float64)
    jacobians = jacobians * (2 * torch.randn(200, 3, 1, generator=generator, dtype=torch.float64)).exp()
    weights = make_combiner("imgrad", c=0.7, form=form, measure=measure, rescale=False).weights(
        jacobians @ jacobians.mT
    )
    mean = jacobians.mean(1)
    update = (weights.values[..., None] * jacobians).sum(1)
    off_centre = torch.linalg.vector_norm(update - mean, dim=-1) / torch.linalg.vector_norm(mean, dim=-1)
    assert float(off_centre.max()) <= 0.7 * (1 + 1e-9)
    # The proof's inequality, 2 g0 . d >= |d|^2 + (1 - c^2) |g0|^2.
    left, right = 2 * (mean * update).sum(-1), update.square().sum(-1) + (1 - 0.49) * mean.square().sum(-1)
    assert (left >= right * (1 - 1e-9)).all()


def test_beyond_the_promised_step_size_the_promise_can_break():
    """The ledger would notice: at a step size of 3 / L the iterates climb."""
    problem = bowls(seed=3)
    too_big = type(problem)(problem.evaluate, problem.start, problem.smoothness / 3, problem.lowest)
    ledger = descend_and_record(too_big, make_combiner("imgrad", c=0.4, rescale=False), 20)
    assert ledger.broken_promises(0.4).any()


@pytest.mark.parametrize(("s", "start"), BELOW)
def test_the_toys_lower_half_keeps_the_promise(s, start):
    problem = toy(s, start)
    ledger = descend_and_record(problem, make_combiner("imgrad", c=0.4, rescale=False), 150)
    assert (ledger.positions[:, 1] < 0).all()
    assert (ledger.positions[:, 1] > -12).all()
    assert (ledger.positions[:, 0].abs() <= 10).all()
    assert not ledger.broken_promises(0.4).any()
    assert (ledger.least_squared() <= ledger.rate_bound(0.4, problem.lowest)).all()


@pytest.mark.parametrize("s", [0.1, 0.5, 0.9])
def test_the_toys_smoothness_bounds_its_curvature_in_the_lower_half(s):
    weights = torch.tensor([s, 1 - s], dtype=torch.float64)

    def mean_loss(x):
        return (evaluate(x)[0] * weights).mean()

    for x1 in torch.linspace(-10, 10, 9):
        for x2 in (-12.0, -9.0, -5.0, -2.5, -1.0, -0.5, -0.1):
            hessian = torch.autograd.functional.hessian(mean_loss, torch.tensor([float(x1), x2], dtype=torch.float64))
            assert float(torch.linalg.eigvalsh(hessian).abs().max()) <= TOY_SMOOTHNESS


def test_the_toys_ridge_is_outside_the_theorem():
    """Next to the cut of the logarithm the slope is 1e5 times that a step away; no useful L exists."""
    on_ridge = 2 * torch.tensor(5.0).double().tanh() - 7
    near, far = (torch.tensor([float(on_ridge) + gap, 5.0], dtype=torch.float64) for gap in (2e-5, 1.0))
    steep, flat = (float(torch.linalg.vector_norm(evaluate(x)[1][0])) for x in (near, far))
    assert steep > 1e4 * flat
