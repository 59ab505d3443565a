"""Forgotten parameters, parameters listed in vain, and constants: gradients that would silently not arrive."""

import copy

import pytest
import torch
from torch import nn

from mtrl_imgrad.combiners import IMGrad, LinearScalarization, list_combiners, make_combiner
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.per_loss import lists as list_checks
from mtrl_imgrad.gradients.per_loss.inputs import read_inputs
from tests.gradients.test_backward import Net
from tests.support.combiners.examples import make_example

NAMES = list_combiners()


def losses_of(net: Net) -> list[torch.Tensor]:
    """Positive losses, for all methods."""
    return [loss + 1 for loss in net.losses()]


@pytest.mark.parametrize("name", NAMES)
def test_a_forgotten_parameter_is_named(name):
    net, combiner = Net(), make_example(name, 3)
    with pytest.raises(ArgumentError, match=r"6 of the parameters.*'heads\.0\.weight' of Net, of shape \[1, 5\]"):
        combiner.backward(losses_of(net), net.trunk.parameters())
    assert all(parameter.grad is None for parameter in net.parameters())
    combiner.backward(losses_of(net), net.trunk, net.heads)
    net.zero_grad()
    combiner.backward(losses_of(net), net.trunk, ())  # said aloud
    assert net.heads[0].weight.grad is None
    assert net.trunk[0].weight.grad.abs().sum() > 0


def test_wherever_it_is_forgotten():
    net, combiner = Net(), IMGrad()
    with pytest.raises(ArgumentError, match=r"1 of the parameters.*'heads\.2\.bias' of Net.*the loss of task 2"):
        combiner.backward(losses_of(net), net.trunk, [*net.heads[:2].parameters(), net.heads[2].weight])
    with pytest.raises(ArgumentError, match=r"'trunk\.2\.bias' of Net.*the loss of task 0, 1, 2"):
        combiner.backward(losses_of(net), list(net.trunk.parameters())[:-1], net.heads)
    with pytest.raises(ArgumentError, match="'heads"), combiner.accumulate() as step:
        step.backward(losses_of(net), net.trunk)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("own", [None, ()])
def test_the_parameters_of_a_copy_are_an_error(name, own):
    net = Net()
    with pytest.raises(ArgumentError, match=r"no loss depends on any parameter of shared.*a copy"):
        make_example(name, 3).backward(losses_of(net), copy.deepcopy(net).trunk, own)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [torch.Tensor.detach, lambda loss: loss.detach().clone()])
def test_a_constant_is_an_error(name, make):
    net = Net()
    losses = losses_of(net)
    losses[1] = make(losses[1])
    with pytest.raises(ArgumentError, match=r"losses\[1\] is a constant.*absent.* is None"):
        make_example(name, 3).backward(losses, net.trunk, net.heads)
    with pytest.raises(ArgumentError, match="constant"), make_example(name, 3).accumulate() as step:
        step.backward(losses, net.trunk, net.heads)
    with torch.no_grad(), pytest.raises(ArgumentError, match=r"losses\[0\] is a constant"):
        make_example(name, 3).backward(losses_of(net), net.trunk, net.heads)


@pytest.mark.parametrize("name", ["imgrad", "graddrop", "uw", "cagrad_fast"])
def test_a_parameter_that_no_loss_reaches_is_said_once(name):
    net, combiner = Net(), make_example(name, 3)
    spare = nn.Linear(2, 2).double()
    shared = nn.ModuleList([net.trunk, spare])
    with pytest.warns(UserWarning, match="no loss reaches") as said:
        [combiner.backward(losses_of(net), shared, net.heads) for _ in range(5)]
    assert [str(one.message) for one in said] == [
        "no loss reaches shared['1.weight'] ('1.weight' of ModuleList, of shape [2, 2]); shared['1.bias'] "
        "('1.bias' of ModuleList, of shape [2]): .grad stays as it is there (said once)"
    ]
    assert spare.weight.grad is None


@pytest.mark.parametrize("name", ["imgrad", "uw"])
def test_a_task_that_is_cut_off_from_the_trunk_is_said_once(name):
    net, combiner = Net(), make_example(name, 3)

    def losses():
        z = net.trunk(torch.ones(4, 4, dtype=torch.float64))
        return [head(z.detach() if k == 1 else z).square().mean() + 1 for k, head in enumerate(net.heads)]

    with pytest.warns(UserWarning, match="the loss of task 1 reaches no shared parameter") as said:
        [combiner.backward(losses(), net.trunk, net.heads) for _ in range(3)]
    assert len(said) == 1


def test_heads_of_absent_tasks_are_not_called_unused():
    """Warnings are errors here. One task a step: the rest of the heads is not reached, and rightly so."""
    net, combiner, other = Net(), IMGrad(), IMGrad()
    for step in range(40):
        task = step % 3
        combiner.backward([net.losses()[task]], net.trunk, net.heads, tasks=[task])
        combiner.backward([loss if k == task else None for k, loss in enumerate(net.losses())], net.trunk, net.heads)
    with pytest.warns(UserWarning, match="no loss reaches"):
        # The same tasks again and again: the last head is of no use.
        [other.backward(net.losses()[:2], net.trunk, net.heads, tasks=[0, 1]) for _ in range(8)]


def test_an_exhausted_iterator_is_no_list():
    net = Net()
    own = net.heads.parameters()
    IMGrad().backward(net.losses(), net.trunk, own)
    with pytest.raises(ArgumentError, match=r"'heads\.0\.weight'"):
        IMGrad().backward(net.losses(), net.trunk, own)
    frozen = [parameter.requires_grad_(False) for parameter in net.heads[0].parameters()]
    with pytest.raises(ArgumentError, match=r"'heads\.1\.weight'"):
        IMGrad().backward(net.losses(), net.trunk, frozen)
    shared = net.trunk.parameters()
    list(shared)
    with pytest.raises(ArgumentError, match="shared must hold at least one.*an iterator serves once"):
        IMGrad().backward(net.losses(), shared, ())


def test_names_come_from_modules_pairs_and_mappings():
    net = Net()
    for shared in (net.trunk, net.trunk.named_parameters(), dict(net.trunk.named_parameters())):
        with pytest.raises(ArgumentError, match=r"task_specific\['trunk\.0\.weight'\] is shared\['0\.weight'\]"):
            IMGrad().backward(net.losses(), shared, net.named_parameters())
    with pytest.raises(ArgumentError, match=r"ignore must not hold .*task_specific\['1\.weight'\]"):
        IMGrad().backward(net.losses(), net.trunk, net.heads, ignore=net.heads[1])
    for wrong in ([("a", 3)], [{"params": []}], "abc", [None]):
        with pytest.raises(ArgumentError, match="shared must"):
            IMGrad().backward(net.losses(), wrong, net.heads)


def test_what_no_parameter_can_be_is_named():
    net = Net()
    with pytest.raises(ArgumentError, match=r"shared\[1\] must be a parameter \(a leaf tensor\)"):
        IMGrad().backward(net.losses(), [net.trunk[0].weight, 2 * net.trunk[0].bias], net.heads)
    with pytest.raises(ArgumentError, match="has no shape yet"):
        IMGrad().backward(net.losses(), [*net.trunk.parameters(), *nn.LazyLinear(3).parameters()], net.heads)
    sparse = torch.eye(3).to_sparse().requires_grad_()
    with pytest.raises(ArgumentError, match=r"shared\[4\] must be a dense tensor"):
        IMGrad().backward(net.losses(), [*net.trunk.parameters(), sparse], net.heads)
    index = torch.arange(3)
    with pytest.raises(ArgumentError, match="requires a gradient"):
        IMGrad().backward(net.losses(), [index], net.heads)
    meta = nn.Parameter(torch.ones(2, device="meta"))
    with pytest.raises(ArgumentError, match=r"on one device, got cpu and meta for shared\[4\]"):
        IMGrad().backward(net.losses(), [*net.trunk.parameters(), meta], net.heads)
    empty = nn.Linear(2, 2, device="meta")
    with pytest.raises(ArgumentError, match=r"shared\['weight'\] lies on the meta device"):
        IMGrad().backward(list(empty(torch.ones(2, device="meta"))), empty)
    with pytest.raises(ArgumentError, match="transformation of torch.func"):
        torch.func.grad(lambda y: IMGrad().backward([y.sum(), y.prod()], [y]).weights.sum())(torch.ones(2))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda loss: loss.to(torch.complex128), "real floating point"),
        (lambda loss: loss.expand(2), r"shape \(2,\) for losses\[1\]"),
        (lambda loss: loss.item(), r"float for losses\[1\]"),
        (lambda loss: loss.long(), "real floating point"),
        (lambda loss: loss[None, None], None),
    ],
)
def test_losses_of_the_wrong_type_are_named(spoil, message):
    net = Net()
    losses = net.losses()
    losses[1] = spoil(losses[1])
    if message is None:  # one number, whatever its shape
        assert IMGrad().backward(losses, net.trunk, net.heads).weights.shape == (3,)
        return
    with pytest.raises(ArgumentError, match=message):
        IMGrad().backward(losses, net.trunk, net.heads)
    for wrong in ([], [None, None], {"a": losses[0]}, losses[0]):
        with pytest.raises(ArgumentError, match="losses must"):
            IMGrad().backward(wrong, net.trunk, net.heads)


def test_losses_of_several_types_and_shapes_go_together():
    net, plain = Net(), Net()
    losses = net.losses()
    found = IMGrad().backward([losses[0].float(), losses[1][None], losses[2]], net.trunk, net.heads)
    expected = IMGrad().backward(plain.losses(), plain.trunk, plain.heads)
    torch.testing.assert_close(found.weights, expected.weights, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(net.heads[0].weight.grad, plain.heads[0].weight.grad, rtol=1e-4, atol=1e-6)


def test_features_must_be_what_all_shared_parameters_feed():
    net = Net()
    x = torch.ones(4, 4, dtype=torch.float64)
    z = net.trunk(x)
    losses = [head(z).square().mean() for head in net.heads]
    past = [losses[0], losses[1] + net.trunk[0].bias.square().sum(), losses[2]]
    with pytest.raises(ArgumentError, match=r"task 1 reaches shared\[1\] on a way that avoids the features"):
        IMGrad().backward(past, net.trunk.parameters(), net.heads, features=z, retain_graph=True)
    own = [net.trunk[0].weight, *net.heads.parameters()]
    with pytest.raises(ArgumentError, match=r"task_specific\[0\] lies below features\[0\]"):
        IMGrad().backward(losses, list(net.trunk.parameters())[1:], own, features=z, retain_graph=True)
    y = z.tanh()
    both = [loss + y.sum() for loss in losses]
    with pytest.raises(ArgumentError, match=r"features\[1\] was computed from another of the features"):
        IMGrad().backward(both, net.trunk, net.heads, features=[z, y])
    with pytest.raises(ArgumentError, match="must not hold a tensor twice"):
        IMGrad().backward(both, net.trunk, net.heads, features=[z, z])
    left, right = net.trunk(x).chunk(2, -1)  # two outputs of one operation
    halves = [left.square().sum(), (left.sum() + 2 * right.sum()).square()]
    IMGrad().backward(halves, net.trunk, features=[left, right])


def test_graphs_are_looked_at_when_lists_or_tasks_are_new_and_ever_more_rarely(monkeypatch):
    walks = []
    monkeypatch.setattr(list_checks, "leaves_of", lambda *given: walks.append(1) or {id(x): list_checks.Leaf(x, "")})
    x, y = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    combiner = LinearScalarization()
    for _ in range(100):
        combiner.backward([x.sum()], [x])
    assert len(walks) == 7  # calls 1, 2, 4, ..., 64
    combiner.backward([x.sum(), x.sum()], [x])
    assert len(walks) == 8  # the new task
    x = y
    for _ in range(3):
        combiner.backward([y.sum()], [y])
    assert len(walks) == 10  # new lists; the same lists again are known
    for x in [nn.Parameter(torch.ones(2)) for _ in range(list_checks.MOST_LISTS)]:
        combiner.backward([x.sum()], [x])
    assert len(combiner.list_checks._seen) == list_checks.MOST_LISTS


def test_a_graph_that_grows_later_is_noticed():
    net, late, combiner = Net(), nn.Parameter(torch.ones((), dtype=torch.float64)), LinearScalarization()
    for _ in range(5):
        combiner.backward(net.losses(), net.trunk, net.heads)
    with pytest.raises(ArgumentError, match="1 of the parameters"):
        [combiner.backward([loss * late for loss in net.losses()], net.trunk, net.heads) for _ in range(5)]


def test_new_parameters_in_the_place_of_old_ones_are_new():
    """Python may give a new tensor the ``id`` of one that is gone."""
    combiner, keys = LinearScalarization(), set()
    for _ in range(50):
        x = nn.Parameter(torch.ones(2))
        keys.add(id(x))
        combiner.backward([x.sum()], [x])
        assert combiner.list_checks._of(read_inputs([x], None)).calls == 1
        del x  # and it is gone, for it is no part of a cycle
    assert len(keys) < 50  # so that there was something to find out


def test_nothing_is_said_of_lists_that_are_right(recwarn):
    net = Net()
    for name in ("imgrad", "uw"):
        combiner = make_combiner(name)
        for _ in range(5):
            combiner.backward(losses_of(net), net.trunk, net.heads)
            combiner.backward(losses_of(net), net.trunk, net.heads, features=None)
    assert [str(warning.message) for warning in recwarn] == []
