"""Gradients of every type that autograd gives: complex, sparse, half, strided, shared in memory, with hooks."""

import copy

import pytest
import torch
from torch import nn

from mtrl_imgrad.combiners import IMGrad, LinearScalarization, list_combiners, make_combiner
from mtrl_imgrad.errors import ArgumentError
from tests.support.combiners.examples import list_variants, make_example

NAMES = list_combiners()
VARIANTS = list_variants(3)
A = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def complex_losses(z: torch.Tensor, w: torch.Tensor) -> list[torch.Tensor]:
    """Three positive losses of a complex ``z`` [2] and a real ``w`` [2]."""
    parts = torch.cat([torch.view_as_real(z).flatten()])
    return [(10.0**k * (a * parts).sum() + w[k % 2]).square() + 0.1 * w.square().sum() + 1 for k, a in enumerate(A)]


def complex_point() -> tuple[nn.Parameter, nn.Parameter]:
    z = nn.Parameter(torch.tensor([1.0 + 2.0j, -0.5 + 0.3j], dtype=torch.complex128))
    return z, nn.Parameter(torch.tensor([0.7, -0.2], dtype=torch.float64))


@pytest.mark.parametrize("word", VARIANTS)
def test_a_complex_parameter_counts_as_its_real_and_imaginary_parts(word):
    """Two steps each; the other combiner sees two real parameters, as torch.optim does."""
    name, arguments = VARIANTS[word]
    z, w = complex_point()
    x, v = nn.Parameter(torch.view_as_real(z.detach()).clone()), nn.Parameter(w.detach().clone())
    ours, other = make_combiner(name, **arguments), make_combiner(name, **arguments)
    for _ in range(2):
        z.grad = w.grad = x.grad = v.grad = None
        found = ours.backward(complex_losses(z, w), [z, w], max_grad_norm=2.0)
        expected = other.backward(complex_losses(torch.view_as_complex(x), v), [x, v], max_grad_norm=2.0)
        if expected.weights is not None:
            torch.testing.assert_close(found.weights, expected.weights)
        torch.testing.assert_close(torch.view_as_real(z.grad), x.grad)
        torch.testing.assert_close(w.grad, v.grad)
        assert found.gradient[0].shape == z.shape


def test_the_gramian_of_complex_gradients_is_the_real_part():
    """By hand: gradients [1] and [i], which are orthogonal as real pairs; the conjugate product alone is i."""
    z = nn.Parameter(torch.zeros(1, dtype=torch.complex128))
    found = make_combiner("mgda").backward([3 * z.real.sum(), z.imag.sum()], [z])
    torch.testing.assert_close(found.gramian, torch.diag(torch.tensor([9.0, 1.0], dtype=torch.float64)))
    torch.testing.assert_close(found.weights, torch.tensor([0.1, 0.9], dtype=torch.float64))
    torch.testing.assert_close(z.grad, torch.tensor([0.3 + 0.9j], dtype=torch.complex128))


@pytest.mark.parametrize("name", ["mgda", "linear_scalarization"])
def test_complex_heads_and_features(name):
    z, w = complex_point()
    head = nn.Parameter(torch.tensor([1.0 + 1.0j, 2.0j], dtype=torch.complex128))
    feature = z * (1 + 2j) + w
    found = make_combiner(name).backward(
        [(head[0] * feature).abs().square().sum(), (head[1] * feature).abs().square().sum()],
        [z, w],
        [head],
        features=feature,
    )
    plain = head.detach().clone().requires_grad_()
    f = feature.detach()
    total = (plain[0] * f).abs().square().sum() + (plain[1] * f).abs().square().sum()
    torch.testing.assert_close(head.grad, torch.autograd.grad(total, plain)[0])
    y = z.detach().clone().requires_grad_()
    weighted = sum(
        weight * (head[k].detach() * (y * (1 + 2j) + w.detach())).abs().square().sum()
        for k, weight in enumerate(found.weights)
    )
    torch.testing.assert_close(z.grad, torch.autograd.grad(weighted, y)[0])


class Embedded(nn.Module):
    """A table of which each task reads some rows, and a layer."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(9, 3, sparse=sparse).double()
        self.layer = nn.Linear(3, 1).double()
        self.own = nn.Embedding(4, 3, sparse=sparse).double()

    def losses(self) -> list[torch.Tensor]:
        rows = ([0, 2, 2], [2, 5, 0], [0, 7, 5])
        values = [self.table(torch.tensor(row)) + self.own(torch.tensor([k])) for k, row in enumerate(rows)]
        return [10.0**k * self.layer(value).square().mean() + 1 for k, value in enumerate(values)]

    @property
    def shared(self) -> list[nn.Parameter]:
        return [self.table.weight, *self.layer.parameters()]


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
@pytest.mark.parametrize("name", NAMES)
def test_sparse_gradients_are_those_of_a_dense_table(name, heads):
    found, expected = Embedded(sparse=True), Embedded(sparse=False)
    if heads == "weighted" and make_example(name, 3).needs == "matrix":
        heads = "unweighted"
    ours, other = make_example(name, 3), make_example(name, 3)
    for _ in range(2):  # the second adds to what is there
        ours.backward(found.losses(), found.shared, [found.own.weight], heads=heads, max_grad_norm=0.5)
        other.backward(expected.losses(), expected.shared, [expected.own.weight], heads=heads, max_grad_norm=0.5)
    for (key, a), b in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert a.grad.is_sparse == (key in ("table.weight", "own.weight"))
        torch.testing.assert_close(a.grad.to_dense(), b.grad)


def test_sparse_adam_steps_and_a_mixture_is_dense():
    net = Embedded(sparse=True)
    adam = torch.optim.SparseAdam([net.table.weight], lr=0.1)
    before = net.table.weight.detach().clone()
    IMGrad().backward(net.losses(), net.shared, [net.own.weight])
    adam.step()
    moved = (net.table.weight != before).any(1)
    assert moved.nonzero()[:, 0].tolist() == [0, 2, 5, 7]
    losses = net.losses()
    losses[1] = losses[1] + net.table.weight.sum()
    net.zero_grad()
    IMGrad().backward(losses, net.shared, [net.own.weight])
    assert not net.table.weight.grad.is_sparse
    IMGrad().backward(net.losses(), net.shared, [net.own.weight])  # sparse on dense
    assert net.table.weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_parameters_take_the_gradient_of_single_ones(name, dtype):
    """On numbers that half precision holds exactly, up to its rounding of the result."""
    x = nn.Parameter(torch.tensor([1.0, 0.5, -2.0], dtype=dtype))
    y = nn.Parameter(x.detach().float())
    rows = torch.tensor([[1.0, 0.0, 0.5], [0.0, 2.0, 1.0], [-1.0, 0.5, 0.0]])

    def losses(p):
        return [(row.to(p) * p).sum() + 4 for row in rows]

    make_example(name, 3).backward(losses(x), [x])
    make_example(name, 3).backward(losses(y), [y])
    assert x.grad.dtype == dtype
    torch.testing.assert_close(x.grad.float(), y.grad, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["imgrad", "linear_scalarization"])
def test_large_half_precision_gradients_are_finite(name):
    """Their norm is not a number of half precision."""
    x = nn.Parameter(torch.zeros(1000, dtype=torch.float16))
    make_combiner(name).backward([(3000 * x).sum(), (1000 * x).sum()], [x])
    assert x.grad.isfinite().all()
    x.grad = None
    make_combiner(name).backward([(3000 * x).sum(), (1000 * x).sum()], [x], max_grad_norm=1.0)
    torch.testing.assert_close(x.grad.float().norm(), torch.tensor(1.0), rtol=1e-2, atol=0)
    y = nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**17)
    small = [(2.0**-20 * y).sum(), (2.0**-21 * y).sum()]
    found = make_combiner(name).backward(small, [y], grad_scaler=scaler)
    assert y.grad.isfinite().all()
    torch.testing.assert_close(y.grad.float() / 2.0**17, found.gradient[0].float(), rtol=1e-2, atol=0)


def test_a_disabled_scaler_is_none():
    x = nn.Parameter(torch.ones(2))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    with pytest.raises(ValueError, match="task 1"):
        IMGrad().backward([x.sum(), x.sum() * torch.nan], [x], grad_scaler=scaler)
    assert IMGrad().backward([x.sum(), x.sum() * torch.nan], [x], grad_scaler=scaler, on_nonfinite="skip").skipped


@pytest.mark.parametrize("name", NAMES)
def test_fused_optimizers_step_channels_last_weights_as_others_do(name):
    """They walk through gradient and parameter in the order of the memory, so both must have the same strides."""

    def step(fused, channels_last):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))
        net = net.to(memory_format=torch.channels_last) if channels_last else net
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=fused)
        losses = net(torch.linspace(-1, 1, 36).view(2, 2, 3, 3)).square().mean(0) + 1
        make_example(name, 3).backward(list(losses), net.parameters())
        optimizer.step()
        assert net[0].weight.grad.stride() == net[0].weight.stride()
        return net[0].weight.detach().contiguous()

    torch.testing.assert_close(step(True, True), step(False, False))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_share_no_memory(name):
    """Autograd hands out one tensor for both terms of a sum, and one number for all entries of a sum."""
    a, b, own = (nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(3))
    found = make_example(name, 3).backward([(k + 1) * (a + b + own).sum() for k in range(3)], [a, b], [own])
    expected = [one.grad.clone() for one in (a, b, own)]
    nn.utils.clip_grad_norm_([a, b, own], 1e-3)  # in place
    norm = torch.cat(expected).norm()
    for one, before in zip((a, b, own), expected, strict=True):
        torch.testing.assert_close(one.grad, before * 1e-3 / (norm + 1e-6))
    torch.testing.assert_close(found.gradient[0], expected[0])  # nor with the report


@pytest.mark.parametrize("name", NAMES)
def test_grad_keeps_its_place(name):
    """``zero_grad(set_to_none=False)`` and views into flat buffers rely on it."""
    x = nn.Parameter(torch.ones(3, dtype=torch.float64))
    flat = torch.full((5,), 7.0, dtype=torch.float64)
    x.grad = flat[1:4]
    found = make_example(name, 3).backward([(x * (k + 1)).sum() for k in range(3)], [x])
    torch.testing.assert_close(flat[1:4], 7 + found.gradient[0])
    assert flat[[0, 4]].tolist() == [7.0, 7.0]


@pytest.mark.parametrize(("name", "times"), [("imgrad", 2), ("linear_scalarization", 1)])
def test_which_hooks_fire(name, times):
    x, own = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    fired, after = [], []
    x.register_hook(lambda gradient: fired.append(gradient) or 2 * gradient)
    for one in (x, own):
        one.register_post_accumulate_grad_hook(lambda one: after.append(one.grad.clone()))
    losses = [(x * own).sum(), (x * own).sum()]
    found = make_combiner(name).backward(losses, [x], [own])
    assert len(fired) == times
    assert len(after) == 2
    torch.testing.assert_close(after[0], x.grad)
    torch.testing.assert_close(x.grad, found.weights.sum().float() * 2 * torch.ones(2))


def test_an_optimizer_in_the_backward_steps():
    x = nn.Parameter(torch.ones(2))
    sgd = torch.optim.SGD([x], lr=0.5)

    def step(_):
        sgd.step()
        sgd.zero_grad()

    x.register_post_accumulate_grad_hook(step)
    LinearScalarization().backward([x.sum(), x.sum()], [x])
    assert x.tolist() == [0.5, 0.5]
    assert x.grad is None


@pytest.mark.parametrize("name", ["imgrad", "uw", "cagrad_fast", "graddrop"])
def test_it_works_under_no_grad_and_keeps_the_graph_if_asked(name):
    x, own = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    losses = torch.stack([(x * own).square().sum(), (x + own).exp().sum(), x.sum() * own.prod()])
    combiner = make_example(name, 3)
    state = copy.deepcopy(combiner.state_dict())
    with torch.no_grad():
        combiner.backward(losses, [x], [own], retain_graph=True)
    once, its = x.grad.clone(), own.grad.clone()
    combiner.load_state_dict(state)
    combiner.backward(losses, [x], [own])
    torch.testing.assert_close(x.grad, 2 * once)
    torch.testing.assert_close(own.grad, 2 * its)
    with pytest.raises(RuntimeError, match="retain_graph"):
        combiner.backward(losses, [x], [own])
    with torch.inference_mode(), pytest.raises(ArgumentError, match="inference_mode"):
        combiner.backward(losses, [x], [own])


def test_losses_may_hold_gradients_of_their_own():
    """A gradient penalty, whose input asks for a gradient that nobody wants here."""
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    y = net(x)
    slope = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
    losses = [y.square().mean(), slope.square().mean()]
    parameters = list(net.parameters())
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True) for loss in losses]
    with pytest.raises(ArgumentError, match=r"a tensor of shape \[5, 2\]"):
        IMGrad().backward(losses, net.parameters(), retain_graph=True)
    found = IMGrad().backward(losses, net.parameters(), ignore=[x])
    blocks = [torch.stack(column) for column in zip(*rows, strict=True)]
    for parameter, its in zip(net.parameters(), IMGrad()(blocks).gradient, strict=True):
        torch.testing.assert_close(parameter.grad, its)
    assert x.grad is None
    assert found.weights.shape == (2,)


@pytest.mark.compiled
def test_compiled_modules():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    plain = copy.deepcopy(net)
    x = torch.randn(5, 3, dtype=torch.float64)
    compiled = torch.compile(net, backend="aot_eager")
    IMGrad().backward(list(compiled(x).square().mean(0)), compiled)
    IMGrad().backward(list(plain(x).square().mean(0)), plain)
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_buffers_that_a_compiled_module_gave_away_are_explained():
    class Donating(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):  # as torch's compiler words it, from 2.6 on
            raise RuntimeError("This backward function was compiled with non-empty donated buffers")

    x = nn.Parameter(torch.ones(2))
    with pytest.raises(ArgumentError, match="donated_buffer = False"):
        IMGrad().backward(list(Donating.apply(x)), [x])


@pytest.mark.parametrize("name", ["famo", "cagrad_fast", "igb_v2"])
def test_an_error_inside_autograd_takes_the_choice_back(name):
    x = nn.Parameter(torch.ones(2))
    losses = [(k + 1) * x.square().sum() for k in range(3)]
    combiner = make_example(name, 3)
    combiner.backward(losses, [x])
    state = copy.deepcopy(combiner.state_dict())
    with pytest.raises(RuntimeError, match="second time"):
        combiner.backward(losses, [x])
    assert str(combiner.state_dict()) == str(state)


def test_checkpointed_modules():
    from torch.utils.checkpoint import checkpoint

    net, head = nn.Linear(3, 4), nn.Linear(4, 2)
    x = torch.randn(5, 3, requires_grad=True)
    y = head(checkpoint(net, x, use_reentrant=True))
    with pytest.raises(ArgumentError, match="use_reentrant=False"):
        IMGrad().backward(list(y.square().mean(0)), net, head, ignore=[x])
    y = head(checkpoint(net, x, use_reentrant=False))
    IMGrad().backward(list(y.square().mean(0)), net, head, ignore=[x])
    assert net.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_of_checkpointed_batch_norm_move_with_every_backward(frozen):
    from torch.utils.checkpoint import checkpoint

    norm, head = nn.BatchNorm1d(3), nn.Linear(3, 4)
    y = head(checkpoint(norm, torch.randn(5, 3) + 1, use_reentrant=False))
    before = norm.running_mean.clone()
    if frozen:
        norm.momentum = 0.0
    IMGrad().backward(list(y.square().mean(0)), norm, head)
    assert norm.num_batches_tracked == 1 + 4
    assert torch.equal(norm.running_mean, before) == frozen
