"""Steps in which a task's loss or gradient is NaN: raised, skipped, or made without the task."""

import copy
import warnings

import pytest
import torch
from torch import nn

from mtrl_imgrad.combiners import IMGrad, LinearScalarization, Status, list_combiners, make_combiner
from mtrl_imgrad.combiners.registry import combiner_class
from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from mtrl_imgrad.gradients import RowGradients, combine_rows
from mtrl_imgrad.gradients.absent_tasks import NonFiniteCounts
from tests.support.combiners.examples import make_example

pytestmark = pytest.mark.faults

LOST = 1


class Net(nn.Module):
    """A trunk and four heads; float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh()).double()
        self.heads = nn.ModuleList(nn.Linear(6, 1).double() for _ in range(4))

    def features(self, step: int) -> torch.Tensor:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        return self.trunk(x)

    def losses(self, step: int, z: torch.Tensor | None = None) -> list[torch.Tensor]:
        z = self.features(step) if z is None else z
        return [(k + 1) * (head(z)[:, 0] - k).square().mean() for k, head in enumerate(self.heads)]

    def gradients(self) -> list[torch.Tensor | None]:
        return [None if p.grad is None else p.grad.clone() for p in self.parameters()]


def backward(net, combiner, losses, **options):
    for parameter in net.parameters():
        parameter.grad = None
    return combiner.backward(losses, net.trunk.parameters(), net.heads.parameters(), **options)


def lose_value(losses):
    """NaN in the loss and the gradient."""
    return [loss * torch.nan if task == LOST else loss for task, loss in enumerate(losses)]


def lose_gradient(losses):
    """A finite loss with an infinite gradient."""
    return [loss + (loss - loss.detach()).abs().sqrt() if task == LOST else loss for task, loss in enumerate(losses)]


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def same_state(ours, theirs):
    assert repr(ours.state_dict()) == repr(theirs.state_dict())


@pytest.mark.parametrize("name", list_combiners())
def test_a_dropped_task_is_an_absent_one(name):
    """Beside a combiner that is given the other tasks by their ids; over steps before, with and after the fault."""
    if combiner_class(name).needs_all_tasks:
        pytest.skip("it refuses drop_task")
    net, ours, theirs = Net(), make_example(name, 4), make_example(name, 4)
    present = [task for task in range(4) if task != LOST]
    for step in range(4):
        losses = net.losses(step)
        if step == 2:
            found = backward(net, ours, lose_value(losses), on_nonfinite="drop_task")
            gradients = net.gradients()
            losses = net.losses(step)
            expected = backward(net, theirs, [losses[task] for task in present], tasks=present)
            assert found.non_finite == (LOST,)
            assert not found.skipped
            if expected.weights is not None:
                torch.testing.assert_close(found.weights[present], expected.weights, rtol=0, atol=0)
                assert found.weights[LOST] == 0
        else:
            backward(net, ours, losses, on_nonfinite="drop_task")
            gradients = net.gradients()
            backward(net, theirs, net.losses(step), tasks=range(4))
        same(gradients, net.gradients())
        if ours.needs_losses_after_step:
            ours.after_step(torch.ones(4))
            theirs.after_step(torch.ones(4))
    same_state(ours, theirs)


@pytest.mark.parametrize("lose", [lose_value, lose_gradient])
@pytest.mark.parametrize(
    "name", ["linear_scalarization", "famo", "imgrad", "graddrop", "gradvac", "moco", "sdmgrad_os"]
)
def test_a_skipped_step_leaves_no_trace(name, lose):
    net, combiner = Net(), make_example(name, 4)
    backward(net, combiner, net.losses(0))
    before, gradients = copy.deepcopy(combiner), net.gradients()
    found = combiner.backward(lose(net.losses(1)), net.trunk.parameters(), net.heads.parameters(), on_nonfinite="skip")
    assert found.skipped
    assert found.status is Status.NON_FINITE
    # Weighted or by groups, a gradient is of several tasks together.
    by_weights = name in ("linear_scalarization", "famo", "sdmgrad_os") and lose is lose_gradient
    assert found.non_finite == (() if by_weights else (LOST,))
    same(gradients, net.gradients())
    same_state(combiner, before)


def test_an_infinite_gradient_of_a_finite_loss_is_dropped_where_gradients_are_known():
    net, present = Net(), [0, 2, 3]
    found = backward(net, IMGrad(), lose_gradient(net.losses(0)), on_nonfinite="drop_task")
    gradients = net.gradients()
    losses = net.losses(0)
    backward(net, IMGrad(), [losses[task] for task in present], tasks=present)
    same(gradients, net.gradients())
    assert found.non_finite == (LOST,)
    found = backward(net, LinearScalarization(), lose_gradient(net.losses(0)), on_nonfinite="drop_task")
    assert found.skipped


def test_gradients_of_a_tasks_own_parameters_count():
    def broken(net):
        losses = net.losses(0)
        weight = net.heads[LOST].bias
        losses[LOST] = losses[LOST] + (weight - weight.detach()).abs().sqrt().sum()
        return losses

    for combiner in (IMGrad(), LinearScalarization(), make_combiner("sdmgrad_os")):
        net = Net()
        with pytest.raises(NonFiniteError):
            backward(net, combiner, broken(net))
        assert all(gradient is None for gradient in net.gradients())
    with pytest.raises(NonFiniteError, match=rf"task {LOST} is NaN or infinite in task_specific\[3\]"):
        backward(net, IMGrad(), broken(net))
    assert backward(net, IMGrad(), broken(net), on_nonfinite="drop_task").non_finite == (LOST,)


def test_by_features():
    net = Net()
    z = net.features(0)
    backward(net, IMGrad(), lose_gradient(net.losses(0, z)), features=z, on_nonfinite="drop_task")
    gradients = net.gradients()
    z = net.features(0)
    losses = net.losses(0, z)
    backward(net, IMGrad(), [losses[task] for task in (0, 2, 3)], features=z, tasks=[0, 2, 3])
    same(gradients, net.gradients())


@pytest.mark.parametrize("on_nonfinite", ["skip", "drop_task"])
def test_a_fault_in_one_micro_batch_counts_for_the_step(on_nonfinite):
    net, combiner = Net(), IMGrad()
    for parameter in net.parameters():
        parameter.grad = None
    both = list(net.trunk.parameters()), list(net.heads.parameters())
    with combiner.accumulate(on_nonfinite=on_nonfinite) as step:
        step.backward(lose_value(net.losses(0)), *both)
        step.backward(net.losses(1), *both)
    found = step.combination
    assert found.non_finite == (LOST,)
    assert found.skipped == (on_nonfinite == "skip")
    if on_nonfinite == "drop_task":
        present, gradients = [0, 2, 3], net.gradients()
        losses = [sum(pair) for pair in zip(net.losses(0), net.losses(1), strict=True)]
        backward(net, IMGrad(), [losses[task] for task in present], tasks=present)
        for ours, theirs in zip(gradients, net.gradients(), strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    again = backward(net, combiner, net.losses(2))
    assert again.non_finite == (), "nothing is left of the step before"


def test_two_faults_in_one_step_and_ids():
    net = Net()
    losses = lose_gradient(net.losses(0))
    losses[3] = losses[3] * torch.inf
    ids = [10, 11, 12, 13]
    found = backward(net, IMGrad(), losses, tasks=ids, on_nonfinite="drop_task")
    assert found.non_finite == (11, 13)
    assert (found.weights == 0).tolist() == [False, True, False, True]
    assert found.gramian.diagonal().isnan().tolist() == [False, True, False, True]


def test_no_task_left_is_a_skipped_step():
    net = Net()
    losses = [loss * torch.nan for loss in net.losses(0)]
    found = backward(net, IMGrad(), losses, on_nonfinite="drop_task")
    assert found.skipped
    assert found.non_finite == (0, 1, 2, 3)
    assert all(gradient is None for gradient in net.gradients())


@pytest.mark.parametrize("fault", [0, 1])
def test_kept_weights_are_found_anew_when_a_task_comes_back(fault):
    """Weights of three tasks are not weights of four; those of four serve three."""
    net, combiner = Net(), IMGrad(update_every=3)
    for step in range(3):
        losses = net.losses(step)
        found = backward(net, combiner, lose_value(losses) if step == fault else losses, on_nonfinite="drop_task")
        assert (found.weights[LOST] == 0) == (step == fault)
        solved = step == 0 if fault == 1 else step < 2  # those of three tasks do not serve the next step
        assert (found.gramian is not None) == solved


def test_arguments():
    net = Net()
    with pytest.raises(ArgumentError, match="on_nonfinite must be one of 'raise', 'skip', 'drop_task', got 'drop'"):
        backward(net, IMGrad(), net.losses(0), on_nonfinite="drop")
    with pytest.raises(ArgumentError, match="on_nonfinite='drop_task' does not go with igb_v2, which needs all tasks"):
        backward(net, make_combiner("igb_v2"), net.losses(0), on_nonfinite="drop_task")
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(ArgumentError, match="on_nonfinite='skip' does not go with a grad_scaler"):
        backward(net, IMGrad(), net.losses(0), on_nonfinite="skip", grad_scaler=scaler)


# ---------------------------------------------------------------------- by rows


def rows(step: int, lost: bool) -> RowGradients:
    generator = torch.Generator().manual_seed(step)
    found = RowGradients(
        losses=torch.rand(4, generator=generator, dtype=torch.float64) + 0.5,
        shared={name: torch.randn(4, 3, 2, generator=generator, dtype=torch.float64) for name in "ab"},
        task_specific={"head": torch.randn(4, 5, generator=generator, dtype=torch.float64)},
        aux=None,
    )
    if lost:
        found.shared["b"][LOST, 1, 1] = torch.nan
    return found


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
@pytest.mark.parametrize("name", list_combiners())
def test_rows_of_a_dropped_task_are_those_of_an_absent_one(name, heads):
    ours, theirs = make_example(name, 4), make_example(name, 4)
    if ours.needs_all_tasks or (heads == "weighted" and ours.combine(*plain(rows(0, False))).weights is None):
        pytest.skip("it refuses drop_task, or heads that are weighted")
    ours = make_example(name, 4)
    index = torch.tensor([0, 2, 3])
    for step in range(4):
        found = combine_rows(ours, rows(step, step == 2), heads, "drop_task")
        jacobian = rows(step, False)
        if step == 2:
            some = [block[index] for block in jacobian.shared.values()]
            expected = theirs.combine(some, jacobian.losses[index], index.tolist())
            own = torch.zeros(4, 5, dtype=torch.float64)
            weights = expected.weights[:, None] if heads == "weighted" else 1
            own[index] = jacobian.task_specific["head"][index] * weights
            torch.testing.assert_close(found.gradients["head"], own, rtol=0, atol=0)
        else:
            expected = theirs.combine(*plain(jacobian))
        same([found.gradients["a"], found.gradients["b"]], list(expected.gradient))
    same_state(ours, theirs)


def plain(jacobian):
    return list(jacobian.shared.values()), jacobian.losses


def test_a_skipped_step_by_rows():
    combiner = make_example("gradvac", 4)
    combine_rows(combiner, rows(0, False), on_nonfinite="skip")
    before = copy.deepcopy(combiner)
    found = combine_rows(combiner, rows(1, True), on_nonfinite="skip")
    assert found.gradients == {}
    assert found.combination.skipped
    same_state(combiner, before)
    raised = combine_rows(combiner, rows(1, True))
    assert raised.gradients["a"].isnan().all(), "to be found by the caller"


# ---------------------------------------------------------------------- counts


def test_counts_warn_once():
    net, counts = Net(), NonFiniteCounts("abcd")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            found = backward(net, IMGrad(), net.losses(step), on_nonfinite="skip")
            counts.add(found, f"step {step}")
        for step in range(3, 5):
            counts.add(backward(net, IMGrad(), lose_value(net.losses(step)), on_nonfinite="skip"), f"step {step}")
            counts.add(backward(net, IMGrad(), lose_value(net.losses(step)), on_nonfinite="drop_task"), "")
    assert [str(warning.message) for warning in caught] == [
        "step 3: a loss or gradient of 'b' is NaN or infinite; it was skipped. Such steps are counted"
    ]
    assert counts.tasks == {"a": 0, "b": 4, "c": 0, "d": 0}
    assert counts.skipped_steps == 2
    other = NonFiniteCounts("abcd")
    other.set_state(counts.get_state())
    assert other.get_state() == counts.get_state()


@pytest.mark.parametrize("name", list_combiners())
def test_a_step_that_is_taken_back_leaves_the_state_as_it_was(name):
    """A loss is finite, its gradient is not, which is found out after the weights were chosen."""
    combiner, untouched = make_example(name, 2), make_example(name, 2)
    for step in range(13 if name == "igb_v2" else 4):  # which learns and acts from step 10 on
        x = nn.Parameter(torch.tensor([1.0 + 0.1 * step, 0.0]))
        losses = [x.square().sum() + 1, (x - 1).square().sum() + 1]
        root = x[1].sqrt()  # 0, with an infinite derivative
        with pytest.raises(NonFiniteError):
            combiner.backward([losses[0] + root, losses[1]], [x], retain_graph=True)
        assert x.grad is None
        combiner.backward(losses, [x], retain_graph=True)
        expected, x.grad = x.grad, None
        untouched.backward(losses, [x])
        assert torch.equal(x.grad, expected), step


@pytest.mark.parametrize("on_nonfinite", ["raise", "skip"])
@pytest.mark.parametrize("name", ["imgrad", "pcgrad", "cagrad"])
def test_inner_products_that_overflow_are_no_step(name, on_nonfinite):
    x = nn.Parameter(torch.ones(2))
    losses = [1e20 * x.sum(), 1e20 * x.square().sum()]
    if on_nonfinite == "raise":
        with pytest.raises(NonFiniteError, match="overflow"):
            make_example(name, 2).backward(losses, [x])
    else:
        assert make_example(name, 2).backward(losses, [x], on_nonfinite=on_nonfinite).skipped
    assert x.grad is None
