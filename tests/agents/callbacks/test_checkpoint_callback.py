"""Checkpoints while learning: when, how many, and when a signal comes."""

import os
import signal
import threading

import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback

from mtrl_imgrad.agents import MTPPO, MTSAC, MTCheckpointCallback, latest_checkpoint
from mtrl_imgrad.agents.callbacks.checkpoints import list_checkpoints
from mtrl_imgrad.checkpoints.format import read_checkpoint
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, LearningInterruptedError

OPTIONS = {"policy_kwargs": {"net_arch": [8]}, "seed": 0, "device": "cpu", "trace": False}


def _sac():
    return MTSAC("MlpPolicy", make_vec_env("toy-reach", seed=0), learning_starts=1000, buffer_size=400, **OPTIONS)


def _steps(folder):
    return [int(path.name.removeprefix("step_")) for path in list_checkpoints(folder)]


class _SendAt(BaseCallback):
    """A signal to this process at the n-th step."""

    def __init__(self, number, calls):
        super().__init__()
        self.number, self.calls = number, calls

    def _on_step(self):
        if self.n_calls in self.calls:
            os.kill(os.getpid(), self.number)
        return True


def test_the_latest_are_kept_where_rollouts_begin(tmp_path):
    _sac().learn(100 * 4, MTCheckpointCallback(10, tmp_path, keep=3))
    assert _steps(tmp_path) == [320, 360, 400]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step_{n:012d}" for n in (320, 360, 400)]
    assert latest_checkpoint(tmp_path) == tmp_path / "step_000000000400"
    agent = MTPPO("MlpPolicy", make_vec_env("toy-reach", seed=0), n_steps=20, batch_size=40, n_epochs=1, **OPTIONS)
    agent.learn(5 * 80, MTCheckpointCallback(15, tmp_path / "ppo", keep=10))
    assert _steps(tmp_path / "ppo") == [80, 160, 240, 320, 400], "a rollout of 80 steps is not broken for one"


def test_a_learning_that_goes_on_keeps_the_rhythm(tmp_path):
    agent = _sac()
    agent.learn(25 * 4, MTCheckpointCallback(10, tmp_path, keep=10))
    agent.learn(10 * 4, MTCheckpointCallback(10, tmp_path, keep=10), reset_num_timesteps=False)
    assert _steps(tmp_path) == [40, 80, 100, 120, 140]


def test_another_run_does_not_share_the_folder(tmp_path):
    """Its checkpoints would count as the oldest, and each would be deleted as soon as it was saved."""
    _sac().learn(40 * 4, MTCheckpointCallback(10, tmp_path, keep=2))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ArgumentError, match="holds step_000000000160, but the agent begins at 0 timesteps"):
        _sac().learn(20 * 4, MTCheckpointCallback(10, tmp_path, keep=2))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_stops(number, tmp_path):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    agent = _sac()
    with pytest.raises(LearningInterruptedError, match=f"{number.name} after 28 timesteps") as caught:
        agent.learn(400, [_SendAt(number, [7]), MTCheckpointCallback(1000, tmp_path)])
    assert caught.value.number == number
    assert isinstance(caught.value, KeyboardInterrupt)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    assert _steps(tmp_path) == [28]
    resumed = MTSAC.load_checkpoint(latest_checkpoint(tmp_path), make_vec_env("toy-reach", seed=0), device="cpu")
    assert resumed.num_timesteps == 28
    assert resumed.replay_buffer.size() == 7, "the transition of the step at which the signal came is there"


def test_a_second_signal_stops_at_once(tmp_path, interruptible):
    agent = MTPPO("MlpPolicy", make_vec_env("toy-reach", seed=0), n_steps=20, batch_size=40, **OPTIONS)
    callback = MTCheckpointCallback(1000, tmp_path)
    with pytest.raises(KeyboardInterrupt) as caught:
        agent.learn(400, [_SendAt(signal.SIGINT, [3, 5]), callback])
    assert type(caught.value) is KeyboardInterrupt
    assert agent.num_timesteps == 5 * 4
    assert _steps(tmp_path) == []


def test_signals_are_left_alone_in_other_threads(tmp_path):
    thread = threading.Thread(target=_sac().learn, args=(40, MTCheckpointCallback(5, tmp_path)))
    thread.start()
    thread.join()
    assert _steps(tmp_path) == [20, 40]


def test_without_replay(tmp_path):
    _sac().learn(40, MTCheckpointCallback(10, tmp_path, replay=False))
    assert read_checkpoint(latest_checkpoint(tmp_path))["replay"] is None


def test_wrong_arguments_and_agents(tmp_path):
    for wrong in ({"save_freq": 0}, {"keep": 0}, {"keep": True}, {"save_freq": 1.5}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            MTCheckpointCallback(**{"save_freq": 1, "path": tmp_path, **wrong})
    with pytest.raises(ArgumentError, match="SAC has no save_checkpoint"):
        SAC("MlpPolicy", make_vec_env("toy-reach", seed=0), device="cpu").learn(4, MTCheckpointCallback(1, tmp_path))
    with pytest.raises(ArgumentError, match="holds no checkpoint"):
        latest_checkpoint(tmp_path / "nowhere")
