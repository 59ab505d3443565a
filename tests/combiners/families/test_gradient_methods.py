"""What holds for every method of this family: blocks, memory by task, bad numbers, dtypes, devices."""

from __future__ import annotations

import pickle

import pytest
import torch

from mtrl_imgrad.combiners import Status, make_combiner
from mtrl_imgrad.errors import ArgumentError, NonFiniteError

CASES = {
    "graddrop": ("graddrop", {}),
    "graddrop leak": ("graddrop", {"leak": [0.1, 0.2, 0.0, 1.0]}),
    "moco": ("moco", {}),
    "moco loss": ("moco", {"normalization": "loss", "rho": 0.1}),
    "db_mtl": ("db_mtl", {}),
    "db_mtl no memory": ("db_mtl", {"beta": 0}),
    "gradnorm": ("gradnorm", {}),
    "gradnorm sgd": ("gradnorm", {"optimizer": "sgd"}),
    "sdmgrad": ("sdmgrad", {}),
    "sdmgrad halves": ("sdmgrad", {"halves": True}),
    "sdmgrad_os": ("sdmgrad_os", {"num_sampled": 2}),
    "conicgrad": ("conicgrad", {}),
    "conicgrad narrow": ("conicgrad", {"c": 0.9}),
    "mgda loss+": ("mgda", {"normalization": "loss+", "combine_normalized": True}),
    "adatask adam": ("adatask", {}),
    "adatask adagrad": ("adatask", {"algorithm": "adagrad"}),
    "adatask rmsprop": ("adatask", {"algorithm": "rmsprop"}),
}
MEMORY = [case for case, (name, _) in CASES.items() if name in ("moco", "db_mtl", "gradnorm", "adatask")]
MEMORY.remove("db_mtl no memory")


def make(case, **more):
    name, arguments = CASES[case]
    return make_combiner(name, **{**arguments, **more})


def rows(seed=0, num_tasks=4, width=12):
    return torch.randn(num_tasks, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def losses(seed=0, num_tasks=4):
    return 0.5 + torch.rand(num_tasks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cut(G):
    return [G[:, :6].reshape(-1, 2, 3), G[:, 6:7].reshape(-1), G[:, 7:]]


def leaves(state):
    """The tensors of a state; a generator's bytes are left out: drawing moves them on in any case."""
    if isinstance(state, torch.Tensor):
        return [] if state.dtype == torch.uint8 else [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else []
    return [leaf for value in values for leaf in leaves(value)]


@pytest.mark.parametrize("case", CASES)
def test_blocks_give_what_one_matrix_gives(case):
    whole, parts = make(case), make(case)
    for seed in range(3):
        found = whole(rows(seed), losses(seed)).gradient
        pieces = parts(cut(rows(seed)), losses(seed)).gradient
        assert [piece.shape for piece in pieces] == [(2, 3), (), (5,)]
        torch.testing.assert_close(torch.cat([piece.reshape(-1) for piece in pieces]), found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_sum_multiplies_by_the_number_of_tasks(case):
    mean, total = make(case), make(case, reduction="sum")
    tasks = 2 if case == "sdmgrad halves" else 4
    for seed in range(2):
        expected = tasks * mean(rows(seed), losses(seed)).gradient
        torch.testing.assert_close(total(rows(seed), losses(seed)).gradient, expected)


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_the_update(case):
    found = make(case)(rows(), losses())
    if found.weights is not None:
        torch.testing.assert_close(found.weights @ rows(), found.gradient)
    assert found.residual < 1e-9


@pytest.mark.parametrize("case", CASES)
def test_a_state_continues_bit_for_bit(case):
    combiner = make(case)
    for seed in range(2):
        combiner(cut(rows(seed)), losses(seed))
    other = make(case, **({"seed": 7} if "seed" in vars(combiner) else {}))
    other(cut(rows(9)), losses(9))
    other.load_state_dict(combiner.state_dict())
    copy = pickle.loads(pickle.dumps(combiner))
    for seed in range(2, 4):
        expected = combiner(cut(rows(seed)), losses(seed)).gradient
        for one in (other, copy):
            assert all(map(torch.equal, one(cut(rows(seed)), losses(seed)).gradient, expected))


@pytest.mark.parametrize("case", CASES)
def test_a_fresh_state_can_be_loaded(case):
    used = make(case)
    used(rows(3), losses(3))
    used.load_state_dict(make(case).state_dict())
    torch.testing.assert_close(used(rows(), losses()).gradient, make(case)(rows(), losses()).gradient)


@pytest.mark.parametrize("case", MEMORY)
def test_a_wrong_state_is_refused_and_nothing_changes(case):
    combiner = make(case)
    combiner(rows(), losses())
    before = combiner.state_dict()
    with pytest.raises(ArgumentError, match="the state of"):
        combiner.load_state_dict({})
    with pytest.raises(ArgumentError, match="the state of"):
        combiner.load_state_dict({**before, list(before)[-1]: "x"})
    assert all(map(torch.equal, leaves(combiner.state_dict()), leaves(before)))


@pytest.mark.parametrize("where", ["gradients", "losses"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("case", CASES)
def test_a_step_that_is_not_finite_says_so_and_moves_no_state(case, bad, where):
    if where == "losses" and not (case.startswith(("gradnorm", "db_mtl")) or "loss" in case):
        return
    combiner = make(case)
    combiner(cut(rows()), losses())
    before = leaves(combiner.state_dict())
    G, L = rows(1), losses(1)
    if where == "gradients":
        G[1, 0] = bad
    else:
        L[1] = bad
    with pytest.raises(NonFiniteError, match="task 1"):
        combiner(cut(G), L)
    found = combiner.combine(cut(G), L)
    assert found.status == Status.NON_FINITE
    assert found.residual.isnan()
    assert all(part.isnan().all() for part in found.gradient)
    after = leaves(combiner.state_dict())
    assert all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("case", MEMORY)
def test_an_absent_task_keeps_its_memory(case):
    """Tasks 0 and 2 step alone; 1 and 3 then go on from where they were."""
    combiner = make(case)
    combiner(rows(), losses())
    before = leaves(combiner.state_dict())
    combiner(rows(1)[[2, 0]], losses(1)[[2, 0]], tasks=[2, 0])
    after = leaves(combiner.state_dict())
    assert all(torch.equal(a[[1, 3]], b[[1, 3]]) for a, b in zip(after, before, strict=True))
    assert any(not torch.equal(a[[0, 2]], b[[0, 2]]) for a, b in zip(after, before, strict=True))
    combiner(rows(2, 5), losses(2, 5))
    assert all(len(leaf) == 5 for leaf in leaves(combiner.state_dict()))


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("graddrop leak", "sdmgrad halves")])
def test_ids_name_the_rows(case):
    """The same tasks in another order, said so, are the same tasks."""
    order = [3, 1, 0, 2]
    plain, shuffled = make(case), make(case)
    for seed in range(3):
        expected = plain(rows(seed), losses(seed)).gradient
        if case == "sdmgrad_os":
            return  # draws rows
        found = shuffled(rows(seed)[order], losses(seed)[order], tasks=order).gradient
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("graddrop leak", "sdmgrad halves")])
def test_one_task(case):
    row = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    found = make(case)(row, torch.ones(1, dtype=torch.float64)).gradient
    expected = {
        "moco": 0.5 * row[0],
        "moco loss": 0.1 * row[0],
        "mgda loss+": row[0] / 5,
        "adatask adam": row[0].sign(),
        "adatask adagrad": row[0].sign(),
        "adatask rmsprop": 10 * row[0].sign(),
    }.get(case, row[0])
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_zero_gradients_give_a_finite_update(case):
    G = rows()
    G[2] = 0
    found = make(case, **({"num_sampled": 4} if case == "sdmgrad_os" else {}))(G, losses())
    assert found.gradient.isfinite().all()
    assert found.status == Status.SOLVED
    nothing = make(case)(torch.zeros(4, 3), losses())
    assert (nothing.gradient == 0).all()
    assert nothing.residual == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_the_update_has_the_dtype_of_the_gradients(case, dtype):
    combiner, exact = make(case), make(case)
    for seed in range(2):
        found = combiner(rows(seed).to(dtype), losses(seed)).gradient
        expected = exact(rows(seed).to(dtype).double(), losses(seed)).gradient
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("case", [case for case in MEMORY if not case.startswith("gradnorm")])
def test_other_parameters_than_before_are_refused(case):
    combiner = make(case)
    combiner(cut(rows()), losses())
    with pytest.raises(ArgumentError, match="3 blocks, got 1"):
        combiner(rows(), losses())
    with pytest.raises(ArgumentError, match="rows of shape"):
        combiner([rows(), rows(), rows()], losses())


@pytest.mark.parametrize("case", ["db_mtl", "moco loss", "gradnorm", "mgda loss+"])
def test_losses_are_asked_for(case):
    with pytest.raises(ArgumentError, match="losses must be given"):
        make(case)(rows())
