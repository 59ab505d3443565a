"""One task, no gradient, bad numbers, bad shapes: each has a stated answer."""

from __future__ import annotations

import pytest
import torch

from mtrl_imgrad.combiners import Status, make_combiner
from mtrl_imgrad.errors import ArgumentError, NonFiniteError

GRAMIAN_METHODS = ["mgda", "cagrad", "imgrad"]
METHODS = ["linear_scalarization", *GRAMIAN_METHODS]


@pytest.mark.parametrize(
    ("name", "c", "factor"),
    [
        ("linear_scalarization", None, 1.0),
        ("mgda", None, 1.0),
        ("cagrad", 0.4, 1.4 / 1.16),
        ("imgrad", 0.8, 1.8 / 1.64),
    ],
)
def test_one_task(name, c, factor):
    row = torch.tensor([[3.0, -4.0]])
    found = make_combiner(name, **({} if c is None else {"c": c}))(row)
    torch.testing.assert_close(found.gradient, factor * row[0])
    assert found.status == Status.SOLVED


def test_a_jacobian_without_numbers_is_refused():
    with pytest.raises(ArgumentError, match="jacobian block 0 must hold numbers, it lies on the meta device"):
        make_combiner("imgrad")(torch.ones(2, 3, device="meta"))
    with pytest.raises(ArgumentError, match=r"jacobian block 0 must be a dense tensor, got torch\.sparse_coo"):
        make_combiner("imgrad")(torch.eye(2).to_sparse())


@pytest.mark.parametrize("name", METHODS)
def test_all_gradients_zero(name):
    found = make_combiner(name)(torch.zeros(4, 3))
    assert found.status == (Status.ZERO_GRADIENTS if name in GRAMIAN_METHODS else Status.SOLVED)
    torch.testing.assert_close(found.weights, torch.full((4,), 0.25).double())
    assert found.residual == 0
    assert (found.gradient == 0).all()


@pytest.mark.parametrize("name", GRAMIAN_METHODS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_non_finite_gramian_gives_nan_and_says_so(name, bad):
    M = torch.eye(3)
    M[0, 1] = M[1, 0] = bad
    batch = torch.stack([torch.eye(3), M, torch.zeros(3, 3)])
    found = make_combiner(name).weights(batch)
    assert found.values[1].isnan().all()
    assert found.residual[1].isnan()
    assert found.status_code.tolist() == [Status.SOLVED, Status.NON_FINITE, Status.ZERO_GRADIENTS]
    assert found.status == Status.NON_FINITE
    assert found.values[[0, 2]].isfinite().all()
    assert all(extra[1].isnan().all() for extra in found.extras.values())


@pytest.mark.parametrize("name", METHODS)
def test_combining_unchecked_non_finite_gradients_says_so(name):
    rows = torch.ones(3, 2)
    rows[1, 0] = torch.nan
    assert make_combiner(name).combine(rows).status == Status.NON_FINITE


@pytest.mark.parametrize("name", METHODS)
def test_a_call_refuses_non_finite_gradients_and_names_the_task(name):
    rows = torch.ones(3, 2)
    rows[1, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="task 1"):
        make_combiner(name)(rows)


@pytest.mark.parametrize("name", METHODS)
def test_one_zero_gradient_keeps_its_base_weight(name):
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    found = make_combiner(name, **({} if name in METHODS[:2] else {"rescale": False}))(rows)
    assert found.weights[1].item() == pytest.approx(0.0 if name == "mgda" else 1 / 3)
    assert found.status == Status.SOLVED


@pytest.mark.parametrize("name", METHODS)
def test_opposed_gradients_give_a_finite_update(name):
    rows = torch.tensor([[1.0, 2.0], [-2.0, -4.0]], dtype=torch.float64)
    found = make_combiner(name)(rows)
    assert found.gradient.isfinite().all()
    assert found.status == Status.SOLVED
    if name == "mgda":
        torch.testing.assert_close(found.gradient, torch.zeros(2, dtype=torch.float64), atol=1e-7, rtol=0)
    if name == "imgrad":
        assert found.extras["cos_theta"] < 1e-6


def test_cagrad_where_the_weighted_gradient_vanishes_at_the_optimum():
    """Tasks e, -2e, f: no update helps both of the first two; what remains is the part of the mean along f."""
    rows = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    found = make_combiner("cagrad", c=0.9, rescale=False)(rows)
    assert found.status == Status.SOLVED
    torch.testing.assert_close(found.gradient, torch.tensor([0.0, 1 / 3]).double(), atol=1e-7, rtol=0)


def test_a_gradient_that_is_tiny_beside_the_others_is_not_zero():
    rows = torch.diag(torch.tensor([1e-11, 1.0], dtype=torch.float64))
    found = make_combiner("mgda")(rows)
    torch.testing.assert_close(found.weights, torch.tensor([1.0, 1e-22]).double())


@pytest.mark.parametrize("name", GRAMIAN_METHODS)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 0), (4, 2, 3)])
def test_a_gramian_must_be_square(name, shape):
    with pytest.raises(ArgumentError, match="gramian must be"):
        make_combiner(name).weights(torch.ones(shape))


def test_a_gramian_must_be_floating_point():
    with pytest.raises(ArgumentError, match="floating point"):
        make_combiner("mgda").weights(torch.eye(2, dtype=torch.int64))


def test_task_weights_must_match_the_tasks():
    with pytest.raises(ArgumentError, match=r"a number for each of the tasks \[0, 1, 2\], got 2"):
        make_combiner("linear_scalarization", task_weights=[1, 2])(torch.eye(3))


def test_a_status_reads_as_a_sentence():
    status = make_combiner("imgrad")(torch.eye(2)).status
    assert str(status) == "SOLVED: The problem was solved; the residual is that of its optimality conditions."
    assert all(str(one).endswith(".") for one in type(status))
