"""From gradients to the update: blocks, dtypes, devices, transformations, state."""

from __future__ import annotations

import pytest
import torch

from mtrl_imgrad.combiners import IMGrad, make_combiner
from mtrl_imgrad.combiners.solvers import active_set
from mtrl_imgrad.errors import ArgumentError

METHODS = ["linear_scalarization", "mgda", "cagrad", "imgrad"]


def rows(num_tasks: int = 4, width: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tasks, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", METHODS)
def test_blocks_give_what_one_matrix_gives(name):
    G = rows()
    blocks = [G[:, :6].reshape(4, 2, 3), G[:, 6:7].reshape(4), G[:, 7:]]
    whole, parts = make_combiner(name)(G), make_combiner(name)(blocks)
    assert [part.shape for part in parts.gradient] == [(2, 3), (), (5,)]
    torch.testing.assert_close(torch.cat([part.reshape(-1) for part in parts.gradient]), whole.gradient)
    torch.testing.assert_close(parts.weights, whole.weights)
    torch.testing.assert_close(parts.gramian, whole.gramian)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_update_has_the_dtype_of_the_gradients_and_the_weights_are_double(name, dtype):
    found = make_combiner(name)(rows().to(dtype))
    assert found.gradient.dtype == dtype
    assert found.weights.dtype == torch.float64
    assert found.gramian.dtype == torch.float64


@pytest.mark.parametrize("name", METHODS)
def test_sum_multiplies_by_the_number_of_tasks(name):
    mean, total = make_combiner(name)(rows()), make_combiner(name, reduction="sum")(rows())
    torch.testing.assert_close(total.gradient, 4 * mean.gradient)
    torch.testing.assert_close(total.weights, 4 * mean.weights)


@pytest.mark.parametrize("name", METHODS)
def test_the_update_carries_no_graph(name):
    G = rows().requires_grad_()
    found = make_combiner(name)(G * 2)
    assert not found.gradient.requires_grad
    assert not found.weights.requires_grad


@pytest.mark.parametrize("name", METHODS)
def test_calls_do_not_depend_on_earlier_calls(name):
    combiner = make_combiner(name)
    first = combiner(rows()).gradient
    combiner(rows(seed=1))
    assert torch.equal(combiner(rows()).gradient, first)
    assert combiner.state_dict() == {}


@pytest.mark.parametrize("name", METHODS)
def test_diagnostics_describe_the_update(name):
    found = make_combiner(name)(rows())
    G = rows()
    cosines = torch.nn.functional.cosine_similarity(G, found.gradient[None])
    torch.testing.assert_close(found.diagnostics["direction_cosines"], cosines)
    assert found.diagnostics["pareto_failure"] == bool((cosines < -1e-6).any())


@pytest.mark.parametrize("name", ["mgda", "cagrad", "imgrad"])
def test_vmap_gives_what_a_loop_gives(name):
    combiner = make_combiner(name)
    M = torch.stack([G @ G.T for G in (rows(5, 6, seed) for seed in range(4))])
    together = torch.vmap(lambda one: combiner.weights(one).values)(M)
    torch.testing.assert_close(together, torch.stack([combiner.weights(one).values for one in M]))


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["linear_scalarization", "imgrad"])
def test_one_graph_is_compiled(name, monkeypatch):
    """No graph breaks, so no branch on a value. Fewer steps than by default keep the test short."""
    monkeypatch.setattr(active_set, "_step_limit", lambda num_tasks, can_stop: 3)
    combiner = make_combiner(name)
    compiled = torch.compile(lambda G: combiner.combine(G).gradient, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(rows(3)), combiner.combine(rows(3)).gradient)


def test_the_repr_is_the_call():
    assert repr(IMGrad(c=0.8, form="paper", reduction="sum")) == "IMGrad(c=0.8, form='paper', reduction='sum')"
    assert repr(IMGrad(measure="pm")) == "IMGrad(c=0.4)"  # its default is None, which means 0.4
    assert repr(make_combiner("linear_scalarization")) == "LinearScalarization()"


def test_a_stateless_combiner_refuses_a_state():
    make_combiner("imgrad").load_state_dict({})
    with pytest.raises(ArgumentError, match="keeps no state"):
        make_combiner("imgrad").load_state_dict({"step": 3})


@pytest.mark.parametrize("wrong", ["agent", 3, torch.zeros(3), torch.zeros(2, 7, 3), {}, []])
def test_a_wrong_part_of_a_state_is_named_and_nothing_is_loaded(wrong):
    combiner = make_combiner("igb_v2")
    combiner(rows(), torch.ones(4))
    before = combiner.state_dict()
    for state in ({**before, "agent": wrong}, {**before, "agent": {**before["agent"], "networks": wrong}}):
        with pytest.raises(ArgumentError, match="the state of igb_v2 has a wrong part 'agent'"):
            combiner.load_state_dict(state)
    torch.testing.assert_close(combiner.state_dict(), before, rtol=0, atol=0, equal_nan=True)
