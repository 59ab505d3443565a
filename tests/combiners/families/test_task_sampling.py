"""Groups of tasks in place of all of them, in CAGrad-Fast and IMGrad."""

import pytest
import torch
from scipy.optimize import minimize

from mtrl_imgrad.combiners import CAGrad, CAGradFast, IMGrad, Status
from mtrl_imgrad.errors import ArgumentError
from tests.support.combiners.gradient_problems import families, gramians

G = families(6, 1, seed=4)["conflict"][0]


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_every_task_is_in_one_group_and_the_mean_stays(rows):
    sampler = CAGradFast(tasks_per_step=rows)
    seen = torch.zeros(6, dtype=torch.float64)
    for _ in range(50):
        groups = sampler.draw_groups(6)
        assert groups.shape == (rows, 6)
        torch.testing.assert_close(groups.sum(1), torch.ones(rows, dtype=torch.float64))
        assert torch.equal((groups > 0).sum(0), torch.ones(6, dtype=torch.int64))
        shares = (groups > 0).double().mean(1)
        torch.testing.assert_close(shares @ groups, torch.full((6,), 1 / 6, dtype=torch.float64))
        seen += groups[0]
    assert (seen > 0).all(), "every task is drawn as a single one at some time"


def published(rows: torch.Tensor, shares: torch.Tensor, c: float) -> torch.Tensor:
    """CAGrad's update for rows that stand for ``shares`` of the tasks, by a general solver."""
    mean = shares @ rows
    scale = rows.norm(dim=1).mean()
    M, b = (rows @ rows.T / scale**2).numpy(), (rows @ mean / scale**2).numpy()
    radius = c * float(mean.norm() / scale)

    def objective(w):
        return b @ w + radius * max(w @ M @ w, 1e-30) ** 0.5

    n = len(rows)
    best = min(
        (
            minimize(
                objective,
                start,
                bounds=[(0, 1)] * n,
                constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
                options={"ftol": 1e-15, "maxiter": 1000},
            )
            for start in [torch.full((n,), 1 / n).numpy(), *torch.eye(n).numpy()]
        ),
        key=lambda found: found.fun,
    )
    g_w = torch.tensor(best.x) @ rows
    return mean + c * mean.norm() * g_w / g_w.norm()


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_the_update_is_that_of_the_published_problem_on_the_groups(rows):
    for seed in range(3):
        groups = CAGradFast(tasks_per_step=rows, seed=seed).draw_groups(6)
        expected = published(groups @ G, (groups > 0).double().mean(1), 0.5) / 1.5
        found = CAGradFast(0.5, tasks_per_step=rows, seed=seed)(G)
        torch.testing.assert_close(found.gradient, expected, rtol=1e-4, atol=1e-4 * float(expected.norm()))
        torch.testing.assert_close(found.weights @ G, found.gradient)


@pytest.mark.parametrize(
    "make", [lambda n: CAGradFast(0.5, tasks_per_step=n, rescale=False), lambda n: IMGrad(0.5, tasks_per_step=n)]
)
def test_with_as_many_rows_as_tasks_it_is_the_method_itself(make):
    whole = CAGrad(0.5, rescale=False) if isinstance(make(2), CAGradFast) else IMGrad(0.5)
    for rows in (6, 7):
        assert torch.equal(make(rows)(G).gradient, whole(G).gradient)
    assert not torch.allclose(make(3)(G).gradient, whole(G).gradient)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("make", [CAGradFast, IMGrad])
def test_backward_differentiates_the_groups_only_and_agrees(make, reduction):
    parameters = torch.linspace(-1, 1, G.shape[1], dtype=torch.float64).requires_grad_()
    head = torch.ones(6, dtype=torch.float64, requires_grad=True)
    losses = list(head * (G @ parameters))
    arguments = {"tasks_per_step": 3, "seed": 5, "reduction": reduction}
    found = make(**arguments).backward(losses, [parameters], [head])
    expected = make(**arguments)(G)
    torch.testing.assert_close(parameters.grad, expected.gradient)
    torch.testing.assert_close(found.weights, expected.weights)
    torch.testing.assert_close(head.grad, (G @ parameters).detach())
    parameters.grad = head.grad = None
    losses = list(head * (G @ parameters))
    make(**arguments).backward(losses, [parameters], [head], heads="weighted")
    torch.testing.assert_close(head.grad, expected.weights * (G @ parameters).detach())


@pytest.mark.parametrize("make", [CAGradFast, IMGrad])
def test_draws_continue_from_a_state(make):
    combiner, other = make(tasks_per_step=3, seed=1), make(tasks_per_step=3, seed=2)
    combiner(G)
    other.load_state_dict(combiner.state_dict())
    for _ in range(5):
        assert torch.equal(other(G).gradient, combiner(G).gradient)


@pytest.mark.parametrize("make", [CAGradFast, IMGrad])
def test_weights_are_kept_together_with_groups(make):
    combiner = make(tasks_per_step=3, update_every=2)
    parameters = torch.ones(G.shape[1], dtype=torch.float64, requires_grad=True)
    first = combiner.backward(list(G @ parameters), [parameters])
    assert not combiner.needs_jacobian()
    second = combiner.backward(list(G @ parameters), [parameters])
    assert torch.equal(first.weights, second.weights)
    assert combiner.needs_jacobian()


def test_imgrad_on_groups_follows_their_mean():
    """Two tasks and one group of the rest: weights of the group's tasks are equal."""
    M = gramians(families(6, 8)["common"])
    found = IMGrad(0.4, tasks_per_step=3, rescale=False).weights(M)
    groups = IMGrad(tasks_per_step=3).draw_groups(6)
    together = groups[-1] > 0
    values = found.values[:, together]
    torch.testing.assert_close(values, values[:, :1].expand_as(values))
    assert (found.status_code == Status.SOLVED).all()
    difference = found.values - 1 / 6
    length = (difference * (M @ difference[..., None])[..., 0]).sum(-1).sqrt()
    torch.testing.assert_close(length, 0.4 * M.mean((1, 2)).sqrt())


@pytest.mark.parametrize("rows", [1, 0, 2.5, True, "3"])
def test_a_number_of_rows_is_an_integer_from_two(rows):
    for make in (CAGradFast, IMGrad):
        with pytest.raises(ArgumentError, match="tasks_per_step must be"):
            make(tasks_per_step=rows)
    with pytest.raises(ArgumentError, match="tasks_per_step must be"):
        CAGradFast(tasks_per_step=None)
