"""The angle in the convergence bound: every inequality of docs/convergence.md, and what it refutes."""

from __future__ import annotations

import itertools

import pytest
import torch

from mtrl_imgrad.combiners import make_combiner
from tests.support.synthetic.angles import (
    CONFLICTS,
    IMBALANCES,
    OFFSETS,
    descent,
    gradients,
    lower_bound,
    measure,
    radius_factor,
)
from tests.support.synthetic.descent import bowls

FAMILIES = list(itertools.product((2, 3, 6), CONFLICTS.values(), IMBALANCES.values()))
ROUNDING = 1e-9


@pytest.mark.parametrize("form", OFFSETS)
@pytest.mark.parametrize("c", [0.2, 0.4, 0.8])
def test_theta_bounds_the_angle_of_the_correction_from_both_sides(form, c):
    proven = 0
    for family in FAMILIES:
        found = measure(gradients(100, *family, seed=1), "imgrad", c, form=form)
        below = lower_bound(found.theta, radius_factor(found.theta, form) * c)
        assert (found.phi <= found.theta + ROUNDING).all()
        assert (found.phi >= below - ROUNDING).all()
        proven += int((below > -1).sum())
    assert proven > 50


@pytest.mark.parametrize("form", OFFSETS)
@pytest.mark.parametrize("c", [0.2, 0.4, 0.8])
def test_balanced_tasks_tighten_the_bound_beside_cagrads_and_imbalanced_ones_loosen_it(form, c):
    """Under the conditions stated; kappa is 1 at cos theta = 0.75 (authors) and 0.5 (paper)."""
    sides = [0, 0]
    for family in FAMILIES:
        G = gradients(100, *family, seed=2)
        ours, cagrad = measure(G, "imgrad", c, form=form), measure(G, "cagrad", c)
        kappa = radius_factor(ours.theta, form)
        balanced = (kappa >= 1) & (cagrad.phi >= -c)
        imbalanced = (kappa <= 1) & (ours.phi >= -kappa * c)
        assert (ours.phi >= cagrad.phi - ROUNDING)[balanced].all()
        assert (ours.phi <= cagrad.phi + ROUNDING)[imbalanced].all()
        sides[0] += int(balanced.sum())
        sides[1] += int(imbalanced.sum())
    assert min(sides) > 50


def test_without_those_conditions_both_halves_are_false():
    G = gradients(2000, 6, 3.0, 0.0, seed=1)
    ours, cagrad = measure(G, "imgrad", 0.2), measure(G, "cagrad", 0.2)
    assert ((ours.theta > 0.75) & (ours.phi < cagrad.phi - 1e-3)).any()
    assert ((ours.theta < 0.75) & (ours.phi > cagrad.phi + 1e-3)).any()


def test_at_the_largest_step_the_angle_does_not_count_and_below_it_the_bound_is_never_looser():
    cosines = torch.linspace(-1, 1, 21, dtype=torch.float64)
    for c in (0.2, 0.8):
        theorem = (1 - c * c) / 2
        torch.testing.assert_close(descent(cosines, c, 1.0), torch.full_like(cosines, theorem))
        for step in (0.1, 0.5, 0.9):
            refined = descent(cosines, c, step)
            assert (refined >= theorem).all()
            assert (refined.diff() > 0).all()


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("method", ["imgrad", "cagrad"])
def test_a_descent_keeps_the_refined_promise(method, step):
    problem, c = bowls(seed=3), 0.4
    combiner, x, total = make_combiner(method, c=c, rescale=False), problem.start.clone(), 0.0
    eta, least = step / problem.smoothness, torch.inf
    first = float(problem.evaluate(x)[0].mean())
    for _ in range(60):
        losses, jacobian = problem.evaluate(x)
        mean = jacobian.mean(0)
        update = combiner(jacobian).gradient
        correction = update - mean
        cosine = mean @ correction / (mean.norm() * correction.norm())
        rho, squared = float(descent(cosine, c, step)), float(mean @ mean)
        total, least = total + rho, min(least, squared)
        x = x - eta * update
        assert float(problem.evaluate(x)[0].mean()) <= float(losses.mean()) - eta * rho * squared + 1e-12 * first
        assert least <= (first - problem.lowest) / (eta * total)
