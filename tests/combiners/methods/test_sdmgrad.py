"""SDMGrad: the problem written out, its limits, two halves of a batch against the published steps, sampled tasks."""

from __future__ import annotations

import cvxpy as cp
import pytest
import torch
from torch import nn

from mtrl_imgrad.combiners import SDMGrad, SDMGradOS, Status, make_combiner
from mtrl_imgrad.combiners.methods.sdmgrad import direction_oriented
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from mtrl_imgrad.gradients import RowGradients, combine_rows
from tests.support.combiners.gradient_problems import families, gramians


def rows(seed, num_tasks=4, width=7):
    return torch.randn(num_tasks, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("lam", [0.1, 0.6, 3.0])
def test_a_conic_solver_finds_no_better_point(lam):
    for G in families(5, 2, seed=1)["conflict"]:
        w = cp.Variable(5)
        matrix = G.numpy() / G.norm().item()
        problem = cp.Problem(cp.Minimize(cp.norm(matrix.T @ w + lam * matrix.mean(0))), [w >= 0, cp.sum(w) == 1])
        best = problem.solve(solver="CLARABEL")
        found = SDMGrad(lam)(G)
        assert ((1 + lam) * found.gradient.norm() / G.norm()).item() == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("family", list(families(2, 1)))
@pytest.mark.parametrize("lam", [0.3, 5.0])
def test_every_answer_meets_the_conditions_of_optimality(family, lam):
    """For all i: (g_i + lam g0) . d >= |d|^2 (1 + lam), from the gradients themselves."""
    for G in families(6, 3)[family]:
        found = SDMGrad(lam).weights(G @ G.T)
        assert found.status == Status.SOLVED
        assert found.residual < 1e-9
        d = found.values @ G
        shifted = (G + lam * G.mean(0)) / (1 + lam)
        assert ((shifted @ d - d @ d) / G.norm(dim=1).max() ** 2).min() > -1e-9


def test_its_limits_are_mgda_and_the_mean():
    for family, M in ((name, gramians(G)) for name, G in families(5, 3).items()):
        zero = SDMGrad(0).weights(M).values - make_combiner("mgda").weights(M).values
        far = SDMGrad(1e6).weights(M).values - 0.2
        for difference in (zero, far):
            length = (difference * (M @ difference[..., None])[..., 0]).sum(-1).clamp_min(0).sqrt()
            assert (length < 1e-5 * M.diagonal(dim1=-2, dim2=-1).sqrt().amax(-1)).all(), family


def test_a_shifted_gradient_that_vanishes_is_the_answer():
    """g_0 = (3, 0), g_1 = (-1, 0), lam = 1: g_1 + g0 = 0, so w = (0, 1) and d = 0."""
    G = torch.tensor([[3.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    found = SDMGrad(1)(G)
    torch.testing.assert_close(found.extras["simplex_weights"], torch.tensor([0.0, 1.0]).double())
    torch.testing.assert_close(found.gradient, torch.zeros(2, dtype=torch.float64))
    assert found.status == Status.SOLVED


def test_a_task_with_a_zero_gradient_keeps_its_share_of_the_mean():
    G = rows(0)
    G[1] = 0
    assert SDMGrad(0.3)(G).weights[1].item() == pytest.approx(0.3 / 4 / 1.3)


def test_batches_and_vmap_agree():
    M = torch.stack([rows(seed) @ rows(seed).T for seed in range(4)])
    one_by_one = torch.stack([SDMGrad().weights(one).values for one in M])
    torch.testing.assert_close(SDMGrad().weights(M).values, one_by_one)
    torch.testing.assert_close(torch.vmap(lambda one: SDMGrad().weights(one).values)(M), one_by_one)


# ------------------------------------------------------------------ two halves


def published_steps(A, w, lam):
    """Twenty projected gradient steps of the authors', with a projection by bisection."""

    def project(u):
        low, high = u.min() - 1, u.max()
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if (u - middle).clamp_min(0).sum() > 1 else (low, middle)
        return (u - low).clamp_min(0)

    A = A / (A.diagonal().clamp_min(0).sqrt().mean() ** 2)
    velocity = torch.zeros_like(w)
    for _ in range(20):
        velocity = 0.5 * velocity + A @ (w + lam / len(w))
        w = project(w - 10.0 * velocity)
    return w


def test_halves_follow_the_published_steps_from_where_they_were():
    combiner, w = SDMGrad(0.3, halves=True), torch.full((4,), 0.25, dtype=torch.float64)
    for seed in range(4):
        a, b = rows(seed), rows(seed) + 0.3 * rows(seed + 50)
        w = published_steps(a @ b.T, w, 0.3)
        found = combiner(torch.stack([a, b], 1).flatten(0, 1))
        values = (w + 0.3 / 4) / 1.3
        torch.testing.assert_close(found.extras["simplex_weights"], w, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(found.gradient, values @ (a + b), rtol=1e-6, atol=1e-8)


def test_the_cross_gramian_is_unbiased_where_the_gramian_is_not():
    """Two tasks of gradient zero but noise: neither should win. One batch prefers the quiet task, halves do not."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.tensor([1.0, 3.0], dtype=torch.float64)[:, None]
    shares = {False: [], True: []}
    for _ in range(200):
        a, b = (noise * torch.randn(2, 400, generator=generator, dtype=torch.float64) for _ in range(2))
        shares[False].append(SDMGrad(0)((a + b) / 2).weights[0])
        shares[True].append(SDMGrad(0, halves=True)(torch.stack([a, b], 1).flatten(0, 1) / 2).weights[0])
    assert torch.stack(shares[False]).mean() > 0.85
    assert abs(torch.stack(shares[True]).mean() - 0.5) < 0.15


def test_backward_with_two_halves_of_a_batch():
    torch.manual_seed(0)
    trunk, heads = nn.Linear(3, 6), nn.ModuleList(nn.Linear(6, 1) for _ in range(3))
    inputs, targets = torch.randn(3, 8, 3), torch.randn(3, 8, 1)

    def loss(task, half):
        x, y = inputs[task].chunk(2)[half], targets[task].chunk(2)[half]
        return 0.5 * ((heads[task](trunk(x).tanh()) - y) ** 2).mean()

    combiner = SDMGrad(halves=True)
    losses = [loss(task, half) for task in range(3) for half in range(2)]
    found = combiner.backward(losses, trunk.parameters(), heads.parameters())
    G = torch.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss(task, half), list(trunk.parameters()))])
            for task in range(3)
            for half in range(2)
        ]
    )
    expected = SDMGrad(halves=True)(G)
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in trunk.parameters()]), expected.gradient)
    assert found.weights.shape == (6,)
    whole = ((heads[1](trunk(inputs[1]).tanh()) - targets[1]) ** 2).mean()  # a head sees its task's whole loss
    torch.testing.assert_close(heads[1].weight.grad, torch.autograd.grad(whole, heads[1].weight)[0])
    kept = combiner.state_dict()["weights"]
    losses = [loss(task, half) for task in (0, 2) for half in range(2)]
    combiner.backward(losses, trunk.parameters(), heads.parameters(), tasks=[0, 1, 4, 5])
    assert torch.equal(combiner.state_dict()["weights"][1], kept[1])


def test_rows_that_are_no_pairs_are_refused():
    combiner = SDMGrad(halves=True)
    with pytest.raises(ArgumentError, match="two rows a task"):
        combiner(rows(0, 3))
    with pytest.raises(ArgumentError, match="two rows a task"):
        combiner.weights(torch.eye(4).expand(2, 4, 4))
    for tasks in ([1, 2, 3, 4], [0, 2, 1, 3], [1, 0, 2, 3]):
        with pytest.raises(ArgumentError, match="2 k and 2 k \\+ 1"):
            combiner(rows(0), tasks=tasks)


def test_training_by_rows_has_one_row_a_task_and_refuses():
    rows_of = RowGradients(torch.ones(4), {"weight": rows(0)}, {}, ())
    with pytest.raises(ArgumentError, match="asks for 2 rows a task, got 1"):
        combine_rows(SDMGrad(halves=True), rows_of)


# ------------------------------------------------------------------ sampled tasks


def test_sampling_applies_sdmgrad_to_the_tasks_drawn():
    combiner, plain = SDMGradOS(2, seed=3), SDMGrad(0.6)
    sizes = []
    for seed in range(30):
        G = rows(seed, 6)
        found = combiner(G)
        drawn = found.weights.nonzero()[:, 0].tolist()
        sizes.append(len(drawn))
        torch.testing.assert_close(found.gradient, plain(G[drawn]).gradient)
    assert 1 < sum(sizes) / 30 < 3
    assert len(set(sizes)) > 1


def test_with_rows_of_zeros_the_exact_answer_ignores_tasks_that_agree():
    """Why the successor repository's form is not offered: minimise |g_w + lam g0| over all K rows."""
    drawn = rows(1, 2).abs()
    G = torch.cat([drawn, torch.zeros(3, drawn.shape[1], dtype=torch.float64)])
    lam, mean = 0.6, G.mean(0)
    w = cp.Variable(5, nonneg=True)
    shifted = (G + lam * mean).numpy()
    cp.Problem(cp.Minimize(cp.sum_squares(shifted.T @ w)), [cp.sum(w) == 1]).solve(solver=cp.CLARABEL)
    torch.testing.assert_close(torch.from_numpy(w.value) @ (G + lam * mean), lam * mean, rtol=1e-4, atol=1e-6)


def test_all_tasks_are_drawn_where_there_are_few():
    torch.testing.assert_close(SDMGradOS(4)(rows(0)).weights, SDMGrad(0.6)(rows(0)).weights)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_backward_differentiates_only_the_tasks_drawn(reduction):
    torch.manual_seed(0)
    trunk, heads = nn.Linear(3, 6), nn.ModuleList(nn.Linear(6, 1) for _ in range(8))
    inputs = torch.randn(8, 5, 3)
    count = []
    trunk.weight.register_hook(lambda gradient: count.append(1))
    losses = [(heads[k](trunk(inputs[k])) ** 2).mean() for k in range(8)]
    rows_of = [
        torch.cat([g.flatten() for g in torch.autograd.grad(x, list(trunk.parameters()), retain_graph=True)])
        for x in losses
    ]
    count.clear()
    found = SDMGradOS(3, seed=1, reduction=reduction).backward(losses, trunk.parameters(), heads.parameters())
    drawn = found.weights.nonzero()[:, 0].tolist()
    assert len(count) == len(drawn) < 8
    factor = 8 if reduction == "sum" else 1
    expected = factor * SDMGrad(0.6)(torch.stack([rows_of[k] for k in drawn])).gradient
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in trunk.parameters()]), expected)
    assert all(head.weight.grad is not None for head in heads)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SDMGrad(-1), "lam must be"),
        (lambda: SDMGrad(float("inf")), "lam must be"),
        (lambda: SDMGradOS(0), "num_sampled must be"),
        (lambda: SDMGradOS(lam="x"), "lam must be"),
        (lambda: SDMGradOS(seed=-1), "seed must be"),
    ],
)
def test_a_bad_value_names_the_argument(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_a_large_lambda_keeps_its_proof():
    problem = normalize(gramians(families(5, 4)["conflict"]))
    assert (direction_oriented(problem, 1e3).residual < 1e-9).all()
    with pytest.raises(NonFiniteError):
        SDMGrad()(rows(0) * torch.nan)
