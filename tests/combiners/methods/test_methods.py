"""What the papers say of LS, MGDA, CAGrad and IMGrad must hold of the code."""

from __future__ import annotations

import pytest
import torch

from mtrl_imgrad.combiners import CAGrad, IMGrad, LinearScalarization, Status, make_combiner
from tests.support.combiners.gradient_problems import families, gramians

FAMILIES = list(families(2, 1))
WELL_POSED = [name for name in FAMILIES if name not in ("mean zero", "mean tiny", "thin half circle")]


def norm(gramian, values):
    return (values * (gramian @ values[..., None])[..., 0]).sum(-1).clamp_min(0).sqrt()


@pytest.mark.parametrize("family", WELL_POSED)
@pytest.mark.parametrize("form", ["authors", "paper"])
@pytest.mark.parametrize("measure", ["pm", "lm", "dc"])
def test_imgrad_is_cagrad_of_another_radius_stretched(family, form, measure):
    """IMGrad(c) has CAGrad's correction for the radius kappa c, stretched to length c |g0|."""
    c = 0.4
    for M in gramians(families(5, 5)[family]):
        imgrad = IMGrad(c=c, form=form, measure=measure, rescale=False).weights(M)
        kappa = imgrad.extras["kappa"].item()
        if not 1e-12 < kappa < 1e3:
            continue
        cagrad = CAGrad(c=kappa * c, rescale=False).weights(M)
        stretched = 0.2 + (cagrad.values - 0.2) / kappa
        # Compared as update directions: where gradients are dependent, weights need not be unique.
        error = norm(M, imgrad.values - stretched) / norm(M, imgrad.values)
        assert error < (1e-12 if kappa > 1e-2 and family in ("independent", "common", "square") else 1e-6)


@pytest.mark.parametrize("family", WELL_POSED)
@pytest.mark.parametrize("name", ["cagrad", "imgrad"])
@pytest.mark.parametrize("c", [0.2, 0.4, 0.8])
def test_the_correction_has_the_stated_length(family, name, c):
    """|d - g0| = c |g0|, except where the weighted gradient vanishes and a shorter correction is the optimum."""
    M = gramians(families(4, 10)[family])
    found = make_combiner(name, c=c, rescale=False).weights(M)
    length = norm(M, found.values - 0.25) / (c * M.mean((-1, -2)).sqrt())
    vanishing = norm(M, found.extras["simplex_weights"]) < 1e-6 * M.diagonal(dim1=-2, dim2=-1).amax(-1).sqrt()
    assert (length < 1 + 1e-6).all()
    assert ((length > 1 - 1e-6) | vanishing).all()


@pytest.mark.parametrize("name", ["cagrad", "imgrad"])
def test_rescale_divides_by_one_plus_c_squared(name):
    M = gramians(families(4, 3)["conflict"])
    plain = make_combiner(name, c=0.5, rescale=False).weights(M).values
    torch.testing.assert_close(make_combiner(name, c=0.5).weights(M).values, plain / 1.25)


def test_cagrad_helps_the_worst_off_task_more_than_any_other_update_of_the_ball():
    generator = torch.Generator().manual_seed(0)
    G = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    mean = G.mean(0)
    values = CAGrad(c=0.4, rescale=False).weights(G @ G.T).values
    best = (G @ (G.T @ values)).min()
    noise = torch.randn(5000, 6, generator=generator, dtype=torch.float64)
    others = mean + 0.4 * mean.norm() * noise / noise.norm(dim=1, keepdim=True)
    assert ((others @ G.T).amin(1) <= best + 1e-12).all()


@pytest.mark.parametrize("family", WELL_POSED)
def test_imgrad_never_beats_cagrad_on_the_worst_off_task(family):
    """Both lie on one sphere, and CAGrad maximises the least gain over its ball."""
    M = gramians(families(5, 10)[family])
    gain = {
        name: (M @ make_combiner(name, rescale=False).weights(M).values[..., None])[..., 0].amin(-1)
        for name in ("cagrad", "imgrad")
    }
    assert (gain["imgrad"] <= gain["cagrad"] + 1e-7 * M.abs().amax((-1, -2))).all()


def test_c_zero_is_linear_scalarization():
    M = gramians(families(5, 3)["conflict"])
    for name in ("cagrad", "imgrad"):
        torch.testing.assert_close(make_combiner(name, c=0.0).weights(M).values, torch.full((3, 5), 0.2).double())


def test_a_large_radius_turns_cagrad_into_mgda():
    M = gramians(families(4, 5)["independent"])
    mgda = make_combiner("mgda").weights(M).values
    far = CAGrad(c=1e7).weights(M).extras["simplex_weights"]
    torch.testing.assert_close(far, mgda, rtol=1e-5, atol=1e-6)


def test_balanced_tasks_make_imgrad_follow_mgda_in_the_papers_form():
    M = torch.eye(3, dtype=torch.float64)
    found = IMGrad(form="paper").weights(M)
    assert found.extras["cos_theta"].item() == pytest.approx(1.0)
    torch.testing.assert_close(found.extras["simplex_weights"], torch.full((3,), 1 / 3).double())


def test_severe_imbalance_gives_the_whole_correction_to_the_least_aligned_task():
    G = torch.diag(torch.tensor([1.0, 1e4, 1e4], dtype=torch.float64))
    found = IMGrad(rescale=False).weights(G @ G.T)
    assert found.extras["cos_theta"].item() < 1e-3
    torch.testing.assert_close(found.extras["simplex_weights"], torch.tensor([1.0, 0.0, 0.0]).double())


@pytest.mark.parametrize("family", FAMILIES)
def test_mgda_never_goes_uphill(family):
    M = gramians(families(6, 10)[family])
    values = make_combiner("mgda").weights(M).values
    norms = M.diagonal(dim1=-2, dim2=-1).sqrt()
    gain = (M @ values[..., None])[..., 0] / norms
    assert (gain >= -1e-10 * (values * norms).sum(-1, keepdim=True)).all()


def test_task_weights_weigh_the_mean():
    found = LinearScalarization(task_weights=[1, 3])(torch.eye(2))
    torch.testing.assert_close(found.weights, torch.tensor([0.25, 0.75]).double())
    torch.testing.assert_close(found.gradient, torch.tensor([0.25, 0.75]))


@pytest.mark.parametrize("name", ["cagrad", "imgrad"])
def test_the_conic_solver_answers_alike(name):
    M = gramians(families(4, 3)["conflict"])
    exact = make_combiner(name).weights(M)
    conic = make_combiner(name, solver="cvxpy").weights(M)
    torch.testing.assert_close(conic.values, exact.values, rtol=1e-3, atol=1e-3)
    assert conic.status == Status.SOLVED
