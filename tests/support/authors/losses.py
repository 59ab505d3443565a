"""Comparisons of the loss-weighting methods with their authors' code; see `authors`."""

from __future__ import annotations

from torch import Tensor

from mtrl_imgrad.combiners import Combiner, make_combiner
from mtrl_imgrad.combiners.methods.cotbal import balance_scores, cotbal_weights
from tests.support.authors.numbers import Comparison, Comparisons, Facts, deviation, double


def famo(given: Facts, theirs: Facts) -> Comparisons:
    combiner = make_combiner("famo", learning_rate=given["w_lr"], weight_decay=given["gamma"])
    expected = {row["step"]: row for row in theirs["steps"]}
    for step, (before, after) in enumerate(zip(given["losses"], given["losses_after"], strict=True)):
        weights = combiner.weights(double(before)).values
        combiner.after_step(double(after))
        if step in expected:
            yield Comparison("weights", deviation(weights, expected[step]["weights"]), 1e-12)
            logits = combiner.state_dict()["logits"]["numbers"]
            yield Comparison("logits after the step", deviation(logits, expected[step]["logits_after"]), 1e-12)


def igb_v1(given: Facts, theirs: Facts) -> Comparisons:
    combiner = make_combiner("igb_v1", window=given["window"], reduction="sum")
    for losses, expected in zip(given["losses"], theirs["steps"], strict=True):
        weights = combiner.weights(double(losses)).values
        yield Comparison("weights over losses", deviation(weights, expected["gradient_in_losses"]), 1e-13)


BILB4MTL = {
    "celeba": {},
    "nyuv2": {"scale": "initial"},
    "cityscapes": {"gap": "plain"},
    "quantum_chemistry": {"scale": "log_initial"},
}
"""Arguments for the code of each data set, beside the router."""


def _set_numbers(combiner: Combiner, numbers: Tensor) -> None:
    state = combiner.state_dict()
    state["numbers"]["numbers"] = numbers
    combiner.load_state_dict(state)


def bilb4mtl(given: Facts, theirs: Facts) -> Comparisons:
    arguments = {"lam": given["lam"], "router": given["router"], **BILB4MTL[given["code"]]}
    code = f"{given['code'].replace('_', ' ')}, {given['router']}"
    combiner = make_combiner("bilb4mtl", **arguments)
    if "sequence_of_losses" in given:
        for losses, expected in zip(given["sequence_of_losses"], theirs["steps"], strict=True):
            weights = combiner.weights(double(losses)).values
            yield Comparison(f"{code}: weights, steps", deviation(weights, expected["gradient_in_losses"]), 1e-12)
            numbers = combiner.state_dict()["numbers"]["numbers"]
            yield Comparison(f"{code}: logits, steps", deviation(numbers, expected["logits_after"]), 1e-12)
        return
    # A first step with the initial losses; then the logits, without moments, at a rate that shows their gradient.
    combiner.weights(double(given.get("initial_losses", given["losses"])))
    _set_numbers(combiner, double(given["logits"]))
    before = combiner.state_dict()["numbers"]["means"]
    weights = combiner.weights(double(given["losses"])).values
    moments = combiner.state_dict()["numbers"]["means"]
    gradient = (moments - 0.9 * before) / 0.1  # of Adam's first moment
    yield Comparison(f"{code}: weights", deviation(weights, theirs["gradient_in_losses"]), 1e-12)
    gap = float((gradient - double(theirs["gradient_in_logits"])).norm())
    size = float(double(theirs["gradient_in_losses"]).norm() * double(given["losses"]).norm())
    yield Comparison(f"{code}: gradient of the logits", gap / size, 1e-12)


def cotbal(given: Facts, theirs: Facts) -> Comparisons:
    if "mini" in given:
        ours = cotbal_weights(given["mini"], given["single"], temperature=given["temperature"])
        yield Comparison("weights from tables", deviation(ours, theirs["weights"]), 1e-12)
        return
    # Their script takes V(mini) / V(i + mini) as "difficulties", and one less it.
    out, into, ratios = (double(given[name]) for name in ("out_contributions", "in_contributions", "difficulties"))
    balanced = balance_scores(out, into, 1 - ratios, temperature=given["temperature"], shares=(0.25, 0.25, 0.5))
    yield Comparison("weights from their own contributions", deviation(balanced, theirs["weights"]), 1e-12)
