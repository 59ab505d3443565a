"""N-step returns of the replay against a slow loop over episodes, and where spans must stop."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from mtrl_imgrad import MTSAC, make_vec_env
from mtrl_imgrad.agents.off_policy.buffer import TaskReplayBuffer
from mtrl_imgrad.agents.sac.update import Noise

GAMMA = 0.9
OBSERVATIONS = spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
TASKS = ("a", "b")
_SMALL = {"net_arch": [8], "encoder": "one_hot"}


def _filled(steps, n_steps, seed=0, copies=2, size=12, **options):
    """A buffer, and the transitions of each environment in the order in which they came."""
    rng = np.random.default_rng(seed)
    n_envs = copies * len(TASKS)
    buffer = TaskReplayBuffer(
        size * n_envs,
        OBSERVATIONS,
        ACTIONS,
        "cpu",
        n_envs,
        task_names=TASKS,
        n_steps=n_steps,
        gamma=GAMMA,
        seed=seed,
        **options,
    )
    history = [[] for _ in range(n_envs)]
    for step in range(steps):
        obs, following = rng.normal(size=(2, n_envs, 3)).astype(np.float32)
        obs[:, 0] = step + 1000 * np.arange(n_envs)  # tells which transition it is
        reward = rng.normal(size=n_envs)
        done = rng.random(n_envs) < 0.3
        cut = done & (rng.random(n_envs) < 0.5)
        buffer.add(obs, following, np.zeros((n_envs, 2)), reward, done, [{"TimeLimit.truncated": c} for c in cut])
        for env in range(n_envs):
            history[env].append((following[env], reward[env], bool(done[env]), bool(cut[env])))
    return buffer, history


def _by_hand(transitions, first, n_steps):
    """Return, next observation, whether it ended, and the discount: one transition after the other."""
    total, discount = 0.0, 1.0
    for transition in transitions[first : first + n_steps]:
        following, reward, done, cut = transition
        total += discount * reward
        discount *= GAMMA
        if done:
            break
    return total, following, float(done and not cut), discount


@pytest.mark.parametrize("n_steps", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("steps", [1, 7, 12, 17, 30])
def test_equal_a_loop_over_the_episodes(steps, n_steps):
    buffer, history = _filled(steps, n_steps)
    batch = buffer.sample(160)
    for task, row in np.ndindex(batch.rewards.shape):
        env, first = divmod(int(batch.observations[task, row, 0]), 1000)
        assert env // 2 == task
        assert first >= steps - 12
        total, following, ended, discount = _by_hand(history[env], first, n_steps)
        assert batch.rewards[task, row].item() == pytest.approx(total, abs=1e-5)
        np.testing.assert_array_equal(batch.next_observations[task, row], following)
        assert batch.terminated[task, row].item() == ended
        if n_steps > 1:
            assert batch.discounts[task, row].item() == pytest.approx(discount, rel=1e-5)
        else:
            assert batch.discounts is None


def test_spans_do_not_reach_over_episodes_that_ended_unseen():
    buffer, _ = _filled(0, 3)
    zeros = np.zeros((4, 3), np.float32)
    for step in range(4):
        if step == 2:
            buffer.end_episodes()  # what an agent does where SB3 resets the environment
        buffer.add(zeros + step, zeros, np.zeros((4, 2)), np.ones(4), np.zeros(4), [{}] * 4)
    batch = buffer.sample(64)
    length = {0: 2, 1: 1, 2: 2, 3: 1}
    expected = torch.tensor([GAMMA ** length[int(x)] for x in batch.observations[..., 0].flatten()])
    torch.testing.assert_close(batch.discounts.flatten(), expected)
    assert not batch.terminated.any()
    assert buffer.dones[:4, 0].tolist() == [0, 1, 0, 0]


def test_a_time_limit_can_count_as_an_end():
    for handled in (True, False):
        buffer, history = _filled(12, 3, handle_timeout_termination=handled)
        cut = np.array([[cut for *_, cut in one] for one in history]).T
        assert cut.any()
        np.testing.assert_array_equal(buffer.timeouts, cut & handled)
        np.testing.assert_array_equal(buffer.dones, np.array([[done for _, _, done, _ in one] for one in history]).T)


def test_rewards_are_normalised_before_they_are_summed():
    buffer, _ = _filled(12, 3, reward_normalization="std")
    raw, _ = _filled(12, 3)
    std = buffer.rewards.reshape(12, 2, 2).std((0, 2))
    expected = raw.sample(64).rewards / torch.tensor(std)[:, None]
    torch.testing.assert_close(buffer.sample(64).rewards, expected.float())


def test_a_normalised_environment_normalises_each_reward():
    env = VecNormalize(make_vec_env("toy-reach", one_hot=False), clip_reward=0.5)
    agent = MTSAC("MlpPolicy", env, n_steps=2, learning_starts=100, seed=0, device="cpu", policy_kwargs=_SMALL)
    agent.learn(40)
    buffer = agent.replay_buffer
    batch = buffer.sample(64, env)
    copy = env.normalize_reward(buffer.rewards[: buffer.pos])
    obs = env.normalize_obs(buffer.observations[: buffer.pos])
    for task, row in np.ndindex(batch.rewards.shape):
        step = int(np.abs(obs[:, task] - batch.observations[task, row].numpy()).sum(1).argmin())
        np.testing.assert_allclose(batch.observations[task, row], obs[step, task], rtol=1e-6)
        last = step + 1 == buffer.pos or buffer.dones[step, task]
        expected = copy[step, task] + (0 if last else 0.99 * copy[step + 1, task])
        assert batch.rewards[task, row].item() == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_targets_use_the_discount_of_the_span():
    env = make_vec_env("toy-reach", one_hot=False)
    agent = MTSAC("MlpPolicy", env, n_steps=3, gamma=GAMMA, learning_starts=100, device="cpu", policy_kwargs=_SMALL)
    agent.learn(120)
    for parameter in agent.policy.critic_target.parameters():
        parameter.zero_()
    for network in agent.policy.critic_target.q_networks:
        network.trunk[-1].bias.fill_(2.0)
    batch = agent.replay_buffer.sample(64)
    update, noise = agent.update, torch.zeros_like(batch.actions)
    parameters = update.actor.parameters(), update._critic_target.split()
    targets = update._compute_targets(*parameters, torch.zeros(4), Noise(noise, noise), batch)
    torch.testing.assert_close(batch.discounts.unique(), torch.tensor([GAMMA**3, GAMMA**2, GAMMA]))
    torch.testing.assert_close(targets, batch.rewards + (1 - batch.terminated) * batch.discounts * 2)
