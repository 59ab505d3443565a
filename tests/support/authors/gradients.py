"""Comparisons of the methods that combine gradients with their authors' code; see `authors`."""

from __future__ import annotations

from unittest.mock import patch

import torch
from torch import Tensor

from mtrl_imgrad.combiners import Combiner, make_combiner
from mtrl_imgrad.combiners.methods import graddrop, pcgrad
from tests.support.authors.numbers import DECADES, Comparison, Comparisons, Facts, deviation, double

__all__ = [
    "adatask",
    "cagrad",
    "cagrad_exact",
    "cagrad_fast",
    "graddrop_",
    "imgrad",
    "imtl",
    "imtl_g",
    "mgda",
    "nash_mtl",
    "pcgrad_",
    "sdmgrad",
    "sdmgrad_os",
]


def _update(combiner: Combiner, given: Facts) -> Tensor:
    gradient = combiner(double(given["gradients"])).gradient
    assert isinstance(gradient, Tensor)
    return gradient


def imgrad(given: Facts, theirs: Facts) -> Comparisons:
    num_tasks, far = len(given["gradients"]), given["kind"] == DECADES
    quirk = num_tasks == 2
    ours = make_combiner("imgrad", c=given["alpha"], official_k2_quirk=quirk)(double(given["gradients"]))
    label = "K = 2, official_k2_quirk=True" if quirk else "K = 3"
    tight = 1e-5 if quirk and far else 1e-6
    yield Comparison(f"{label}, tight", deviation(ours.gradient, theirs["gradient_tight"]), tight)
    yield Comparison(f"{label}, published", deviation(ours.gradient, theirs["gradient_published"]), 1e-2)
    if quirk:
        default = _update(make_combiner("imgrad", c=given["alpha"]), given)
        gap = deviation(default, theirs["gradient_tight"])
        yield Comparison("K = 2, default: without their operator precedence slip", gap, torch.inf, departs=0.1)
    elif not far:
        yield Comparison("K = 3, mu, tight", abs(float(ours.extras["mu"]) - theirs["mu_tight"]), 1e-9)


def cagrad(given: Facts, theirs: Facts) -> Comparisons:
    num_tasks, far = len(given["gradients"]), given["kind"] == DECADES
    ours = _update(make_combiner("cagrad", c=given["alpha"]), given)
    tight = 1e-5 if num_tasks == 2 and far else 1e-6
    yield Comparison(f"K = {num_tasks}, tight", deviation(ours, theirs["gradient_tight"]), tight)
    yield Comparison(f"K = {num_tasks}, published", deviation(ours, theirs["gradient_published"]), 1e-2)


def cagrad_exact(given: Facts, theirs: Facts) -> Comparisons:
    """Theirs for RL divides by 1 + lambda, so directions are compared."""
    far = given["kind"] == DECADES
    ours = _update(make_combiner("cagrad", c=given["c"]), given)

    def gap(name: str) -> float:
        return deviation(ours / ours.norm(), double(theirs[name]) / double(theirs[name]).norm())

    yield Comparison("direction, tight", gap("gradient_tight"), 1e-4 if far else 1e-5)
    if far:
        yield Comparison("direction, norms decades apart: their SLSQP stops", gap("gradient_published"), torch.inf, 0.1)
    else:
        yield Comparison("direction, published", gap("gradient_published"), 1e-4)
    length = deviation(ours, theirs["gradient_tight"])
    yield Comparison("length: theirs over 1 + lambda, ours over 1 + c^2", length, torch.inf, departs=0.1)


def cagrad_fast(given: Facts, theirs: Facts) -> Comparisons:
    num_tasks = len(given["gradients"])
    groups = torch.zeros(given["tasks_per_step"], num_tasks, dtype=torch.float64)
    for row, task in enumerate(given["singles"]):
        groups[row, task] = 1
    groups[-1, given["rest"]] = 1 / len(given["rest"])
    combiner = make_combiner("cagrad_fast", c=given["c"], tasks_per_step=given["tasks_per_step"])
    with patch.object(combiner, "draw_groups", lambda _: groups):
        ours = _update(combiner, given)
    yield Comparison("tight", deviation(ours, theirs["gradient_tight"]), 1e-4)
    yield Comparison("published", deviation(ours, theirs["gradient_published"]), 1e-4)


def mgda(given: Facts, theirs: Facts) -> Comparisons:
    two = len(given["gradients"]) == 2
    ours = _update(make_combiner("mgda"), given)
    for tag in ("published", "tight"):
        if f"gradient_{tag}" not in theirs:  # out of iterations, so it returned nothing
            continue
        other = double(theirs[f"gradient_{tag}"])
        yield Comparison("theirs shorter than ours by", max(0.0, float(ours.norm() / other.norm() - 1)), 1e-13)
        gap = deviation(ours, other)
        if two and any(min(abs(w - 0.999), abs(w - 0.001)) < 1e-9 for w in theirs[f"weights_{tag}"]):
            yield Comparison("K = 2, one gradient is the answer: they keep 0.001 of the other", gap, torch.inf, 0.1)
        elif two:
            yield Comparison("K = 2", gap, 1e-13)
        elif tag == "tight":
            yield Comparison("K > 2, tight", gap, 1e-6)
        else:
            yield Comparison("K > 2, published: at most 20 iterations", gap, torch.inf, departs=0.01)


def pcgrad_(given: Facts, theirs: Facts) -> Comparisons:
    orders = torch.tensor([[*row, task] for task, row in enumerate(given["orders"])])
    with patch.object(pcgrad, "random_orders", lambda like, generator: orders):
        ours = _update(make_combiner("pcgrad"), given)
    yield Comparison("orders given", deviation(ours, theirs["gradient"]), 1e-7)


def graddrop_(given: Facts, theirs: Facts) -> Comparisons:
    with patch.object(graddrop, "uniform", lambda *_: double(given["uniforms"])):
        ours = _update(make_combiner("graddrop"), given)
    yield Comparison("uniform numbers given", deviation(ours, theirs["gradient"]), 1e-14)


def imtl_g(given: Facts, theirs: Facts) -> Comparisons:
    ours = make_combiner("imtl_g")(double(given["gradients"]))
    allowed = 1e-9 if given["kind"] == DECADES else 1e-11
    yield Comparison("gradient", deviation(ours.gradient, theirs["gradient"]), allowed)
    yield Comparison("weights", deviation(ours.weights, theirs["weights"]), allowed)


def imtl(given: Facts, theirs: Facts) -> Comparisons:
    combiner = make_combiner("imtl", learning_rate=given["learning_rate"])
    allowed = 1e-8 if given["kind"] == DECADES else 1e-11
    for step, expected in zip(given["steps"], theirs["steps"], strict=True):
        ours = combiner(double(step["gradients"]), double(step["losses"])).gradient
        yield Comparison("gradient", deviation(ours, expected["gradient"]), allowed)
        scales = combiner.state_dict()["log_scales"]["numbers"]
        yield Comparison("log scales after the step", deviation(scales, expected["log_scales"]), 1e-12)


def nash_mtl(given: Facts, theirs: Facts) -> Comparisons:
    combiner = make_combiner("nash_mtl", max_norm=given["max_norm"])
    for step, expected in zip(given["steps"], theirs["steps"], strict=True):
        G = double(step["gradients"])
        ours = combiner(G)
        bargain = ours.extras["bargaining_weights"]
        yield Comparison("our |a_i (M a)_i - 1|", float((bargain * (G @ (G.T @ bargain)) - 1).abs().max()), 1e-9)
        gap = deviation(ours.gradient, expected["gradient"])
        if expected["residual"] < 1e-6:
            yield Comparison("gradient", gap, 2e-6)  # their clip adds 1e-6 to the length
            yield Comparison("weights of the bargain", deviation(bargain, expected["bargaining_weights"]), 1e-6)
        else:
            yield Comparison("gradient, where theirs stopped early or failed", gap, torch.inf, departs=1e-3)


def _sdmgrad(ours: Tensor, theirs: Facts) -> Comparisons:
    gap = deviation(ours, theirs["gradient"])
    yield Comparison("their steps until they converge", gap, 1e-4 if theirs["gap"] > 1e-9 else 1e-6)
    published = deviation(ours, theirs["gradient_published"])
    yield Comparison("their twenty steps", published, torch.inf, departs=0.1)


def sdmgrad(given: Facts, theirs: Facts) -> Comparisons:
    yield from _sdmgrad(_update(make_combiner("sdmgrad", lam=given["lam"]), given), theirs)


def sdmgrad_os(given: Facts, theirs: Facts) -> Comparisons:
    combiner = make_combiner("sdmgrad_os", lam=given["lam"])
    drawn = torch.eye(len(given["gradients"]), dtype=torch.float64)[given["chosen"]]
    with patch.object(combiner, "draw_groups", lambda _: drawn):
        ours = _update(combiner, given)
    yield from _sdmgrad(ours, theirs)


def adatask(given: Facts, theirs: Facts) -> Comparisons:
    combiner = make_combiner("adatask", betas=tuple(given["betas"]), eps=given["eps"], reduction="sum")
    start = double(given["parameters"])
    parameters = start
    for step, expected in zip(given["steps"], theirs["steps"], strict=True):
        parameters = parameters - given["lr"] * combiner(double(step["gradients"])).gradient
        moved = double(expected["parameters"]) - start
        yield Comparison("parameters", deviation(parameters, expected["parameters"]), 1e-13)
        yield Comparison("their change since the start", deviation(parameters - start, moved), 1e-10)
