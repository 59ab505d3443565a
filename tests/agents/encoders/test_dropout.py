"""Dropout: where it stands in every encoder, its masks, the updates with it against plain autograd, and without it."""

import contextlib
import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.agents.encoders import Dropout, Encoder, NetworkSpec, list_encoders, make_encoder
from mtrl_imgrad.agents.encoders.dropout import DropoutLayers
from mtrl_imgrad.agents.off_policy.update import UpdateSettings
from mtrl_imgrad.agents.ppo.rollout import TaskRollout
from mtrl_imgrad.agents.ppo.update import PPOUpdate
from mtrl_imgrad.agents.sac.temperature import Temperature
from mtrl_imgrad.agents.sac.update import Noise, SACUpdate
from mtrl_imgrad.combiners import LinearScalarization, make_combiner
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients import Execution, StepSettings, by_rows, split_parameters
from tests.support.agents.resumed_runs import assert_equal_states

K, ROWS, FEATURES, OUTPUTS, RATE = 3, 5, 4, 3, 0.3
SMALL = {"soft_modularization": {"module_width": 8, "routing_width": 8}, "care": {"encoder_width": 8, "context_dim": 8}}
GAMMA = 0.97
ALPHA = torch.tensor([0.5, 1.0, 0.1, 2.0], dtype=torch.float64)


def _encoder(name, rate=RATE, layer_norm=False, net_arch=(8, 8), **kwargs):
    torch.manual_seed(0)
    spec = NetworkSpec(FEATURES, OUTPUTS, ("a", "b", "c"), True, tuple(net_arch), nn.ReLU, layer_norm, rate)
    return make_encoder(name, spec, **{**SMALL.get(name, {}), **kwargs}).double()


def _rows():
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randn(K, ROWS, n, generator=generator, dtype=torch.float64) for n in (FEATURES, OUTPUTS))
    return inputs, torch.eye(K, dtype=torch.float64)[:, None].expand(-1, ROWS, -1), targets


@contextlib.contextmanager
def _dropping(network, masks, task, rate):
    """The plain network, in which one task's dropped units are set to zero and the others scaled, by hooks."""
    layers = {f"{name}.mask": layer for name, layer in network.named_modules() if isinstance(layer, Dropout)}

    def hook(kept):
        return lambda _layer, inputs, _output: torch.where(kept, inputs[0] / (1 - rate), 0.0)

    assert set(masks) <= set(layers)
    handles = [layers[name].register_forward_hook(hook(mask[task] > 0)) for name, mask in masks.items()]
    try:
        yield network
    finally:
        for handle in handles:
            handle.remove()


# ------------------------------------------------------------------ encoders


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
            with _dropping(encoder, given, k, RATE):
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


class _OwnEncoder(Encoder):
    name = "own"
    width = 6

    def __init__(self, spec):
        super().__init__(spec)
        self.first = nn.Linear(spec.in_features, 6)
        self.drop = Dropout(self.width, 0.5)
        self.last = nn.Linear(6, spec.out_features)

    def forward(self, inputs, task):
        return self.last(self.drop(self.first(inputs)))


class _Torchs(_OwnEncoder):
    def __init__(self, spec):
        super().__init__(spec)
        self.drop = nn.Dropout(0.5)


def test_pytorchs_own_layer_is_refused_with_the_one_to_use():
    with pytest.raises(
        ArgumentError, match=r"layer 'drop' is PyTorch's dropout.*use mtrl_imgrad.agents.encoders.Dropout"
    ):
        make_encoder(_Torchs, NetworkSpec(FEATURES, OUTPUTS, ("a",), True, (8,)))


class _WrongWidth(_OwnEncoder):
    width = 1  # would broadcast: a row's units live and die together


def test_a_layer_of_an_encoder_of_the_users_own():
    agent = _sac(policy_kwargs={"encoder": _OwnEncoder})
    masks = agent.update.draw_masks(agent.replay_buffer.sample(32), agent.noise_generator)
    assert list(masks.critic) == ["q_networks.0.drop.mask", "q_networks.1.drop.mask"]
    agent.train(2)
    with pytest.raises(ArgumentError, match=r"Dropout\(1, rate=0.5.*\) has a mask of shape .*features and num_experts"):
        _sac(policy_kwargs={"encoder": _WrongWidth}).train(1)


# ------------------------------------------------------------------ masks


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


# ------------------------------------------------------------------ MTSAC


def _sac(learned=64, **kwargs):
    policy = {"net_arch": [16, 12], **kwargs.pop("policy_kwargs", {})}
    agent = MTSAC(
        "MlpPolicy",
        make_vec_env("toy-reach", seed=1),
        policy_kwargs=policy,
        **{
            "learning_starts": 0,
            "gradient_steps": 0,
            "batch_size": 32,
            "seed": 0,
            "device": "cpu",
            "trace": False,
            **kwargs,
        },
    )
    return agent.learn(learned)


BOTH = {"dropout": {"pi": 0.2, "qf": RATE}, "layer_norm": {"pi": False, "qf": True}}


def _double(agent):
    """Networks, a batch and noise in float64."""
    agent.policy.double()
    batch = agent.replay_buffer.sample(agent.batch_size)
    batch = type(batch)(*(column if column is None else column.double() for column in batch))
    normal = (torch.randn(batch.actions.shape, dtype=torch.float64) for _ in range(2))
    return batch, Noise(*normal, agent.update.draw_masks(batch, agent.noise_generator))


def _critic_losses(critic, old, batch, noise):
    """``[K]``, written out with plain modules: targets of the networks ``old``, all of them dropping units."""
    losses, masks = [], noise.masks
    for k in range(len(batch.rewards)):
        row = type(batch)(*(column if column is None else column[k] for column in batch))
        with torch.no_grad():
            with _dropping(old.actor, masks.next_actor, k, 0.2) as actor:
                action, log_prob = actor(row.next_observations, noise.next_action[k])
            with _dropping(old.critic_target, masks.target_critic, k, RATE) as target_critic:
                values = torch.minimum(*target_critic(row.next_observations, action))
            target = row.rewards + (1 - row.terminated) * GAMMA * (values - ALPHA[k] * log_prob)
        with _dropping(critic, masks.critic, k, RATE):
            losses.append(sum(0.5 * (q - target).square().mean() for q in critic(row.observations, row.actions)))
    return torch.stack(losses)


def _actor_losses(actor, critic, batch, noise):
    """``[K]``, likewise."""
    losses = []
    for k, observations in enumerate(batch.observations):
        with _dropping(actor, noise.masks.actor, k, 0.2):
            action, log_prob = actor(observations, noise.action[k])
        with _dropping(critic, noise.masks.actors_critic, k, RATE):
            losses.append((ALPHA[k] * log_prob - torch.minimum(*critic(observations, action))).mean())
    return torch.stack(losses)


def _update(agent, critic, actor, lr, trace=False):
    for network in (agent.critic, agent.actor):
        network.optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    settings = UpdateSettings(GAMMA, 0.01)
    return SACUpdate(
        agent.policy, Temperature(ALPHA.log(), -4.0, None), critic, actor, settings, execution=Execution(trace=trace)
    )


@pytest.mark.parametrize(
    ("encoder", "combiner"), [("multi_head", "linear_scalarization"), ("attention", "gramian_mean")]
)
def test_a_sac_update_is_that_of_plain_modules_that_drop_the_same_units(encoder, combiner):
    """Both ways to the mean gradient: one weighted backward, and the Jacobian."""
    agent = _sac(policy_kwargs={**BOTH, "encoder": encoder})
    batch, noise = _double(agent)
    losses = {
        agent.critic: _critic_losses(agent.critic, agent.policy, batch, noise),
        agent.actor: _actor_losses(agent.actor, agent.critic, batch, noise),
    }
    expected = {network: torch.autograd.grad(its.mean(), list(network.parameters())) for network, its in losses.items()}
    chosen = LinearScalarization() if combiner == "linear_scalarization" else make_combiner("cagrad", c=0.0)
    report = _update(agent, chosen, chosen, lr=0.0)(batch, noise, update_target=False)
    torch.testing.assert_close(report.critic_losses, losses[agent.critic].detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(report.actor_losses, losses[agent.actor].detach(), rtol=1e-10, atol=1e-12)
    for network, gradients in expected.items():
        own = split_parameters(network).task_specific
        for (name, parameter), gradient in zip(network.named_parameters(), gradients, strict=True):
            factor = agent.num_tasks if name in own else 1  # its task's plain gradient, not the mean
            torch.testing.assert_close(parameter.grad, factor * gradient, rtol=1e-8, atol=1e-11)
    whole = _update(agent, chosen, chosen, lr=0.0)(batch, Noise(noise.action, noise.next_action), update_target=False)
    assert not torch.isclose(whole.critic_losses, report.critic_losses).any(), "the masks made no difference"


class _Listener(LinearScalarization):
    needs_losses_after_step = True

    def after_step(self, losses, tasks=None):
        self.after = losses


@pytest.mark.parametrize("trace", [False, True])
def test_a_combiner_is_told_the_losses_after_the_step_with_the_same_masks(trace):
    agent = _sac(policy_kwargs=BOTH)
    batch, noise = _double(agent)
    old, critic, actor = copy.deepcopy(agent.policy), _Listener(), _Listener()
    _update(agent, critic, actor, lr=0.01, trace=trace)(batch, noise)
    torch.testing.assert_close(critic.after, _critic_losses(agent.critic, old, batch, noise).detach())
    torch.testing.assert_close(actor.after, _actor_losses(agent.actor, agent.critic, batch, noise).detach())


@pytest.mark.parametrize("side", ["pi", "qf"])
def test_one_side_alone_drops_units(side):
    agent = _sac(policy_kwargs={"dropout": {"pi": 0.0, "qf": 0.0, side: RATE}})
    before = agent.noise_generator.get_state()
    batch = agent.replay_buffer.sample(32)
    masks = agent.update.draw_masks(batch, agent.noise_generator)
    with_masks = {name for name, found in masks._asdict().items() if found}
    assert with_masks == ({"next_actor", "actor"} if side == "pi" else {"target_critic", "critic", "actors_critic"})
    assert not torch.equal(before, agent.noise_generator.get_state())
    agent.train(2)
    assert all(torch.isfinite(parameter).all() for parameter in agent.policy.parameters())


# ------------------------------------------------------------------ MTPPO


def _ppo(dropout=RATE, learned=64, **kwargs):
    agent = MTPPO(
        "MlpPolicy",
        make_vec_env("toy-reach", seed=1),
        policy_kwargs={"net_arch": [16, 12], "dropout": {"pi": 0.0, "vf": dropout}},
        **{"n_steps": 8, "batch_size": 16, "n_epochs": 2, "seed": 0, "device": "cpu", "trace": False, **kwargs},
    )
    return agent.learn(learned)


@pytest.mark.parametrize("popart", [None, "popart"])
def test_a_ppo_critics_gradient_is_that_of_a_plain_module_that_drops_the_same_units(popart):
    agent = _ppo(value_normalization=popart, combiner="linear_scalarization")
    agent.policy.double()
    rollout = TaskRollout(*(column.double() for column in agent.rollout_buffer.rollout()))
    listener = _Listener()
    update = PPOUpdate(agent.policy, LinearScalarization(), listener, generator=agent.mask_generator)
    update.begin(dataclasses.replace(agent._settings(), step=StepSettings()), rollout.returns)
    for network in (agent.actor, agent.critic):
        network.optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    twin = torch.Generator()
    twin.set_state(agent.mask_generator.get_state())
    masks = DropoutLayers(agent.critic).draw(rollout.observations, twin)
    targets = rollout.returns if popart is None else agent.critic.popart.normalize(rollout.returns)
    losses = []
    for k, observations in enumerate(rollout.observations):
        with _dropping(agent.critic, masks, k, RATE):
            losses.append((agent.critic(observations) - targets[k]).square().mean())
    losses = torch.stack(losses)
    expected = torch.autograd.grad(agent.vf_coef * losses.mean(), agent.critic.encoder.trunk[0].weight)
    report = update(rollout)
    torch.testing.assert_close(report.measures.value_loss, losses.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(listener.after, agent.vf_coef * losses.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(agent.critic.encoder.trunk[0].weight.grad, *expected, rtol=1e-8, atol=1e-11)
    assert torch.equal(agent.mask_generator.get_state(), twin.get_state()), "one pass of masks an update"


def test_the_values_that_advantages_are_made_of_come_from_the_whole_network():
    agent = _ppo(learned=0)
    plain = _ppo(dropout=0.0, learned=0)
    observations = torch.as_tensor(agent.get_env().reset())
    agent.policy.set_training_mode(True)
    assert torch.equal(agent.policy.predict_values(observations), plain.policy.predict_values(observations))


@pytest.mark.parametrize("policy", [{"dropout": 0.1}, {"dropout": {"pi": 0.1, "vf": 0}}, {"encoder": _OwnEncoder}])
def test_a_ppo_actor_with_dropout_is_refused(policy):
    with pytest.raises(ArgumentError, match=r"MTPPO's actor takes no dropout.*dropout=dict\(pi=0.0, vf=\.\.\.\)"):
        MTPPO("MlpPolicy", make_vec_env("toy-reach"), policy_kwargs=policy, device="cpu")


def test_a_ppo_update_without_a_generator_is_refused():
    combiner = LinearScalarization()
    with pytest.raises(ArgumentError, match="generator must be given"):
        PPOUpdate(_ppo(learned=0).policy, combiner, combiner)


# ------------------------------------------------------------------ agents


def _parameters(agent):
    return torch.cat([parameter.detach().flatten() for parameter in agent.policy.parameters()])


def test_without_a_rate_nothing_more_is_drawn():
    """The generators stand where the noise of actions alone has brought them; PPO's was never used."""
    agent = _sac(policy_kwargs={"dropout": 0.0})
    twin = torch.Generator()
    twin.set_state(agent.noise_generator.get_state())
    agent.train(3)
    for _ in range(2 * 3):
        torch.randn(4, 8, 2, generator=twin)
    assert torch.equal(agent.noise_generator.get_state(), twin.get_state())
    unused = _ppo(dropout=0.0, learned=0).mask_generator.get_state()
    assert torch.equal(_ppo(dropout=0.0).mask_generator.get_state(), unused)
    assert not torch.equal(_ppo().mask_generator.get_state(), unused)


def test_recording_the_operations_changes_no_number():
    kwargs = {"policy_kwargs": BOTH, "combiner": "imgrad"}
    recorded, plain = (_sac(trace=trace, **kwargs) for trace in (True, False))
    for agent in (recorded, plain):
        agent.train(4)
    assert torch.equal(_parameters(recorded), _parameters(plain))
    assert not torch.equal(_parameters(recorded), _parameters(_sac(**kwargs)))  # which was not trained


def test_recording_the_operations_changes_no_number_of_ppo():
    runs = [_parameters(_ppo(trace=trace)) for trace in (True, False)]
    assert torch.equal(*runs)
    assert not torch.equal(runs[0], _parameters(_ppo(dropout=0.0)))


def test_who_predicts_drops_nothing():
    """An agent that drops nine units of ten predicts what one that drops none does, before and in training mode."""
    plain, agent = (_sac(policy_kwargs={"dropout": rate}) for rate in (0.0, 0.9))
    observations = agent.get_env().reset()
    expected = plain.predict(observations, deterministic=True)[0]
    for training in (False, True):
        agent.policy.set_training_mode(training)
        assert np.array_equal(agent.predict(observations, deterministic=True)[0], expected)
    agent.train(2)
    actions = [agent.predict(observations, deterministic=True)[0] for _ in range(2)]
    assert np.array_equal(*actions)
    assert not np.array_equal(actions[0], expected), "it learned nothing"


def test_it_is_saved_and_loaded(tmp_path):
    agent = _sac(policy_kwargs=BOTH)
    agent.train(2)
    agent.save(tmp_path / "agent")
    assert not [key for key in agent.policy.state_dict() if "mask" in key]
    env = make_vec_env("toy-reach", seed=3)
    loaded, observations = MTSAC.load(tmp_path / "agent", env=env), env.reset()
    assert loaded.critic.q_networks[1].spec.dropout == RATE
    assert loaded.actor.encoder.spec.dropout == 0.2
    expected = agent.predict(observations, deterministic=True)[0]
    assert np.array_equal(loaded.predict(observations, deterministic=True)[0], expected)


@pytest.mark.parametrize("make", [_sac, _ppo])
def test_a_resumed_run_drops_the_same_units(make, tmp_path):
    kwargs = {"policy_kwargs": BOTH, "gradient_steps": 1} if make is _sac else {}
    agent = make(**kwargs)
    agent.save_checkpoint(tmp_path / "half")
    agent.learn(64, reset_num_timesteps=False)
    other = type(agent).load_checkpoint(tmp_path / "half", make_vec_env("toy-reach", seed=1), device="cpu")
    assert not torch.equal(_parameters(other), _parameters(agent))
    other.learn(64, reset_num_timesteps=False)
    assert torch.equal(_parameters(other), _parameters(agent))
    for resumed in (agent, other):
        resumed.save_checkpoint(tmp_path / f"{resumed is agent}")
    assert_equal_states(tmp_path / "True", tmp_path / "False")


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan"), True, "0.1", None, [0.1], np.bool_(False)])
@pytest.mark.parametrize("by_side", [False, True])
def test_rates_that_are_none_are_named(rate, by_side):
    dropout = {"pi": 0.0, "qf": rate} if by_side else rate
    with pytest.raises(ArgumentError, match=r"dropout must be a (finite )?number (in \[0, 1\)|or a dict), got"):
        _sac(policy_kwargs={"dropout": dropout})


def test_a_rate_by_unknown_sides_is_refused():
    with pytest.raises(ArgumentError, match="dropout must have the keys 'pi' and 'qf'"):
        _sac(policy_kwargs={"dropout": {"pi": 0.1}})
