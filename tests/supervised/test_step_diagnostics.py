"""Numbers of a step's gradients against those of plain autograd."""

import pytest
import torch

from mtrl_imgrad.supervised.step_diagnostics import probe_gramian, step_diagnostics
from tests.support.supervised.learned import batch_of, trainer_for, write_scenes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes")


def test_diagnostics_are_those_of_plain_gradients(root):
    trainer = trainer_for(root, combiner="linear_scalarization")
    images, targets = batch_of(trainer)
    predictions, _ = trainer.forward.predict(images)
    losses = trainer.forward.losses(predictions, targets)
    G = torch.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, trainer._shared, retain_graph=True)])
            for loss in losses
        ]
    ).double()
    gramian = probe_gramian(losses, trainer._shared, scale=16.0)
    torch.testing.assert_close(gramian, G @ G.T, rtol=1e-4, atol=1e-8)
    row = step_diagnostics(gramian, torch.ones(3), ["a", "b", "c"])
    norms = G.norm(dim=1)
    assert row["imbalance"] == pytest.approx(float(norms.max() / norms.min()), rel=1e-4)
    assert row["norm/b"] == pytest.approx(float(norms[1]), rel=1e-4)
    d = G.sum(0)
    cosines = (G @ d) / (norms * d.norm())
    assert row["direction_cosine/c"] == pytest.approx(float(cosines[2]), abs=1e-4)
    assert row["pareto_failure"] == float((cosines < 0).any())


def test_cos_theta_of_two_tasks_has_a_closed_form():
    first, second, inner = 4.0, 1.0, 0.5
    row = step_diagnostics(torch.tensor([[first, inner], [inner, second]]).double(), None, ["a", "b"])
    determinant = first * second - inner**2
    assert row["cos_theta"] == pytest.approx(2 * determinant**0.5 / ((first + second) ** 2 - 4 * inner**2) ** 0.5)
    assert row["dc"] == pytest.approx(0.5)
    assert "pareto_failure" not in row
