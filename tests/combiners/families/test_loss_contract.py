"""What holds for every method that looks at losses: state, absent tasks, one task, losses that it cannot use."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from mtrl_imgrad.combiners import Combiner, LossCombiner, Status, combiner_class, list_combiners, make_combiner
from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from tests.support.combiners.examples import make_example

LOSS_METHODS = [name for name in list_combiners() if combiner_class(name).needs == "losses"]
METHODS = [*LOSS_METHODS, "imtl"]
WITH_MEMORY = [name for name in METHODS if make_example(name, 3).state_dict()]
POSITIVE = ["si", "gls", "famo", "igb_v1", "igb_v2", "stch"]
ROWS = torch.randn(5, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def losses_of(count: int, num_tasks: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, num_tasks, generator=generator, dtype=torch.float64) + 0.5


def step(combiner: Combiner, losses: torch.Tensor, tasks: list[int] | None = None, after: bool = True) -> torch.Tensor:
    """One step of a training; the weights."""
    rows = ROWS[: len(losses)] if tasks is None else ROWS[tasks]
    found = combiner.combine(rows, losses, tasks)
    if after:
        combiner.after_step(losses * 0.9 ** torch.arange(1, len(losses) + 1), tasks)
    assert found.weights is not None
    return found.weights


def tensors(state: object, path: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a state by their path."""
    if isinstance(state, torch.Tensor):
        return {path: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, (list, tuple)) else ()
    return {name: tensor for key, value in items for name, tensor in tensors(value, f"{path}/{key}").items()}


def same(state: object, before: dict[str, torch.Tensor]) -> bool:
    """Whether all numbers of a state are what they were, bit for bit."""
    found = tensors(state)
    return all(torch.equal(found[path].nan_to_num(-9), old.nan_to_num(-9)) for path, old in before.items())


@pytest.mark.parametrize("name", METHODS)
def test_a_restored_combiner_continues_bit_for_bit(name):
    combiner = make_example(name, 3)
    given = losses_of(26)
    for losses in given[:13]:
        step(combiner, losses)
    restored = make_example(name, 3)
    restored.load_state_dict(pickle.loads(pickle.dumps(combiner.state_dict())))
    others = [restored, copy.deepcopy(combiner), pickle.loads(pickle.dumps(combiner))]
    for losses in given[13:]:
        weights = step(combiner, losses)
        assert all(torch.equal(step(other, losses), weights) for other in others)


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_a_saved_state_does_not_move_on(name):
    combiner = make_example(name, 3)
    for losses in losses_of(12):
        step(combiner, losses)
    state = combiner.state_dict()
    before = copy.deepcopy(tensors(state))
    for losses in losses_of(5, seed=1):
        step(combiner, losses)
    restored = make_example(name, 3)
    restored.load_state_dict(state)
    for losses in losses_of(9, seed=2):
        step(restored, losses)
    assert before
    assert same(state, before)


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_a_wrong_state_is_refused_and_nothing_is_lost(name):
    combiner = make_example(name, 3)
    for losses in losses_of(12):
        step(combiner, losses)
    before = tensors(combiner.state_dict())
    for part in combiner.state_dict():
        with pytest.raises(ArgumentError, match=f"wrong part '{part}'"):
            combiner.load_state_dict({**combiner.state_dict(), part: {"something": "else"}})
    assert same(combiner.state_dict(), before)


@pytest.mark.parametrize(
    ("name", "bad"),
    [(name, bad) for name in METHODS for bad in (torch.nan, torch.inf)] + [(name, -1.0) for name in POSITIVE],
)
def test_a_step_with_unusable_losses_gives_nan_and_changes_nothing(name, bad):
    combiner = make_example(name, 3)
    for losses in losses_of(13):
        step(combiner, losses)
    before = tensors(combiner.state_dict())
    losses = torch.tensor([0.7, bad, 1.1], dtype=torch.float64)
    found = combiner.combine(ROWS[:3], losses)
    assert found.status == (Status.NOT_POSITIVE if bad == -1.0 else Status.NON_FINITE)
    assert found.weights.isnan().all()
    assert found.residual.isnan()
    assert same(combiner.state_dict(), {path: old for path, old in before.items() if path != "/generator"})
    if combiner.needs_losses_after_step:
        step(combiner, losses_of(1)[0], after=False)
        before = tensors(combiner.state_dict())
        combiner.after_step(torch.tensor([0.7, torch.nan, 1.1], dtype=torch.float64))
        assert same(combiner.state_dict(), before)
    assert step(combiner, losses_of(1, seed=5)[0]).isfinite().all()


@pytest.mark.parametrize("name", [name for name in WITH_MEMORY if name not in ("rlw", "igb_v2")])
def test_the_numbers_of_an_absent_task_stay(name):
    combiner = make_example(name, 4)
    for losses in losses_of(9, 4):
        step(combiner, losses)
    before = tensors(combiner.state_dict())
    weights = step(combiner, losses_of(1, 2, seed=1)[0], tasks=[3, 1])
    assert weights.isfinite().all()
    after = tensors(combiner.state_dict())
    changed = [path for path in after if not torch.equal(after[path].nan_to_num(), before[path].nan_to_num())]
    assert changed or name in ("igb_v1", "stch", "bilb4mtl")
    for path in after:
        torch.testing.assert_close(after[path][[0, 2]], before[path][[0, 2]], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["uw", "imtl_l", "igb_v1", "stch"])
def test_tasks_that_do_not_meet_go_on_as_if_alone(name):
    """In the sum's unit and with every task's memory its own: the task 5 of a run, and the same losses as task 0."""
    together, alone = make_example(name, 6), make_example(name, 1)
    given = losses_of(12, 2)
    for losses in given:
        step_weights = [together.weights(losses[:1], [5]).values, together.weights(losses[1:], [2]).values]
        torch.testing.assert_close(step_weights[0], alone.weights(losses[:1]).values, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("rlw", "bilb4mtl")])
def test_the_order_of_the_rows_does_not_matter_where_ids_come_along(name):
    one, other = make_example(name, 3), make_example(name, 3)
    for losses in losses_of(16):
        order = [2, 0, 1]
        expected = step(one, losses, after=False)[order]
        torch.testing.assert_close(step(other, losses[order], tasks=order, after=False), expected)


@pytest.mark.parametrize("name", METHODS)
def test_one_task(name):
    """Its gradient, times what the method makes of its loss."""
    combiner, loss = make_example(name, 1), torch.tensor([0.25], dtype=torch.float64)
    factor = {"si": 4, "igb_v1": 4, "igb_v2": 4, "stch": 4, "uw": 0.5}.get(name, 1)
    torch.testing.assert_close(step(combiner, loss), torch.tensor([factor]).double())
    for losses in losses_of(14, 1):
        assert step(combiner, losses).isfinite().all()


@pytest.mark.parametrize("name", LOSS_METHODS)
def test_sum_multiplies_by_the_number_of_tasks(name):
    mean, total = make_example(name, 3), make_example(name, 3)
    total.reduction = "sum"
    for losses in losses_of(9):
        torch.testing.assert_close(step(total, losses), 3 * step(mean, losses))


@pytest.mark.parametrize("name", [name for name in LOSS_METHODS if name not in WITH_MEMORY])
def test_methods_without_a_memory_take_batches(name):
    combiner = make_example(name, 3)
    batch = losses_of(4).view(2, 2, 3)
    found = combiner.weights(batch).values
    torch.testing.assert_close(found[1, 0], combiner.weights(batch[1, 0]).values)


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_methods_with_a_memory_take_one_step_at_a_time(name):
    combiner = make_example(name, 3)
    given = (losses_of(2),) if isinstance(combiner, LossCombiner) else (torch.eye(3).expand(2, 3, 3), losses_of(2))
    with pytest.raises(ArgumentError, match=r"\[K\]"):
        combiner.weights(*given)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "linear_scalarization"])
def test_losses_must_be_there(name):
    with pytest.raises(ArgumentError, match="losses must be given"):
        make_example(name, 5)(ROWS)


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize(("bound", "low"), [(0.0, 0.0), (-2.0, -2.5), ((0.0, -1.0, 1.0), -1.0)])
def test_a_call_refuses_losses_below_the_bound_and_names_the_row(name, bound, low):
    low = low - 1e-6 if name == "famo" else low  # which adds a little to its losses
    combiner = make_combiner(name, lower_bound=bound)
    with pytest.raises(ArgumentError, match=rf"{name} needs losses above lower_bound=.*got {low:.6g}.* of task 1"):
        combiner(ROWS[:3], torch.tensor([1.5, low, 1.5], dtype=torch.float64))
    assert combiner(ROWS[:3], torch.tensor([1.5, low + 1, 1.5], dtype=torch.float64)).gradient.isfinite().all()
    with pytest.raises(NonFiniteError, match="task 2"):
        combiner(ROWS[:3], torch.tensor([1.5, 1.5, torch.nan], dtype=torch.float64))


@pytest.mark.parametrize("name", ["si", "gls", "famo"])
def test_backward_refuses_them_too(name):
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(ArgumentError, match=rf"{name} cannot weigh the losses 1, -2\. A loss is not above"):
        make_combiner(name).backward([x[0], -x[1]], [x])
    combiner = make_combiner(name)
    with pytest.raises(ArgumentError, match=rf"{name} cannot weigh the losses 2, -2\."), combiner.accumulate() as step:
        [step.backward([x[0], factor * x[1]], [x]) for factor in (1, -2)]
    assert x.grad is None


@pytest.mark.parametrize("name", ["si", "gls"])
def test_a_bound_shifts_the_losses(name):
    losses, bound = torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float64), [-2.0, -1.0, 0.0]
    shifted = make_combiner(name).weights(losses - torch.tensor(bound)).values
    torch.testing.assert_close(make_combiner(name, lower_bound=bound).weights(losses).values, shifted)
    some = make_combiner(name, lower_bound=bound).weights(losses[[2, 0]], [2, 0]).values
    torch.testing.assert_close(some, make_combiner(name).weights(torch.tensor([3.0, 1.0])).values)


def test_a_bound_must_be_there_for_every_task():
    combiner = make_combiner("si", lower_bound=[0.0, 0.0])
    for losses, tasks in ((torch.ones(3), None), (torch.ones(1), None), (torch.ones(1), [2])):
        with pytest.raises(ArgumentError, match="lower_bound must hold a number for each of the tasks"):
            combiner.weights(losses, tasks)


@pytest.mark.parametrize("scale", ["initial", "log_initial"])
def test_a_first_loss_that_cannot_scale_is_refused(scale):
    combiner = make_combiner("bilb4mtl", scale=scale)
    found = combiner.weights(torch.tensor([1.0, -1.0]))
    assert found.status == Status.NOT_POSITIVE
    assert found.values.isnan().all()


def test_a_clamp_that_leaves_nothing_to_learn_is_refused():
    with pytest.raises(ArgumentError, match="router='clamped_softmax' keeps weights above 0.2"):
        make_combiner("bilb4mtl", router="clamped_softmax").weights(torch.ones(5))


def test_the_least_first_loss_is_that_of_all_tasks():
    """Of absent ones, too: else the unit would change from step to step."""
    combiner = make_combiner("bilb4mtl", scale="initial", learning_rate=0, lam=0)
    combiner.weights(torch.tensor([2.0, 8.0, 4.0]))
    present = combiner.weights(torch.tensor([8.0, 4.0]), tasks=[1, 2]).values
    torch.testing.assert_close(present, torch.tensor([0.5 * 2 / 8, 0.5 * 2 / 4], dtype=torch.float64))
