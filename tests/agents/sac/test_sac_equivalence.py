"""With one task, MTSAC must be SB3's SAC: parameter for parameter, update after update."""

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.envs import make_vec_env

pytestmark = pytest.mark.portable

UPDATES = 20
ROWS = 32


def _one_task_env():
    return make_vec_env(["toy-reach/left"], seed=3, one_hot=False)


def _mean_and_std(module_mu, module_std, what):
    return torch.cat([getattr(module_mu, what), getattr(module_std, what)])


def _layers_of_sb3(agent):
    """SB3's parameters in the order of ours: the actor's two output layers are one layer here."""
    actor, critic = agent.actor, agent.critic
    hidden = list(actor.latent_pi.parameters())
    head = [_mean_and_std(actor.mu, actor.log_std, what) for what in ("weight", "bias")]
    return [*hidden, *head], list(critic.parameters()), list(agent.critic_target.parameters())


def _copy_parameters(source, target):
    for theirs, ours in zip(_layers_of_sb3(source), _layers_of_ours(target), strict=True):
        for value, parameter in zip(theirs, ours, strict=True):
            parameter.data.copy_(value)


def _layers_of_ours(agent):
    return [list(net.parameters()) for net in (agent.actor, agent.critic, agent.critic_target)]


class _SameBatches:
    """Feeds SB3 the batches that MTSAC draws."""

    def __init__(self, buffer):
        self.buffer = buffer

    def sample(self, batch_size, env=None):
        batch = self.buffer.sample(batch_size)
        columns = (
            batch.observations,
            batch.actions,
            batch.next_observations,
            batch.terminated[..., None],
            batch.rewards[..., None],
        )
        return ReplayBufferSamples(*(column.squeeze(0) for column in columns), None)


@pytest.mark.parametrize("ent_coef", ["auto", "auto_0.1", 0.2])
@pytest.mark.parametrize("combiner", ["linear_scalarization", "mgda"])
def test_one_task_is_sb3_sac_parameter_for_parameter(ent_coef, combiner, monkeypatch):
    common = {"learning_starts": 0, "batch_size": ROWS, "seed": 0, "device": "cpu", "ent_coef": ent_coef}
    theirs = SAC("MlpPolicy", _one_task_env(), policy_kwargs={"net_arch": [24, 16]}, **common)
    ours = MTSAC(
        "MlpPolicy",
        _one_task_env(),
        combiner=combiner,
        policy_kwargs={"net_arch": [24, 16], "encoder": "one_hot"},
        gradient_steps=0,
        trace=False,
        **common,
    )
    ours.learn(64)
    _copy_parameters(theirs, ours)
    state = ours.replay_buffer.generator.get_state()
    monkeypatch.setattr(ours, "_draw_noise", lambda like: torch.normal(torch.zeros_like(like), 1.0))

    torch.manual_seed(5)
    ours.train(UPDATES)
    ours.replay_buffer.generator.set_state(state)
    torch.manual_seed(5)
    theirs.set_logger(ours.logger)
    theirs.replay_buffer = _SameBatches(ours.replay_buffer)
    theirs.train(UPDATES, ROWS)

    start = SAC("MlpPolicy", _one_task_env(), policy_kwargs={"net_arch": [24, 16]}, **common)
    for a, b, c in zip(_layers_of_sb3(theirs), _layers_of_ours(ours), _layers_of_sb3(start), strict=True):
        for expected, found, before in zip(a, b, c, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6)
            assert not torch.equal(expected, before), "nothing was learned: the comparison would be empty"
    if ent_coef != 0.2:
        torch.testing.assert_close(ours.log_ent_coef, theirs.log_ent_coef, rtol=1e-5, atol=1e-6)
        assert not np.isclose(float(ours.log_ent_coef.detach()), np.log(0.1 if ent_coef == "auto_0.1" else 1.0))
