"""What every further Gramian method must do: edge cases, blocks, dtypes, batches, and laws that hold for all."""

from __future__ import annotations

import pytest
import torch

from mtrl_imgrad.combiners import Status, make_combiner
from mtrl_imgrad.combiners.solvers import active_set, power_fair
from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from tests.support.combiners.gradient_problems import families, gramians

METHODS = {
    "pcgrad": {"shuffle": False},
    "nash_mtl": {},
    "fairgrad": {"alpha": 2.0},
    "imtl_g": {},
    "aligned_mtl": {},
    "config": {},
    "upgrad": {},
}
"""Names, with the arguments that make an answer a function of the gradients alone."""
DILUTED = {"pcgrad": 1 / 3, "aligned_mtl": 0.0, "config": 0.0, "upgrad": 1 / 3}
"""Methods in the unit of the mean over all tasks, and the weight that a zero gradient keeps."""
ORDERED = {"pcgrad"}
"""Methods whose answer depends on how the tasks are numbered."""
UNIT_POWER = {"nash_mtl": 0, "fairgrad": -1 / 3}
"""By which power of the gradients' unit an update grows, where it is not 1."""
names = pytest.mark.parametrize("name", METHODS)


def make(name, **arguments):
    return make_combiner(name, **METHODS[name], **arguments)


def rows(num_tasks=4, width=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tasks, width, generator=generator, dtype=torch.float64)


@names
@pytest.mark.parametrize("num_tasks", [1, 2, 5])
def test_blocks_give_what_one_matrix_gives(name, num_tasks):
    G = rows(num_tasks)
    whole, parts = make(name)(G), make(name)([G[:, :6].reshape(-1, 2, 3), G[:, 6], G[:, 7:]])
    torch.testing.assert_close(torch.cat([part.reshape(-1) for part in parts.gradient]), whole.gradient)
    torch.testing.assert_close(parts.weights @ G, whole.gradient)
    assert whole.status == Status.SOLVED


@names
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_update_has_the_dtype_of_the_gradients_and_the_weights_are_double(name, dtype):
    G = rows().to(dtype).requires_grad_()
    found = make(name)(G * 2)
    assert found.gradient.dtype == dtype
    assert found.weights.dtype == torch.float64
    assert not found.gradient.requires_grad


@names
def test_sum_multiplies_by_the_number_of_tasks(name):
    torch.testing.assert_close(make(name, reduction="sum")(rows()).gradient, 4 * make(name)(rows()).gradient)


@names
def test_all_gradients_zero(name):
    found = make(name)(torch.zeros(4, 3))
    assert found.status == Status.ZERO_GRADIENTS
    torch.testing.assert_close(found.weights, torch.full((4,), 0.25).double())
    assert (found.gradient == 0).all()
    assert found.residual == 0


@names
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_non_finite_gramian_gives_nan_and_leaves_its_neighbours_alone(name, bad):
    M = torch.eye(3)
    M[0, 1] = M[1, 0] = bad
    found = make(name).weights(torch.stack([torch.eye(3), M, torch.zeros(3, 3)]))
    assert found.values[1].isnan().all()
    assert found.residual[1].isnan()
    assert found.status_code.tolist() == [Status.SOLVED, Status.NON_FINITE, Status.ZERO_GRADIENTS]
    assert found.values[[0, 2]].isfinite().all()
    torch.testing.assert_close(found.values[0], make(name).weights(torch.eye(3)).values)
    assert all(extra[1].isnan().all() for extra in found.extras.values())


@names
def test_non_finite_gradients_are_refused_or_reported(name):
    G = torch.ones(3, 2)
    G[1, 0] = torch.nan
    assert make(name).combine(G).status == Status.NON_FINITE
    with pytest.raises(NonFiniteError, match="task 1"):
        make(name)(G)


@names
@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 0)])
def test_a_gramian_must_be_square(name, shape):
    with pytest.raises(ArgumentError, match="gramian must be"):
        make(name).weights(torch.ones(shape))


@names
@pytest.mark.parametrize("seed", range(5))
def test_a_zero_gradient_is_left_out(name, seed):
    G = rows(3, seed=seed)
    padded = torch.cat([G[:1], torch.zeros(1, 12, dtype=torch.float64), G[1:]])
    found, plain = make(name)(padded), make(name)(G)
    share = 3 / 4 if name in DILUTED else 1.0
    torch.testing.assert_close(found.gradient, share * plain.gradient, rtol=1e-9, atol=1e-11)
    assert found.weights[1].item() == pytest.approx(DILUTED.get(name, 0.0) * 3 / 4)
    assert found.status == Status.SOLVED


@names
@pytest.mark.parametrize("num_tasks", [2, 3, 7])
def test_the_order_of_the_tasks_does_not_matter(name, num_tasks):
    if name in ORDERED:
        pytest.skip("depends on the order by its definition")
    for seed in range(5):
        G = rows(num_tasks, seed=seed)
        order = torch.randperm(num_tasks, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(make(name)(G[order]).gradient, make(name)(G).gradient, rtol=1e-8, atol=1e-10)


@names
@pytest.mark.parametrize("exponent", [-24, -9, 9, 24])
def test_the_unit_of_the_gradients_is_the_unit_of_the_update(name, exponent):
    G = rows(5)
    grown = 10.0 ** (exponent * UNIT_POWER.get(name, 1))
    found = make(name)(G * 10.0**exponent)
    torch.testing.assert_close(found.gradient / grown, make(name)(G).gradient, rtol=1e-9, atol=1e-11)
    assert found.status == Status.SOLVED


@names
def test_turning_parameter_space_turns_the_update(name):
    turn = torch.linalg.qr(rows(12, seed=1))[0]
    torch.testing.assert_close(make(name)(rows() @ turn).gradient, make(name)(rows()).gradient @ turn)


@names
@pytest.mark.parametrize("family", families(2, 1))
@pytest.mark.parametrize("num_tasks", [2, 5, 20])
def test_every_answer_is_finite_and_solved_or_says_not(name, family, num_tasks):
    found = make(name).weights(gramians(families(num_tasks, 5, seed=5)[family]))
    assert found.values.isfinite().all()
    assert found.residual.isfinite().all()
    assert (found.status_code <= Status.INACCURATE).all()
    assert (found.residual[found.status_code == Status.SOLVED] < 1e-6).all()


@names
@pytest.mark.parametrize("family", ["independent", "conflict", "imbalance 1e6", "common"])
def test_a_batch_gives_what_its_members_give(name, family):
    M = gramians(families(5, 6)[family])
    found = make(name).weights(M.view(2, 3, 5, 5))
    alone = torch.stack([make(name).weights(one).values for one in M])
    torch.testing.assert_close(found.values.view(6, 5), alone, rtol=1e-8, atol=1e-12)
    mapped = torch.vmap(lambda one: make(name).weights(one).values)(M)
    torch.testing.assert_close(mapped, alone, rtol=1e-8, atol=1e-12)


@names
@pytest.mark.compiled
def test_one_graph_is_compiled(name, monkeypatch):
    """No graph breaks, so no branch on a value. Fewer steps than by default keep the test short."""
    monkeypatch.setattr(active_set, "_step_limit", lambda num_tasks, can_stop: 3)
    monkeypatch.setattr(power_fair, "_step_limit", lambda can_stop: 15)
    combiner = make(name)
    compiled = torch.compile(lambda G: combiner.combine(G).gradient, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(rows(3)), combiner.combine(rows(3)).gradient)
