"""`Combiner.backward` against gradients taken one by one with plain autograd."""

import copy

import pytest
import torch
from torch import nn

from mtrl_imgrad.combiners import IMGrad, LinearScalarization, Status, make_combiner
from mtrl_imgrad.errors import ArgumentError, NonFiniteError

METHODS = ["linear_scalarization", "cagrad", "imgrad", "mgda", "nash_mtl", "upgrad"]


class Net(nn.Module):
    """A trunk of two layers and a head a task; float64."""

    def __init__(self, num_tasks: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh()).double()
        self.heads = nn.ModuleList(nn.Linear(5, 1).double() for _ in range(num_tasks))

    def losses(self, rows: int = 8, offset: int = 0) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(7)
        x = torch.randn(64, 4, generator=generator, dtype=torch.float64)[offset : offset + rows]
        y = torch.randn(64, len(self.heads), generator=generator, dtype=torch.float64)[offset : offset + rows]
        z = self.trunk(x)
        scales = (1.0, 10.0, 0.1)
        return [
            s * (head(z)[:, 0] - y[:, k]).square().mean()
            for k, (head, s) in enumerate(zip(self.heads, scales, strict=False))
        ]


def jacobian(net: Net, losses: list[torch.Tensor]) -> torch.Tensor:
    parameters = list(net.trunk.parameters())
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses]
    return torch.stack(
        [
            torch.cat(
                [(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(row, parameters, strict=False)]
            )
            for row in rows
        ]
    )


def trunk_gradient(net: Net) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in net.trunk.parameters()])


def head_gradients(net: Net) -> list[torch.Tensor]:
    return [torch.cat([head.weight.grad[0], head.bias.grad]) for head in net.heads]


def plain_head_gradients(net: Net, losses: list[torch.Tensor]) -> list[torch.Tensor]:
    found = [
        torch.autograd.grad(loss, head.parameters(), retain_graph=True)
        for loss, head in zip(losses, net.heads, strict=False)
    ]
    return [torch.cat([weight[0], bias]) for weight, bias in found]


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_those_of_plain_autograd(name, heads):
    net = Net()
    losses = net.losses()
    G, plain = jacobian(net, losses), plain_head_gradients(net, losses)
    expected = make_combiner(name)(G, torch.stack(losses).detach())
    found = make_combiner(name).backward(losses, net.trunk.parameters(), net.heads.parameters(), heads=heads)
    torch.testing.assert_close(trunk_gradient(net), expected.gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.weights, expected.weights)
    factors = expected.weights if heads == "weighted" else torch.ones(3)
    for gradient, its, factor in zip(head_gradients(net), plain, factors, strict=True):
        torch.testing.assert_close(gradient, factor * its)


@pytest.mark.parametrize("name", METHODS)
def test_an_optimizer_steps_as_usual_and_gradients_add_up(name):
    net = Net()
    combiner = make_combiner(name)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    combiner.backward(net.losses(), net.trunk.parameters(), net.heads.parameters())
    once = trunk_gradient(net).clone()
    combiner.backward(net.losses(), net.trunk.parameters(), net.heads.parameters())
    torch.testing.assert_close(trunk_gradient(net), 2 * once)
    before = sum(net.losses()).item()
    optimizer.step()
    assert sum(net.losses()).item() < before


@pytest.mark.parametrize("name", ["imgrad", "gradvac"])
def test_none_is_an_absent_task(name):
    net, other = Net(), Net()
    losses = net.losses()
    G = jacobian(net, losses)
    expected = make_combiner(name)(G[[0, 2]], torch.stack(losses)[[0, 2]].detach(), tasks=[0, 2])
    found = make_combiner(name).backward([losses[0], None, losses[2]], net.trunk.parameters(), net.heads.parameters())
    torch.testing.assert_close(trunk_gradient(net), expected.gradient)
    assert found.weights.shape == (2,)
    assert net.heads[1].weight.grad is None
    named = other.losses()
    make_combiner(name).backward([named[2], named[0]], other.trunk.parameters(), (), tasks=[2, 0])
    if name == "imgrad":  # GradVac's order is random
        torch.testing.assert_close(trunk_gradient(other), expected.gradient)


def test_frozen_and_unused_parameters_are_left_alone():
    net = Net()
    net.trunk[0].bias.requires_grad_(False)
    unused = nn.Parameter(torch.ones(3))
    with pytest.warns(UserWarning, match=r"no loss reaches shared\[4\]"):
        IMGrad().backward(net.losses(), [*net.trunk.parameters(), unused], net.heads.parameters())
    assert net.trunk[0].bias.grad is None
    assert unused.grad is None
    assert net.trunk[0].weight.grad is not None


def test_a_parameter_that_some_tasks_do_not_use_has_zero_rows():
    net = Net(num_tasks=2)
    extra = nn.Parameter(torch.ones((), dtype=torch.float64))
    losses = net.losses()
    losses = [losses[0] * extra, losses[1]]
    G = torch.cat([jacobian(net, losses), torch.stack([losses[0].detach(), torch.tensor(0.0)])[:, None]], 1)
    IMGrad().backward(losses, [*net.trunk.parameters(), extra], ())
    torch.testing.assert_close(extra.grad, IMGrad()(G).gradient[-1])


@pytest.mark.parametrize("name", ["imgrad", "linear_scalarization"])
def test_the_combined_gradient_is_clipped_and_heads_are_not(name):
    net, free = Net(), Net()
    make_combiner(name).backward(net.losses(), net.trunk.parameters(), net.heads.parameters(), max_grad_norm=1e-3)
    make_combiner(name).backward(free.losses(), free.trunk.parameters(), free.heads.parameters())
    length = trunk_gradient(free).norm()
    torch.testing.assert_close(trunk_gradient(net), trunk_gradient(free) * 1e-3 / length)
    torch.testing.assert_close(head_gradients(net)[1], head_gradients(free)[1])


def test_by_features_takes_the_combination_through_the_trunk():
    net = Net()
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = net.trunk(x)
    losses = [head(z).square().mean() * scale for head, scale in zip(net.heads, (1.0, 5.0, 0.2), strict=False)]
    rows = torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses])
    v = make_combiner("mgda").weights(rows @ rows.T).values
    total = sum(weight * loss for weight, loss in zip(v, losses, strict=False))
    expected = torch.autograd.grad(total, list(net.trunk.parameters()), retain_graph=True)
    plain = plain_head_gradients(net, losses)
    found = make_combiner("mgda").backward(losses, net.trunk.parameters(), net.heads.parameters(), features=z)
    torch.testing.assert_close(found.weights, v)
    torch.testing.assert_close(trunk_gradient(net), torch.cat([g.flatten() for g in expected]))
    for gradient, its in zip(head_gradients(net), plain, strict=True):
        torch.testing.assert_close(gradient, its)


def test_weights_may_be_kept_for_some_steps():
    net = Net()
    combiner, every = IMGrad(update_every=3), IMGrad()
    weights = []
    for _ in range(5):
        net.zero_grad()
        losses = net.losses()
        G, plain = jacobian(net, losses), plain_head_gradients(net, losses)
        assert combiner.needs_jacobian() == (len(weights) in (0, 3))
        found = combiner.backward(losses, net.trunk.parameters(), net.heads.parameters())
        weights.append(every(G).weights if len(weights) in (0, 3) else weights[-1])
        torch.testing.assert_close(found.weights, weights[-1])
        torch.testing.assert_close(trunk_gradient(net), weights[-1] @ G)
        torch.testing.assert_close(head_gradients(net)[2], plain[2])
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.05 * parameter.grad


@pytest.mark.parametrize(("reduction", "of_three", "of_two"), [("mean", 1 / 3, 1 / 2), ("sum", 1.0, 1.0)])
def test_kept_weights_of_fewer_tasks_are_in_their_unit(reduction, of_three, of_two):
    """Of equal and orthogonal gradients any method takes the mean: of those present."""
    combiner = make_combiner("mgda", update_every=3, reduction=reduction)
    M = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(combiner.weights(M).values, torch.full((3,), of_three, dtype=torch.float64))
    two = torch.full((2,), of_two, dtype=torch.float64)
    torch.testing.assert_close(combiner.weights_of_losses(torch.ones(2), [2, 0]).values, two)
    torch.testing.assert_close(combiner.weights(M[:2, :2], tasks=[1, 0]).values, two)


def test_kept_weights_continue_from_a_state_and_know_their_tasks():
    M = torch.tensor([[4.0, -1.0], [-1.0, 1.0]])
    combiner = IMGrad(update_every=3)
    combiner.weights(M)
    other = IMGrad(update_every=3)
    other.load_state_dict(copy.deepcopy(combiner.state_dict()))
    for step in range(3):
        M = M + 0.3 * step * torch.eye(2)
        assert torch.equal(combiner.weights(M).values, other.weights(M).values)
    assert not combiner.needs_jacobian([1, 0])
    assert combiner.needs_jacobian([1, 2])
    first, second = combiner.weights(M).values, IMGrad(update_every=3)
    second.load_state_dict(combiner.state_dict())
    torch.testing.assert_close(second.weights(M, tasks=[1, 0]).values, first.flip(0))
    second.load_state_dict(combiner.state_dict())
    with pytest.raises(ArgumentError, match="weights were found for 2 tasks, got 3"):
        second.weights_of_losses(torch.ones(3))
    with pytest.raises(ArgumentError, match="has a wrong part 'frozen'"):
        second.load_state_dict({"frozen": {"age": 1}})
    for name in ("residual", "status_code"):
        state = combiner.state_dict()
        state["frozen"][name] = torch.ones(2)
        with pytest.raises(ArgumentError, match="has a wrong part 'frozen'"):
            second.load_state_dict(state)


def test_a_step_that_is_not_finite_leaves_no_weights_behind():
    M = torch.tensor([[4.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    combiner, lost = IMGrad(update_every=2), torch.full((2, 2), torch.nan)
    assert combiner.weights(lost).status == Status.NON_FINITE
    assert combiner.needs_jacobian()  # nothing to go on with: solve again
    good = combiner.weights(M).values
    assert torch.equal(combiner.weights(lost).values, good)  # a step between looks at no gradient
    assert combiner.weights(lost).values.isnan().all()  # this one does
    found = combiner.weights(lost)
    assert torch.equal(found.values, good)
    assert found.status == Status.SOLVED


def test_kept_weights_survive_a_gradient_scaler_that_starts_too_high():
    """Gradients overflow at first and the scaler skips those steps, no more of them than if every step solved."""

    def scale_after(combiner):
        net = Net().float()
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-6)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
        z = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
        for _ in range(18):
            losses = [1e3 * head(net.trunk(z)).square().mean() for head in net.heads]
            found = combiner.backward(losses, net.trunk.parameters(), net.heads.parameters(), grad_scaler=scaler)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        assert found.weights.isfinite().all()
        return scaler.get_scale()

    expected = scale_after(IMGrad())
    assert expected < 2.0**120
    assert scale_after(IMGrad(update_every=16)) == expected


def test_unused_parameters_keep_their_place_in_the_memory():
    """Two parameters of one shape, of which each step uses one: their moments must not be mistaken for each other."""
    combiner = make_combiner("adatask")
    first, second = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    with pytest.warns(UserWarning, match=r"no loss reaches shared\[1\]"):
        combiner.backward([3 * first.sum()], [first, second])
    assert second.grad is None
    combiner.backward([5 * second.sum()], [first, second])  # said once
    m, v = combiner.state_dict()["first_moments"], combiner.state_dict()["second_moments"]
    torch.testing.assert_close(m[0], torch.full((1, 2), 0.9 * 0.1 * 3, dtype=torch.float64))
    torch.testing.assert_close(m[1], torch.full((1, 2), 0.1 * 5, dtype=torch.float64))
    torch.testing.assert_close(v[1], torch.full((1, 2), 0.001 * 25, dtype=torch.float64))


@pytest.mark.parametrize("name", ["imgrad", "sdmgrad_os", "adatask", "linear_scalarization", "uw"])
def test_losses_that_reach_no_shared_parameter_are_refused(name):
    own, shared = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    with pytest.raises(ArgumentError, match="no loss depends on any parameter of shared"):
        make_combiner(name).backward([own.sum(), own.square().sum()], [shared], [own])


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
@pytest.mark.parametrize("name", ["imgrad", "linear_scalarization"])
def test_a_gradient_scaler_changes_nothing_but_its_scale(name, heads):
    net, plain = Net(), Net()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    arguments = {"heads": heads, "max_grad_norm": 0.5}
    make_combiner(name).backward(
        net.losses(), net.trunk.parameters(), net.heads.parameters(), grad_scaler=scaler, **arguments
    )
    make_combiner(name).backward(plain.losses(), plain.trunk.parameters(), plain.heads.parameters(), **arguments)
    torch.testing.assert_close(trunk_gradient(net), 1024 * trunk_gradient(plain))
    torch.testing.assert_close(head_gradients(net)[1], 1024 * head_gradients(plain)[1])


def test_a_gradient_scaler_skips_a_step_that_overflows():
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    before = copy.deepcopy(net.state_dict())
    losses = [1e300 * loss for loss in net.losses()]
    IMGrad().backward(losses, net.trunk.parameters(), net.heads.parameters(), grad_scaler=scaler)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() < 1e38
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_autocast_gradients_are_combined_in_double():
    net = Net().float()
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = net.trunk(x)
        losses = [head(z).float().square().mean() for head in net.heads]
    found = IMGrad().backward(losses, net.trunk.parameters(), net.heads.parameters())
    assert found.weights.dtype == torch.float64
    assert trunk_gradient(net).dtype == torch.float32


@pytest.mark.parametrize("name", ["imgrad", "linear_scalarization"])
def test_a_gradient_that_is_not_finite_names_its_task_and_leaves_grad_alone(name):
    net = Net()
    losses = net.losses()
    losses[1] = losses[1] * torch.nan
    with pytest.raises(NonFiniteError, match="loss of task 1"):
        make_combiner(name).backward(losses, net.trunk.parameters(), net.heads.parameters())
    assert all(parameter.grad is None for parameter in net.parameters())
    bad = net.trunk[0].weight.sum()
    losses = net.losses()
    losses[2] = losses[2] + (bad - bad.detach()).abs().sqrt()  # finite, with an infinite derivative
    with pytest.raises(NonFiniteError, match="task 2" if name == "imgrad" else "weighted losses"):
        make_combiner(name).backward(losses, net.trunk.parameters(), net.heads.parameters())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_an_infinite_derivative_of_a_scalar_parameter_is_named():
    x, y = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.tensor(0.0))
    with pytest.raises(NonFiniteError, match=r"task 1 is NaN or infinite in shared\[1\]"):
        IMGrad().backward([(x * (y + 1)).sum(), y.abs().sqrt()], [x, y])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": "both"}, "heads must be"),
        ({"max_grad_norm": 0}, "max_grad_norm must be"),
        ({"tasks": 3}, "tasks must"),
        ({"tasks": [0, 1]}, "tasks must hold one id for each of 3"),
        ({"tasks": [0, 1, 1]}, "a task twice"),
        ({"tasks": {2, 1, 0}}, "tasks must be a sequence"),
        ({"tasks": iter((2, 1, 0))}, "tasks must be a sequence"),
        ({"tasks": [0, 1, 10**6]}, "tasks must be numbered from 0 on"),
        ({"losses": torch.ones(2, 2)}, "losses must be"),
        ({"losses": [torch.ones(()), torch.ones(())]}, r"losses\[0\] is a constant"),
        ({"shared": []}, "shared must hold"),
        ({"shared": torch.ones(3)}, "shared must be an iterable"),
        ({"shared": [1]}, "shared must hold parameters"),
        ({"features": torch.ones(3)}, "features must be"),
    ],
)
def test_bad_arguments_are_named(change, message):
    net = Net()
    given = (
        dict(losses=net.losses(), shared=list(net.trunk.parameters()), task_specific=[], **change)
        if not ({"losses", "shared"} & set(change))
        else {"losses": net.losses(), "shared": list(net.trunk.parameters()), **change}
    )
    with pytest.raises(ArgumentError, match=message):
        IMGrad().backward(**given)


def test_a_parameter_belongs_to_one_side():
    net = Net()
    with pytest.raises(ArgumentError, match="shared holds, too"):
        IMGrad().backward(net.losses(), net.parameters(), net.heads.parameters())
    with pytest.raises(ArgumentError, match="twice"):
        IMGrad().backward(net.losses(), [net.trunk[0].weight, net.trunk[0].weight])
    with pytest.raises(ArgumentError, match="no loss depends"):
        IMGrad().backward(net.losses(), [nn.Parameter(torch.ones(2))])


def test_losses_may_come_as_one_tensor():
    net, other = Net(), Net()
    LinearScalarization().backward(torch.stack(net.losses()), net.trunk.parameters(), ())
    LinearScalarization().backward(other.losses(), other.trunk.parameters(), ())
    torch.testing.assert_close(trunk_gradient(net), trunk_gradient(other))
