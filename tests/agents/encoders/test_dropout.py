"""Dropout of encoders: which units are dropped, and what masks are drawn."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from mtrl_imgrad.agents.encoders import Dropout, NetworkSpec, list_encoders, make_encoder
from mtrl_imgrad.agents.encoders.dropout import DropoutLayers
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients import by_rows, split_parameters
from tests.agents.common.test_dropout_of_agents import _sac
from tests.support.agents.dropping import RATE, OwnEncoder, dropping

K, ROWS, FEATURES, OUTPUTS = 3, 5, 4, 3
SMALL = {"soft_modularization": {"module_width": 8, "routing_width": 8}, "care": {"encoder_width": 8, "context_dim": 8}}


def _encoder(name, rate=RATE, layer_norm=False, net_arch=(8, 8), **kwargs):
    torch.manual_seed(0)
    spec = NetworkSpec(FEATURES, OUTPUTS, ("a", "b", "c"), True, tuple(net_arch), nn.ReLU, layer_norm, rate)
    return make_encoder(name, spec, **{**SMALL.get(name, {}), **kwargs}).double()


def _rows():
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randn(K, ROWS, n, generator=generator, dtype=torch.float64) for n in (FEATURES, OUTPUTS))
    return inputs, torch.eye(K, dtype=torch.float64)[:, None].expand(-1, ROWS, -1), targets


@pytest.mark.parametrize("name", list_encoders())
def test_every_hidden_layer_drops_what_its_norm_then_normalises(name):
    """DroQ's order: linear, dropout, normalisation, activation. One dropout a norm, which takes its very output."""
    encoder = _encoder(name, layer_norm=True)
    dropped, normalised = [], []
    for layer in encoder.modules():
        if isinstance(layer, Dropout):
            layer.register_forward_hook(lambda _layer, _inputs, output: dropped.append(output))
        if isinstance(layer, nn.LayerNorm):
            layer.register_forward_hook(lambda _layer, inputs, _output: normalised.append(inputs[0]))
    inputs, task, _ = _rows()
    encoder(inputs[0], task[0])
    assert len(dropped) == len(normalised) > 0
    assert all(a is b for a, b in zip(dropped, normalised, strict=True))


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("name", list_encoders())
def test_gradients_by_rows_are_those_of_a_loop_over_tasks_with_the_same_masks(name, layer_norm):
    encoder = _encoder(name, layer_norm=layer_norm)
    inputs, task, targets = _rows()
    masks = DropoutLayers(encoder).draw(inputs, torch.Generator().manual_seed(2))
    trainable = {key: p for key, p in encoder.named_parameters() if p.requires_grad}
    expected, without = [], []
    for k in range(K):
        for found, given in ((expected, masks), (without, {})):
            with dropping(encoder, given, k, RATE):
                loss = (encoder(inputs[k], task[k]) - targets[k]).square().mean()
            found.append(torch.autograd.grad(loss, list(trainable.values()), materialize_grads=True))

    def loss(parameters, inputs, task, targets, masks):
        outputs = functional_call(encoder, (parameters, masks), (inputs, task))
        return (outputs - targets).square().mean(), ()

    found = by_rows(loss, split_parameters(encoder), inputs, task, targets, masks)
    for i, key in enumerate(trainable):
        for k in range(K):
            mine = expected[k][i] if key in found.shared else expected[k][i][k]
            gradient = found.shared[key][k] if key in found.shared else found.task_specific[key][k]
            torch.testing.assert_close(gradient, mine, rtol=1e-10, atol=1e-12)
    assert not all(torch.equal(a, b) for a, b in zip(expected[0], without[0], strict=True)), "nothing was dropped"


@pytest.mark.parametrize("name", list_encoders())
def test_without_masks_it_is_the_network_without_dropout(name):
    plain, encoder = _encoder(name, rate=0.0), _encoder(name)
    assert not DropoutLayers(plain)
    inputs, task, _ = _rows()
    assert torch.equal(encoder.train()(inputs[0], task[0]), plain(inputs[0], task[0]))


@pytest.mark.parametrize(
    ("name", "net_arch", "kwargs"), [("one_hot", (), {}), ("moore", (8,), {}), ("attention", (), {"encoder_depth": 1})]
)
def test_a_rate_with_nothing_to_drop_is_refused(name, net_arch, kwargs):
    with pytest.raises(ArgumentError, match=f"dropout must be 0 for encoder '{name}' with net_arch=.*got 0.3"):
        _encoder(name, net_arch=net_arch, **kwargs)
    assert _encoder(name, rate=0.0, net_arch=net_arch, **kwargs)


class _Torchs(OwnEncoder):
    def __init__(self, spec):
        super().__init__(spec)
        self.drop = nn.Dropout(0.5)


def test_pytorchs_own_layer_is_refused_with_the_one_to_use():
    with pytest.raises(
        ArgumentError, match=r"layer 'drop' is PyTorch's dropout.*use mtrl_imgrad.agents.encoders.Dropout"
    ):
        make_encoder(_Torchs, NetworkSpec(FEATURES, OUTPUTS, ("a",), True, (8,)))


class _WrongWidth(OwnEncoder):
    width = 1  # would broadcast: a row's units live and die together


def test_a_layer_of_an_encoder_of_the_users_own():
    agent = _sac(policy_kwargs={"encoder": OwnEncoder})
    masks = agent.update.draw_masks(agent.replay_buffer.sample(32), agent.noise_generator)
    assert list(masks.critic) == ["q_networks.0.drop.mask", "q_networks.1.drop.mask"]
    agent.train(2)
    with pytest.raises(ArgumentError, match=r"Dropout\(1, rate=0.5.*\) has a mask of shape .*features and num_experts"):
        _sac(policy_kwargs={"encoder": _WrongWidth}).train(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_masks_keep_the_right_share_and_have_mean_one(rate, dtype):
    generator = torch.Generator().manual_seed(0)
    mask = Dropout(64, rate).draw(torch.zeros(4, 500, 2, dtype=dtype), generator)
    assert (mask.shape, mask.dtype) == ((4, 500, 64), dtype)
    kept = (mask > 0).double()
    deviation = (rate * (1 - rate) / kept.numel()) ** 0.5
    assert abs(float(kept.mean()) - (1 - rate)) < 4 * deviation
    assert abs(float(mask.double().mean()) - 1) < 4 * deviation / (1 - rate)
    torch.testing.assert_close(mask.unique().double(), torch.tensor([0, 1 / (1 - rate)]).double(), rtol=1e-6, atol=0)


def test_masks_are_independent_over_critics_layers_tasks_rows_and_passes():
    agent = _sac(policy_kwargs={"dropout": RATE, "net_arch": [64, 64]})
    batch = agent.replay_buffer.sample(4 * 64)
    passes = agent.update.draw_masks(batch, agent.noise_generator)
    masks = [mask for one_pass in passes for mask in one_pass.values()]
    assert [len(one_pass) for one_pass in passes] == [2, 4, 4, 2, 4]
    by_task = torch.stack([mask.flatten(1) for mask in masks]).flatten(0, 1)  # [16 masks * 4 tasks, rows * units]
    by_row = masks[0].flatten(0, 1)
    for rows in (by_task, by_row):
        correlations = torch.corrcoef(rows).fill_diagonal_(0)
        assert float(correlations.abs().max()) < 5.5 / rows.shape[1] ** 0.5


def test_experts_drop_units_of_their_own():
    masks = DropoutLayers(_encoder("moore", num_experts=4)).draw(_rows()[0], torch.Generator())
    assert {name: tuple(mask.shape) for name, mask in masks.items()} == {"experts.1.mask": (K, 4, ROWS, 8)}
    assert len({tuple(expert.flatten().tolist()) for expert in masks["experts.1.mask"][0]}) == 4
