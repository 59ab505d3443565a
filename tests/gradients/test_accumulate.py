"""`Combiner.accumulate`: a step whose batch comes in parts is the step of the whole batch."""

import copy
import weakref

import pytest
import torch

from mtrl_imgrad.combiners import IMGrad, make_combiner
from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from tests.gradients.test_backward import Net, head_gradients, trunk_gradient
from tests.support.combiners.examples import list_variants, make_example

VARIANTS = list_variants(3)


def lists(net: Net) -> tuple:
    return net.trunk, net.heads


def fill(step, *micro_batches: tuple) -> None:
    for arguments in micro_batches:
        step.backward(*arguments)


def by_jacobian(combiner, net: Net, losses: list[torch.Tensor], tasks=None):
    """The combiner's answer for rows of plain autograd, and nothing of `backward`."""
    parameters = list(net.trunk.parameters())
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    values = torch.stack([loss.detach() for loss in losses])
    return combiner([torch.stack(column) for column in zip(*rows, strict=True)], values, tasks)


def flat(gradient) -> torch.Tensor:
    return torch.cat([part.flatten() for part in gradient])


@pytest.mark.parametrize("word", VARIANTS)
def test_micro_batches_are_combined_as_one_batch(word):
    """Also where each is of one task; over several steps, so what the method remembers is the same, too."""
    name, arguments = VARIANTS[word]
    net = Net()
    whole, parts, single = (make_combiner(name, **arguments) for _ in range(3))
    for step in range(3):
        expected = flat(by_jacobian(whole, net, net.losses(offset=8 * step)).gradient)
        with parts.accumulate() as gathered:
            for offset in (0, 4):
                losses = [loss / 2 for loss in net.losses(4, 8 * step + offset)]
                gathered.backward(losses, *lists(net))
        assert gathered.tasks == [0, 1, 2]
        torch.testing.assert_close(flat(gathered.combination.gradient), expected, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(trunk_gradient(net), expected, rtol=1e-7, atol=1e-9)
        net.zero_grad()
        with single.accumulate() as gathered:
            for task in (2, 0, 1):
                losses = [loss if k == task else None for k, loss in enumerate(net.losses(offset=8 * step))]
                gathered.backward(losses, *lists(net))
        torch.testing.assert_close(trunk_gradient(net), expected, rtol=1e-7, atol=1e-9)
        net.zero_grad()


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
def test_heads_are_those_of_the_whole_batch(heads):
    net, whole = Net(), Net()
    IMGrad().backward(whole.losses(), *lists(whole), heads=heads, max_grad_norm=0.1)
    with IMGrad().accumulate(heads=heads, max_grad_norm=0.1) as step:
        for task, head in enumerate(net.heads):  # lists of its own for each
            step.backward([net.losses()[task]], net.trunk, head, tasks=[task])
    torch.testing.assert_close(trunk_gradient(net), trunk_gradient(whole))
    for ours, its in zip(head_gradients(net), head_gradients(whole), strict=True):
        torch.testing.assert_close(ours, its)


def test_the_graph_of_a_micro_batch_is_gone_before_the_next():
    net, alive = Net(), []
    with IMGrad().accumulate() as step:
        for task in range(3):
            losses = net.losses()
            step.backward([loss if k == task else None for k, loss in enumerate(losses)], *lists(net))
            alive.append(weakref.ref(losses[task]))
            del losses
            assert alive[-1]() is None


@pytest.mark.parametrize("name", ["imgrad", "uw", "gradvac"])
def test_an_exception_drops_the_step(name):
    net, combiner = Net(), make_combiner(name)

    def interrupted():
        with combiner.accumulate() as step:
            step.backward([1e4 * loss for loss in net.losses()], *lists(net))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert all(parameter.grad is None for parameter in net.parameters())
    found = combiner.backward(net.losses(), *lists(net))
    expected = by_jacobian(make_combiner(name), net, net.losses())  # of a combiner that has seen nothing
    torch.testing.assert_close(flat(found.gradient), flat(expected.gradient))


def test_a_step_in_between_is_a_step_of_its_own():
    net, combiner = Net(), IMGrad()
    with combiner.accumulate() as step:
        step.backward([loss / 2 for loss in net.losses(4)], *lists(net))
        combiner.backward(net.losses(), *lists(net))
        once = trunk_gradient(net).clone()
        net.zero_grad()
        step.backward([loss / 2 for loss in net.losses(4, 4)], *lists(net))
    torch.testing.assert_close(trunk_gradient(net), once)


@pytest.mark.parametrize("name", ["imgrad", "linear_scalarization", "adatask"])
def test_absent_tasks_and_a_gradient_scaler(name):
    net, other = Net(), Net()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    expected = by_jacobian(make_combiner(name), other, [other.losses()[task] for task in (0, 2)], [0, 2])
    with make_combiner(name).accumulate(grad_scaler=scaler) as step:
        for offset in (0, 4):
            losses = [loss / 2 for loss in net.losses(4, offset)]
            step.backward([losses[2], losses[0]], net.trunk, net.heads, tasks=[2, 0])
    assert step.tasks == [0, 2]
    torch.testing.assert_close(trunk_gradient(net) / 1024, flat(expected.gradient))
    assert net.heads[1].weight.grad is None
    # An overflow is the scaler's to skip.
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    optimizer.zero_grad()
    before = copy.deepcopy(net.state_dict())
    with make_combiner(name).accumulate(grad_scaler=scaler) as step:
        step.backward([1e306 * loss for loss in net.losses()], *lists(net))
        step.backward(net.losses(), *lists(net))
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() < 1024
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["imgrad", "linear_scalarization"])
def test_a_fault_is_told_when_the_block_ends(name):
    net = Net()
    bad = [loss * (torch.nan if k == 1 else 1) for k, loss in enumerate(net.losses())]
    with pytest.raises(NonFiniteError, match="loss of task 1"), make_combiner(name).accumulate() as step:
        fill(step, (bad, *lists(net)), (net.losses(), *lists(net)))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_misuse_is_named():
    net, combiner = Net(), IMGrad()
    with pytest.raises(ArgumentError, match="inside the block"):
        combiner.accumulate().backward(net.losses(), *lists(net))
    with pytest.raises(ArgumentError, match="nothing was accumulated"), combiner.accumulate():
        pass
    with combiner.accumulate() as step:
        step.backward(net.losses(), *lists(net))
    with pytest.raises(ArgumentError, match="for one step"), step:
        pass
    with pytest.raises(ArgumentError, match="inside the block"):
        step.backward(net.losses(), *lists(net))
    other = (net.losses(), net.trunk[0], [*net.trunk[2].parameters(), *net.heads.parameters()])
    with pytest.raises(ArgumentError, match="the same parameters"), combiner.accumulate() as step:
        fill(step, (net.losses(), *lists(net)), other)
    with pytest.raises(ArgumentError, match="heads must be"):
        combiner.accumulate(heads="both")
    with pytest.raises(ArgumentError, match="does not go with a grad_scaler"):
        combiner.accumulate(grad_scaler=torch.amp.GradScaler("cpu"), on_nonfinite="skip")


def test_a_combiner_is_copied_and_pickled_after_a_step():
    import pickle

    net, combiner = Net(), make_example("imgrad", 3)
    combiner.backward(net.losses(), *lists(net))
    others = copy.deepcopy(combiner), pickle.loads(pickle.dumps(combiner))
    expected = combiner.backward(net.losses(), *lists(net)).weights
    for other in others:
        assert torch.equal(other.backward(net.losses(), *lists(net)).weights, expected)
