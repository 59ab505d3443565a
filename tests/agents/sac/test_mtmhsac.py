"""The published baseline: what its preset builds, and one of its updates as a plain PyTorch loop over all rows."""

import copy
import dataclasses

import torch
from torch import nn

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.agents.sac.update import Noise
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.experiments.presets import preset_path
from mtrl_imgrad.experiments.rl.config import load_config
from mtrl_imgrad.experiments.rl.train import make_agent

GAMMA, TAU = 0.99, 0.005


def test_an_update_is_clipped_adam_on_the_mean_over_all_rows():
    """metaworld-algorithms, rl/algorithms/mtsac.py, config/optim.py: means over rows and critics, one global norm."""
    kwargs = load_config(preset_path("rl", "mt10_mtmhsac")).policy.policy_kwargs()
    kwargs["net_arch"] = [16, 16]
    agent = MTSAC(
        "MlpPolicy",
        make_vec_env("toy-reach", seed=1),
        combiner="linear_scalarization",
        heads="weighted",
        max_grad_norm=0.05,
        policy_kwargs=kwargs,
        learning_starts=0,
        gradient_steps=0,
        batch_size=4 * 8,
        seed=0,
        device="cpu",
    ).learn(400)
    agent.policy.double()
    batch = agent.replay_buffer.sample(agent.batch_size)
    batch = type(batch)(*(column if column is None else column.double() for column in batch))
    noise = Noise(*(torch.randn(batch.actions.shape, dtype=torch.float64) for _ in range(2)))
    plain = copy.deepcopy(agent.policy)
    agent.update.begin(agent._settings())
    agent.update(batch, noise)

    rows = {name: getattr(batch, name).flatten(0, 1) for name in ("observations", "actions", "next_observations")}
    with torch.no_grad():
        actions, log_prob = plain.actor(rows["next_observations"], noise.next_action.flatten(0, 1))
        value = torch.minimum(*plain.critic_target(rows["next_observations"], actions)) - log_prob  # temperatures of 1
        target = batch.rewards.flatten() + (1 - batch.terminated.flatten()) * GAMMA * value
    values = torch.stack(plain.critic(rows["observations"], rows["actions"]))
    _step(plain.critic, (values - target).square().mean())
    actions, log_prob = plain.actor(rows["observations"], noise.action.flatten(0, 1))
    _step(plain.actor, (log_prob - torch.minimum(*plain.critic(rows["observations"], actions))).mean())
    for network in ("critic", "actor"):
        mine, other = getattr(agent.policy, network), getattr(plain, network)
        for (name, one), two in zip(mine.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12, msg=f"{network} {name}")


def _step(network, loss):
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4, eps=1e-5)
    optimizer.zero_grad()
    loss.backward()
    length = nn.utils.clip_grad_norm_(network.parameters(), 0.05)
    assert length > 0.05, "or nothing is clipped"
    optimizer.step()


def test_the_preset_builds_the_published_agent():
    """config/nn.py, config/optim.py, config/rl.py and rl/networks.py of metaworld-algorithms."""
    config = load_config(preset_path("rl", "mt10_mtmhsac"))
    assert (config.total_timesteps, config.agent.batch_size, config.agent.buffer_size) == (20_000_000, 1280, 1_000_000)
    env = make_vec_env("toy-reach", seed=0)
    agent = make_agent(dataclasses.replace(config, agent=dataclasses.replace(config.agent, buffer_size=1000)), env)
    assert (agent.gamma, agent.tau, agent.max_grad_norm, agent.target_entropy) == (0.99, 0.005, 1.0, -2.0)
    assert agent.log_ent_coef.tolist() == [0.0] * 4
    epsilons = {agent.actor.optimizer: 1e-5, agent.critic.optimizer: 1e-5, agent.ent_coef_optimizer: 1e-4}
    for optimizer, eps in epsilons.items():
        group = optimizer.param_groups[0]
        assert type(optimizer) is torch.optim.Adam
        assert (group["lr"], group["eps"], group["betas"]) == (3e-4, eps, (0.9, 0.999))
    for network, bound in ((agent.actor.encoder, 1e-3), *((one, 3e-3) for one in agent.critic.q_networks)):
        linear = [layer for layer in network.trunk if isinstance(layer, nn.Linear)]
        assert [layer.out_features for layer in linear] == [400] * 3
        assert not any(layer.bias.any() for layer in linear)
        assert 0.95 * bound < network.heads.weight.abs().max() <= bound


def test_mt10_differs_from_the_baseline_in_the_combiner_alone():
    ours, baseline = (load_config(preset_path("rl", name)) for name in ("mt10", "mt10_mtmhsac"))
    assert ours.policy == baseline.policy
    assert ours.env == baseline.env
    assert ours.total_timesteps == baseline.total_timesteps
    combiner = {"combiner": "linear_scalarization", "combiner_kwargs": {}}
    assert dataclasses.replace(ours.agent, **combiner) == baseline.agent
    assert ours.agent.combiner == "imgrad"
