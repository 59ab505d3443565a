"""`Combiner.backward(group=)`: ranks that share the rows against one process that has all of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtrl_imgrad.combiners import MGDA, GramianCombiner, make_combiner
from mtrl_imgrad.combiners.columns import takes_columns
from mtrl_imgrad.errors import ArgumentError
from tests.support.combiners.examples import list_variants
from tests.support.replicas import jobs
from tests.support.replicas.pool import SIZE, running_pool

VARIANTS = {
    **list_variants(jobs.NUM_TASKS),
    "adatask-adagrad": ("adatask", {"algorithm": "adagrad"}),
    "db_mtl-no_memory": ("db_mtl", {"beta": 0.0}),
    "graddrop-leak": ("graddrop", {"leak": [0.0, 0.3, 0.1]}),
    "sdmgrad_os-sampling": ("sdmgrad_os", {"num_sampled": 1.5}),
}
OPTIONS = {
    "features": ("imgrad", {"by_features": True}),
    "weighted heads": ("cagrad", {"heads": "weighted"}),
    "weighted heads by losses": ("rlw", {"heads": "weighted"}),
    "clipped": ("pcgrad", {"max_grad_norm": 0.05}),
    "skip": ("mgda", {"on_nonfinite": "skip"}),
}
STEPS = 11
"""In them a rank lacks a task three times, and all ranks lack one twice; the windows of all variants are over."""
TOLERANCE = 1e-8
"""Rounding is at most 2e-14 after these steps, a mean of Gramians in place of gradients is off by 1e-2."""


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with running_pool(tmp_path_factory.mktemp("ranks")) as found:
        yield found


def close_states(ours, theirs):
    if isinstance(ours, torch.Tensor):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            close_states(ours[name], theirs[name])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for pair in zip(ours, theirs, strict=True):
            close_states(*pair)
    else:
        assert ours == theirs


def compare(pool, size, name, arguments, steps, options=None):
    ranks = pool.run(jobs.trajectory, size, name, arguments, steps, options or {})
    points, state = jobs.trajectory(None, name, arguments, steps, options or {}, size)
    for path, _ in ranks[1:]:
        assert all(torch.equal(a, b) for a, b in zip(path, ranks[0][0], strict=True)), "ranks drift apart"
    for ours, theirs in zip(ranks[0][0], points, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    for _, ours in ranks:
        close_states(ours, state)


@pytest.mark.parametrize("variant", VARIANTS)
def test_ranks_make_the_step_of_one_process(pool, variant):
    name, arguments = VARIANTS[variant]
    compare(pool, SIZE, name, arguments, STEPS)


@pytest.mark.parametrize("variant", ["rlw", "imgrad", "graddrop", "moco", "cagrad_fast"])
def test_two_ranks_make_the_step_of_one_process(pool, variant):
    """One method of each way: losses, Gramian, slices and all of the columns, groups of tasks."""
    name, arguments = VARIANTS[variant]
    compare(pool, 2, name, arguments, 5)


@pytest.mark.parametrize("option", OPTIONS)
def test_options_mean_the_same_on_ranks(pool, option):
    name, options = OPTIONS[option]
    compare(pool, SIZE, name, {}, 6, options)


def test_a_mean_of_gramians_is_another_step():
    """That the comparison sees the mistake: on this problem it moves the weights by per cents."""
    x, y = jobs.batch(0)
    problem = jobs.Problem()
    parameters = list(problem.trunk.parameters())

    def jacobian(rows):
        z = problem.features(x[rows])
        losses = [problem.loss(task, z, y[rows]) for task in range(jobs.NUM_TASKS)]
        found = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
        return torch.stack([torch.cat([part.flatten() for part in row]) for row in found])

    halves = [jacobian(torch.arange(6)), jacobian(torch.arange(6, 12))]
    right = MGDA().weights(sum(halves) @ sum(halves).T).values
    wrong = MGDA().weights(sum(half @ half.T for half in halves)).values
    assert (right - wrong).abs().max() > 0.01


@pytest.mark.parametrize("name", ["mgda", "rlw", "moco"])
def test_micro_batches_on_ranks(pool, name):
    ranks = pool.run(jobs.accumulated, 2, name)
    for rank in ranks[1:]:
        assert torch.equal(rank, ranks[0])
    torch.testing.assert_close(ranks[0], jobs.accumulated(None, name), rtol=TOLERANCE, atol=TOLERANCE)


def test_ranks_may_name_other_tasks(pool):
    ranks = pool.run(jobs.other_tasks, 2)
    assert torch.equal(ranks[0], ranks[1])
    torch.testing.assert_close(ranks[0], jobs.other_tasks(None), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["imgrad", "rlw"])
def test_rows_of_ranks(pool, name):
    """`combine_rows`, for which every rank has as many rows of each task."""
    ranks, alone = pool.run(jobs.by_rows_of_ranks, 2, name), jobs.by_rows_of_ranks(None, name)
    for ours, other, theirs in zip(*ranks, alone, strict=True):
        assert torch.equal(ours, other)
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def test_numbers_of_several_types(pool):
    """Complex, single and half precision parameters; one that nobody uses keeps its ``.grad``."""
    ranks = pool.run(jobs.mixed_types, 2)
    alone = jobs.mixed_types(None)
    for ours, other, theirs in zip(ranks[0], ranks[1], alone, strict=True):
        if theirs is None:
            assert ours is None
            assert other is None
            continue
        assert torch.equal(ours, other)
        torch.testing.assert_close(ours, theirs, rtol=2e-2 if ours.dtype == torch.bfloat16 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("how", ["skip", "drop_task", "scaler"])
@pytest.mark.parametrize("name", ["mgda", "rlw", "graddrop"])
def test_one_rank_is_not_finite(pool, name, how, where):
    """All ranks leave out what one process would."""
    ranks, alone = pool.run(jobs.not_finite, 2, name, how, where), jobs.not_finite(None, name, how, where)
    for gradients, said in ranks:
        assert said == alone[1]
        for ours, first, theirs in zip(gradients, ranks[0][0], alone[0], strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert torch.equal(ours, first)
                torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def test_faults_are_raised_on_every_rank(pool):
    found = pool.run(jobs.faults, SIZE)
    expected = {
        "no group": ("3 ranks of torch.distributed run, and backward got no group",) * 3,
        "no group after the step": ("3 ranks of torch.distributed run, and after_step got no group",) * 3,
        "NaN loss": ("the loss of task 1 is NaN or infinite",) * 3,
        "NaN gradient": ("the gradient of task 2 is NaN or infinite on some rank",) * 3,
        "wrong argument": ("rank 1 of the group could not make this step", "heads must be one of", "rank 1"),
        "other call": ("all ranks must make the same step",) * 3,
        "other parameters": ("the ranks' parameters differ before the first step",) * 3,
        "other state": ("the states of the ranks' combiners differ",) * 3,
        "nothing anywhere": ("all tasks are absent on all",) * 3,
        "DTensor": ("shared[0] is sharded (FSDP or DTensor)",) * 3,
        "features entry by entry": ("features does not go with graddrop over a group",) * 3,
    }
    for rank in range(SIZE):
        for fault, messages in expected.items():
            assert messages[rank] in found[rank][fault], (rank, fault, found[rank][fault])
        assert found[rank]["afterwards"] == "", "the ranks are out of step"


@pytest.mark.parametrize(
    ("name", "arguments", "vectors"),
    [
        ("imgrad", {}, (4, 4, 4)),
        ("graddrop", {}, (4, 4, 4)),
        ("imgrad", {"update_every": 3}, (4, 2, 2)),
        ("rlw", {}, (2, 2, 2)),
        ("moco", {}, (6, 6, 6)),
        ("cagrad_fast", {"tasks_per_step": 2}, (3, 3, 3)),
    ],
)
def test_what_a_step_sends(pool, name, arguments, vectors):
    """K + 1, 2, 2 K or n + 1 times P (R - 1) / R numbers, with K = 3 and P = 580."""
    for rank in pool.run(jobs.traffic, 2, name, arguments):
        assert rank == [count * 580 // 2 for count in vectors]


def test_ranks_in_ddp(pool):
    """A model in DistributedDataParallel trains as without it: its hooks see nothing of ``backward``."""
    wrapped, plain = pool.run(jobs.in_ddp, 2), pool.run(jobs.trajectory, 2, "imgrad", {}, 4, {})
    for rank in range(2):
        assert torch.equal(wrapped[rank], plain[rank][0][-1])


def test_a_class_that_combines_anew_gets_all_columns():
    class Anew(GramianCombiner):
        name = "anew"

        def solve(self, gramian, losses=None, tasks=None):
            raise NotImplementedError

        def combine(self, jacobian, losses=None, tasks=None):
            raise NotImplementedError

    class Says(Anew):
        by_columns = True

    assert not takes_columns(Anew())
    assert takes_columns(Says())
    assert all(takes_columns(make_combiner(name)) for name in ("imgrad", "graddrop", "sdmgrad_os", "cagrad_fast"))
    assert not any(takes_columns(make_combiner(name)) for name in ("moco", "adatask", "db_mtl"))


def test_arguments_of_one_process():
    layer = nn.Linear(2, 1)
    losses = [layer(torch.ones(1, 2)).sum()]
    with pytest.raises(ArgumentError, match="rows goes with group"):
        make_combiner("mgda").backward(losses, layer, rows=[1])
    with pytest.raises(ArgumentError, match=r"torch.distributed.init_process_group first"):
        make_combiner("mgda").backward(losses, layer, group="world")
