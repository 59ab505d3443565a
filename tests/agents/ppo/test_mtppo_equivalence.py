"""With one task, MTPPO must be SB3's PPO: parameter for parameter, update after update.

Matched by hand: the initial parameters (SB3 initialises orthogonally), the rollout, and the order of the minibatches.
Not matched, because it differs on purpose: SB3 clips the joint gradient of actor and critic, MTPPO each on its own. So
clipping is compared where one of the two gradients is zero.
"""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from mtrl_imgrad.agents import MTPPO
from mtrl_imgrad.envs import make_vec_env

pytestmark = pytest.mark.portable

COMMON = {"n_steps": 40, "batch_size": 32, "n_epochs": 4, "learning_rate": 3e-3, "seed": 0, "device": "cpu"}
COPIES = 3


def _agents(combiner, **options):
    def env():
        return make_vec_env(["toy-reach/left"], seed=3, one_hot=False, num_envs_per_task=COPIES)

    unclipped = {"max_grad_norm": 1e9, **options}
    theirs = PPO(
        "MlpPolicy", env(), policy_kwargs={"net_arch": [24, 16], "activation_fn": torch.nn.ReLU}, **COMMON, **unclipped
    )
    ours = MTPPO(
        "MlpPolicy",
        env(),
        combiner=combiner,
        policy_kwargs={"net_arch": [24, 16], "encoder": "one_hot", "log_std_init": -0.5},
        **COMMON,
        **{"max_grad_norm": None, **options},
    )
    for mine, other in zip(_ours(ours), _sb3(theirs), strict=True):
        other.data.copy_(mine.reshape(other.shape))
    return ours, theirs


def _ours(agent):
    """Actor trunk, log standard deviation, critic: in one order for both agents."""
    actor, critic = agent.actor, agent.critic
    return [*actor.encoder.parameters(), actor.log_std.weight, *critic.parameters()]


def _sb3(agent):
    policy = agent.policy
    actor = [*policy.mlp_extractor.policy_net.parameters(), *policy.action_net.parameters(), policy.log_std]
    return [*actor, *policy.mlp_extractor.value_net.parameters(), *policy.value_net.parameters()]


class _SameMinibatches:
    """Feeds SB3 the rollout and the minibatches of MTPPO."""

    def __init__(self, buffer):
        self.buffer, self.values, self.returns = buffer, buffer.values, buffer.returns

    def get(self, batch_size):
        for batch in self.buffer.get(batch_size):
            columns = (batch.observations, batch.actions, batch.values, batch.log_probs, batch.advantages)
            yield RolloutBufferSamples(*(column.squeeze(0) for column in (*columns, batch.returns)))


def _collect(agent):
    """A rollout, and no training on it."""
    agent.train = lambda: None
    agent.learn(COMMON["n_steps"] * COPIES)
    del agent.train


def _train_both(ours, theirs):
    """Train MTPPO, then SB3's PPO on the same rollout and minibatches; what both logged."""
    _collect(ours)
    generator = ours.rollout_buffer.generator.get_state()
    for agent in (ours, theirs):
        agent.set_logger(Logger(None, []))
    theirs._current_progress_remaining = ours._current_progress_remaining
    ours.train()
    ours.rollout_buffer.generator.set_state(generator)
    theirs.rollout_buffer = _SameMinibatches(ours.rollout_buffer)
    theirs.train()
    return ours.logger.name_to_value, theirs.logger.name_to_value


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")  # the last one is shorter: compared as well
@pytest.mark.parametrize(
    ("combiner", "options"),
    [
        ("linear_scalarization", {"ent_coef": 0.01}),
        ("mgda", {"clip_range": 0.05, "clip_range_vf": 0.3, "vf_coef": 0.7}),
        ("linear_scalarization", {"normalize_advantage": False, "clip_range": lambda left: 0.1 + 0.1 * left}),
        ("linear_scalarization", {"target_kl": 0.002}),
        ("linear_scalarization", {"vf_coef": 0.0, "max_grad_norm": 0.05, "ent_coef": 0.1}),
    ],
)
def test_one_task_is_sb3_ppo_parameter_for_parameter(combiner, options):
    ours, theirs = _agents(combiner, **options)
    start = [parameter.detach().clone() for parameter in _ours(ours)]
    mine, other = _train_both(ours, theirs)
    for found, expected, before in zip(_ours(ours), _sb3(theirs), start, strict=True):
        torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=1e-4, atol=2e-6)
        assert not torch.equal(found, before) or options.get("vf_coef") == 0.0
    for tag in other:
        assert mine[tag] == pytest.approx(other[tag], rel=1e-3, abs=1e-5), tag
    if "target_kl" in options:
        assert other["train/n_updates"] < COMMON["n_epochs"], "the KL divergence stopped nothing"


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
def test_rollouts_are_those_of_sb3():
    """The same parameters and generator act alike; values are bootstrapped through time limits as in SB3."""
    ours, theirs = _agents("linear_scalarization", gae_lambda=0.9, gamma=0.97)
    for agent in (ours, theirs):
        agent.set_random_seed(7)
        _collect(agent)
    assert ours.rollout_buffer.episode_starts[1:].any(), "no episode ended within the rollout"
    for name in ("observations", "actions", "rewards", "values", "log_probs", "advantages", "returns"):
        expected = getattr(theirs.rollout_buffer, name)
        np.testing.assert_allclose(getattr(ours.rollout_buffer, name), expected, rtol=1e-4, atol=1e-4, err_msg=name)
