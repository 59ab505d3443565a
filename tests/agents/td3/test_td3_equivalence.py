"""With one task, MTTD3 must be SB3's TD3: parameter for parameter, update after update."""

import numpy as np
import pytest
import torch
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from mtrl_imgrad.agents import MTTD3
from mtrl_imgrad.envs import make_vec_env

pytestmark = pytest.mark.portable

UPDATES = 30
ROWS = 32
NETWORKS = ("actor", "actor_target", "critic", "critic_target")


def _one_task_env():
    return make_vec_env(["toy-reach/left"], seed=3, one_hot=False)


def _parameters(agent):
    return {name: list(getattr(agent, name).parameters()) for name in NETWORKS}


class _SameBatches:
    """Feeds SB3 the batches that MTTD3 draws."""

    def __init__(self, buffer):
        self.buffer = buffer

    def sample(self, batch_size, env=None):
        batch = self.buffer.sample(batch_size)
        discounts = None if batch.discounts is None else batch.discounts[0, :, None]
        columns = (
            batch.observations,
            batch.actions,
            batch.next_observations,
            batch.terminated[..., None],
            batch.rewards[..., None],
        )
        return ReplayBufferSamples(*(column.squeeze(0) for column in columns), discounts)


@pytest.mark.parametrize(
    ("options", "combiner"),
    [
        ({}, "linear_scalarization"),
        ({"policy_delay": 1, "target_policy_noise": 0.6, "target_noise_clip": 0.3}, "mgda"),
        ({"policy_delay": 3, "n_steps": 3, "tau": 0.1, "gamma": 0.9}, "mgda"),
    ],
)
def test_one_task_is_sb3_td3_parameter_for_parameter(options, combiner, monkeypatch):
    common = {"learning_starts": 0, "batch_size": ROWS, "seed": 0, "device": "cpu", **options}
    theirs, start = (TD3("MlpPolicy", _one_task_env(), policy_kwargs={"net_arch": [24, 16]}, **common) for _ in "ab")
    ours = MTTD3(
        "MlpPolicy",
        _one_task_env(),
        combiner=combiner,
        policy_kwargs={"net_arch": [24, 16], "encoder": "one_hot"},
        gradient_steps=0,
        action_noise=NormalActionNoise(np.zeros(2), np.full(2, 0.3)),
        **common,
    )
    ours.learn(200)
    for name, values in _parameters(theirs).items():
        for value, parameter in zip(values, _parameters(ours)[name], strict=True):
            parameter.data.copy_(value)
    state = ours.replay_buffer.generator.get_state()
    monkeypatch.setattr(ours, "_draw_noise", lambda like: torch.normal(torch.zeros_like(like), 1.0))

    torch.manual_seed(5)
    for _ in range(2):  # the delay counts updates, whatever training they belong to
        ours.train(UPDATES // 2)
    ours.replay_buffer.generator.set_state(state)
    torch.manual_seed(5)
    theirs.set_logger(ours.logger)
    theirs.replay_buffer = _SameBatches(ours.replay_buffer)
    for _ in range(2):
        theirs.train(UPDATES // 2, ROWS)

    assert ours._n_updates == theirs._n_updates == UPDATES
    for name, values in _parameters(theirs).items():
        for expected, found, before in zip(values, _parameters(ours)[name], _parameters(start)[name], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6)
            assert not torch.equal(expected, before), "nothing was learned: the comparison would be empty"
