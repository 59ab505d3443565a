"""Dropout in the updates of MTSAC and MTPPO, held against plain modules and autograd; saving, resuming, refusals."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.agents.encoders.dropout import DropoutLayers
from mtrl_imgrad.agents.off_policy.update import UpdateSettings
from mtrl_imgrad.agents.ppo.rollout import TaskRollout
from mtrl_imgrad.agents.ppo.update import PPOUpdate
from mtrl_imgrad.agents.sac.temperature import Temperature
from mtrl_imgrad.agents.sac.update import Noise, SACUpdate
from mtrl_imgrad.combiners import LinearScalarization, make_combiner
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients import Execution, StepSettings, split_parameters
from tests.support.agents.dropping import RATE, OwnEncoder, dropping
from tests.support.agents.resumed_runs import assert_equal_states

GAMMA = 0.97
ALPHA = torch.tensor([0.5, 1.0, 0.1, 2.0], dtype=torch.float64)


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
            with dropping(old.actor, masks.next_actor, k, 0.2) as actor:
                action, log_prob = actor(row.next_observations, noise.next_action[k])
            with dropping(old.critic_target, masks.target_critic, k, RATE) as target_critic:
                values = torch.minimum(*target_critic(row.next_observations, action))
            target = row.rewards + (1 - row.terminated) * GAMMA * (values - ALPHA[k] * log_prob)
        with dropping(critic, masks.critic, k, RATE):
            losses.append(sum(0.5 * (q - target).square().mean() for q in critic(row.observations, row.actions)))
    return torch.stack(losses)


def _actor_losses(actor, critic, batch, noise):
    """``[K]``, likewise."""
    losses = []
    for k, observations in enumerate(batch.observations):
        with dropping(actor, noise.masks.actor, k, 0.2):
            action, log_prob = actor(observations, noise.action[k])
        with dropping(critic, noise.masks.actors_critic, k, RATE):
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
        with dropping(agent.critic, masks, k, RATE):
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


@pytest.mark.parametrize("policy", [{"dropout": 0.1}, {"dropout": {"pi": 0.1, "vf": 0}}, {"encoder": OwnEncoder}])
def test_a_ppo_actor_with_dropout_is_refused(policy):
    with pytest.raises(ArgumentError, match=r"MTPPO's actor takes no dropout.*dropout=dict\(pi=0.0, vf=\.\.\.\)"):
        MTPPO("MlpPolicy", make_vec_env("toy-reach"), policy_kwargs=policy, device="cpu")


def test_a_ppo_update_without_a_generator_is_refused():
    combiner = LinearScalarization()
    with pytest.raises(ArgumentError, match="generator must be given"):
        PPOUpdate(_ppo(learned=0).policy, combiner, combiner)


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
        agent.train(2)
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
    agent = make(learned=32, **kwargs)
    agent.save_checkpoint(tmp_path / "half")
    agent.learn(32, reset_num_timesteps=False)
    other = type(agent).load_checkpoint(tmp_path / "half", make_vec_env("toy-reach", seed=1), device="cpu")
    assert not torch.equal(_parameters(other), _parameters(agent))
    other.learn(32, reset_num_timesteps=False)
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
