"""The small constants that keep methods finite, each where it decides the answer; expected values by hand."""

from __future__ import annotations

import pytest
import torch

from mtrl_imgrad.combiners import make_combiner


def doubles(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_gradnorms_weights_stay_above_a_thousandth_before_they_are_scaled():
    """Norms 1 and 3, alpha = 0: slopes -1 and 3, so a step of 1 leads to 2 and -2, which counts as 0.001."""
    combiner = make_combiner("gradnorm", alpha=0, learning_rate=1.0, optimizer="sgd")
    combiner(torch.diag(doubles(1, 3)), doubles(1, 1))
    torch.testing.assert_close(combiner.state_dict()["weights"], doubles(2, 1e-3) * (2 / 2.001))


def test_gradnorms_rate_of_a_loss_below_zero():
    combiner = make_combiner("gradnorm")
    combiner(torch.eye(2).double(), doubles(1, 1))
    rates = combiner(torch.eye(2).double(), doubles(1, -1)).extras["rates"]
    torch.testing.assert_close(rates, doubles(2, 2e-8) / (1 + 1e-8), rtol=1e-9, atol=0)


def test_gradnorms_adam_has_the_usual_epsilon():
    """Norms 1e-8 and 3e-8: the first step is lr g / (|g| + 1e-8), so -1/2 and 3/4 of lr."""
    combiner = make_combiner("gradnorm", alpha=0, learning_rate=0.1)
    combiner(torch.diag(doubles(1e-8, 3e-8)), doubles(1, 1))
    torch.testing.assert_close(combiner.state_dict()["weights"], doubles(1.05, 0.925) * (2 / 1.975))


def test_gradvacs_targets_are_below_one():
    """Targets of 1 from equal gradients, then orthogonal ones: turned to a cosine of 1 - 1e-6."""
    combiner = make_combiner("gradvac", beta=1.0, reduction="sum")
    combiner(torch.ones(2, 2).double())
    highest = 1 - 1e-6
    expected = 1 + highest / (1 - highest**2) ** 0.5
    torch.testing.assert_close(combiner(torch.eye(2).double()).gradient, doubles(expected, expected), rtol=1e-6, atol=0)


def test_mgdas_loss_of_zero_counts_as_a_millionth_of_the_largest():
    """Rows of length 1e6 and 1, orthogonal: weights as the inverse squares."""
    weights = make_combiner("mgda", normalization="loss")(torch.eye(2).double(), doubles(0, 1)).weights
    assert float(weights[0]) == pytest.approx(1e-12, rel=1e-3)


def test_sdmgrads_halves_have_a_smallest_unit():
    """A cross-Gramian with a negative diagonal has the unit 0: it is divided by 1e-8."""
    cross = -5e-12 * torch.diag(doubles(1, 2))
    gramian = torch.eye(4).double()
    gramian[0::2, 1::2], gramian[1::2, 0::2] = cross, cross.T
    combiner = make_combiner("sdmgrad", lam=0.0, halves=True)
    found = combiner.weights(gramian).extras["simplex_weights"]
    w, velocity = doubles(0.5, 0.5), doubles(0, 0)
    for _ in range(20):
        velocity = 0.5 * velocity + (cross / 1e-8) @ w
        step = w - 10.0 * velocity
        w = (step - (step.sum() - 1) / 2).clamp(0, 1)  # the projection, for two weights
    assert 0.1 < w.min() < 0.49
    torch.testing.assert_close(found, w, rtol=1e-6, atol=0)
