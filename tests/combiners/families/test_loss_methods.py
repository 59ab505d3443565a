"""Every loss-weighting method against its paper's total loss: a small network is trained both ways."""

from __future__ import annotations

import itertools

import pytest
import torch

from mtrl_imgrad.combiners import Combiner, make_combiner
from tests.support.combiners import loss_oracles
from tests.support.combiners.examples import example_arguments, make_example

CASES = {
    "si": ("si", {}, lambda: loss_oracles.SI()),
    "gls": ("gls", {}, lambda: loss_oracles.GLS()),
    "rlw": ("rlw", {"seed": 5}, lambda: loss_oracles.RLW(5)),
    "uw": ("uw", {"learning_rate": 0.1}, lambda: loss_oracles.UW(0.0, 0.1)),
    "uw, another start": ("uw", {"initial": -0.5}, lambda: loss_oracles.UW(-0.5, 0.025)),
    "dwa": ("dwa", {"window": 3, "temperature": 0.5}, lambda: loss_oracles.DWA(3, 0.5)),
    "imtl_l": ("imtl_l", {"learning_rate": 0.1}, lambda: loss_oracles.IMTLL(0.0, 0.1)),
    "famo": ("famo", {"learning_rate": 0.3}, lambda: loss_oracles.FAMO(0.3, 1e-3, 0.0)),
    "famo, bound": (
        "famo",
        {"weight_decay": 0.1, "lower_bound": -2.0},
        lambda: loss_oracles.FAMO(0.025, 0.1, -2.0),
    ),
    "igb_v1": ("igb_v1", {"window": 3}, lambda: loss_oracles.IGBv1(3)),
    "stch": ("stch", {"window": 2, "warm_up": 2, "mu": 0.3}, lambda: loss_oracles.STCH(2, 2, 0.3)),
    "stch, no warm-up": ("stch", {"window": 1, "warm_up": 0}, lambda: loss_oracles.STCH(1, 0, 1.0)),
    "cotbal": (
        "cotbal",
        example_arguments("cotbal", 3) | {"temperature": 0.5},
        lambda: loss_oracles.CoTBal(*example_arguments("cotbal", 3).values(), 0.5),
    ),
}
for router in ("sigmoid", "relu_sigmoid", "softmax", "clamped_softmax"):
    for gap, scale in (("weighted", "none"), ("plain", "none"), ("weighted", "initial"), ("weighted", "log_initial")):
        given = {"lam": 0.2, "learning_rate": 0.1, "router": router, "gap": gap, "scale": scale}
        CASES[f"bilb4mtl {router} {gap} {scale}"] = (
            "bilb4mtl",
            given,
            lambda given=given: loss_oracles.BiLB4MTL(*given.values()),
        )


class Problem:
    """Three regressions on a shared layer, each with a head."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.trunk = (normal(4, 5) / 2).requires_grad_()
        self.heads = (normal(3, 5) / 2).requires_grad_()
        self.inputs, self.targets = normal(7, 4), normal(3, 7) * torch.tensor([[1.0], [2.0], [0.5]])
        self.optimizer = torch.optim.SGD([self.trunk, self.heads], lr=0.02)

    def losses(self) -> torch.Tensor:
        outputs = (self.inputs @ self.trunk).tanh() @ self.heads.T
        return (outputs.T - self.targets).square().mean(1)

    def train_ours(self, combiner: Combiner, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            combiner.backward(self.losses(), [self.trunk], [self.heads], heads="weighted")
            self.optimizer.step()
            with torch.no_grad():
                combiner.after_step(self.losses())

    def train_oracle(self, oracle: loss_oracles.Oracle, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            oracle.total(self.losses()).backward()
            self.optimizer.step()
            with torch.no_grad():
                losses = self.losses()
            oracle.after(losses)


@pytest.mark.parametrize("case", CASES)
def test_a_network_learns_what_the_papers_loss_teaches_it(case):
    name, arguments, make_oracle = CASES[case]
    oracle, ours, plain = make_oracle(), Problem(), Problem()
    ours.train_ours(make_combiner(name, **arguments, reduction=oracle.reduction), steps=15)
    plain.train_oracle(oracle, steps=15)
    assert (ours.trunk - Problem().trunk).abs().max() > 1e-2
    torch.testing.assert_close(ours.trunk, plain.trunk, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(ours.heads, plain.heads, rtol=1e-9, atol=1e-11)


def test_imtl_is_imtl_g_on_the_scaled_losses():
    """Equal projections by a linear system on the gradients of the scaled losses; scales by autograd and torch."""
    combiner, problem = make_combiner("imtl", learning_rate=0.1), Problem()
    s = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([s], lr=0.1)
    for _ in range(10):
        losses = problem.losses()
        scaled = s.exp() * losses
        rows = torch.stack(
            [torch.autograd.grad(loss, problem.trunk, retain_graph=True)[0].flatten() for loss in scaled]
        )
        unit = rows / rows.norm(dim=1, keepdim=True)
        conditions = torch.cat([(unit[:1] - unit[1:]) @ rows.T, torch.ones(1, 3, dtype=torch.float64)])
        v = torch.linalg.solve(conditions, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
        problem.optimizer.zero_grad()
        found = combiner.backward(losses, [problem.trunk], [problem.heads])
        torch.testing.assert_close(problem.trunk.grad.flatten(), v @ rows, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(found.weights, v * s.exp().detach(), rtol=1e-7, atol=1e-9)
        (s.grad,) = torch.autograd.grad((s.exp() * losses.detach() - s).sum(), s)
        optimizer.step()
        problem.optimizer.step()


@pytest.mark.parametrize(("name", "fixed_point"), [("uw", lambda L: 1 / (2 * L)), ("imtl_l", lambda L: 1 / L)])
def test_constant_losses_bring_the_published_weights_to_their_fixed_point(name, fixed_point):
    """UW: s = log L. IMTL-L: e^s L = 1."""
    losses = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    combiner = make_combiner(name, learning_rate=0.1, reduction="sum")
    for _ in range(300):
        found = combiner.weights(losses)
    torch.testing.assert_close(found.values, fixed_point(losses), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["si", "stch", "igb_v1", "uw"])
def test_the_unit_of_a_loss_does_not_matter_where_the_method_says_so(name):
    """Weights times losses stay the same; UW only at its fixed point."""
    losses = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    units = torch.tensor([10.0, 0.1, 3.0], dtype=torch.float64)
    found = []
    for factors in (torch.ones(3), units):
        combiner = make_example(name, 3) if name != "uw" else make_combiner("uw", learning_rate=0.1)
        for step in range(400 if name == "uw" else 9):
            values = combiner.weights(losses * factors / (1 + (0 if name == "uw" else 0.1 * step))).values
        found.append(values * factors)
    torch.testing.assert_close(found[0], found[1], rtol=1e-3 if name == "uw" else 1e-9, atol=0)


def test_the_geometric_mean_of_many_losses_neither_overflows_nor_vanishes():
    for size in (1e-30, 1e30):
        values = make_combiner("gls").weights(torch.full((400,), size, dtype=torch.float64)).values
        torch.testing.assert_close(values, torch.full((400,), 1 / 400, dtype=torch.float64))


def test_the_worst_task_is_all_that_counts_where_the_maximum_is_sharp():
    combiner = make_combiner("stch", window=1, warm_up=0, mu=1e-3)
    combiner.weights(torch.tensor([1.0, 1.0, 1.0]))
    values = combiner.weights(torch.tensor([0.5, 0.8, 0.2])).values
    torch.testing.assert_close(values, torch.tensor([0.0, 1 / 0.8, 0.0]).double(), rtol=1e-6, atol=1e-9)


def test_random_weights_have_mean_one_over_k_and_are_new_each_time():
    combiner = make_combiner("rlw")
    drawn = torch.stack([combiner.weights(torch.ones(4)).values for _ in range(1000)])
    torch.testing.assert_close(drawn.sum(1), torch.ones(1000).double())
    torch.testing.assert_close(drawn.mean(0), torch.full((4,), 0.25).double(), rtol=0, atol=0.03)
    assert len(drawn.unique(dim=0)) == 1000


def test_famo_takes_the_next_losses_where_nobody_tells_the_losses_after():
    told, untold = make_combiner("famo"), make_combiner("famo")
    steps = torch.rand(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for before, after in itertools.pairwise(steps):
        expected = told.weights(before).values
        told.after_step(after)
        torch.testing.assert_close(untold.weights(before).values, expected)
    assert not torch.allclose(expected * steps[-2], torch.full((3,), (expected * steps[-2]).mean()).double())


def test_famo_weighs_down_the_task_that_improved_most():
    combiner = make_combiner("famo")
    first = combiner.weights(torch.ones(2)).values
    combiner.after_step(torch.tensor([0.5, 0.9]))
    second = combiner.weights(torch.ones(2)).values
    assert second[0] < first[0]
    combiner.after_step(torch.tensor([-1.0, 0.9]))  # below its bound: counts as just above
    assert combiner.weights(torch.ones(2)).values[0] < second[0]
