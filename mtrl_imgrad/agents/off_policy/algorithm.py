"""Off-policy agents with a replay by task: how it is made, saved, loaded, and told that episodes end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback

from mtrl_imgrad.agents.checkpoints.generators import noise_state, restore_noise
from mtrl_imgrad.agents.checkpoints.parts import Part
from mtrl_imgrad.agents.common.arguments import check_replay_class
from mtrl_imgrad.agents.common.environments import parse_train_freq
from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm
from mtrl_imgrad.agents.off_policy.buffer import Sampling, TaskReplayBuffer
from mtrl_imgrad.errors import ArgumentError, TaskMismatchError

__all__ = ["BUFFER_ARGUMENTS", "TaskReplayAlgorithm"]

BUFFER_ARGUMENTS = {"buffer_size", "observation_space", "action_space", "device", "n_envs", "task_names", "seed"}
BUFFER_ARGUMENTS |= {"n_steps", "gamma", "sampling", "reward_normalization"}
"""What the agent itself passes to its replay buffer."""


class TaskReplayAlgorithm(MultiTaskAlgorithm, OffPolicyAlgorithm):
    """An off-policy algorithm whose replay is a `TaskReplayBuffer`."""

    replay_buffer: TaskReplayBuffer
    sampling: Sampling
    reward_normalization: str | None

    def _check_replay(self, replay_class: type | None, kwargs: Mapping[str, Any]) -> None:
        check_replay_class(type(self).__name__, replay_class, TaskReplayBuffer, kwargs, BUFFER_ARGUMENTS)

    def _convert_train_freq(self) -> None:
        self.train_freq = parse_train_freq(self.train_freq, self.n_envs)  # type: ignore[assignment]

    def _make_replay_buffer(self) -> TaskReplayBuffer:
        normalization = self.get_vec_normalize_env()
        if self.reward_normalization is not None and normalization is not None and normalization.norm_reward:
            raise ArgumentError("reward_normalization must be None where a VecNormalize does it, got 'std'")
        options = {
            **self.replay_buffer_kwargs,
            "task_names": self.tasks.names,
            "sampling": self.sampling,
            "reward_normalization": self.reward_normalization,
            "n_steps": self.n_steps,
            "gamma": self.gamma,
            "seed": self.seed,
        }
        buffer_class: Any = self.replay_buffer_class or TaskReplayBuffer
        return buffer_class(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            device=self.device,
            n_envs=self.n_envs,
            **options,
        )

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """As in SB3; the buffer must be of the agent's tasks, and moves to its device.

        Args:
            path: of what ``save_replay_buffer`` wrote.
            truncate_last_traj: whether its latest episodes end there; False if the agent goes on in them.

        Raises:
            TaskMismatchError: if it is of others; the agent keeps the buffer that it has.
        """
        before = self.replay_buffer
        super().load_replay_buffer(path)
        loaded, self.replay_buffer = self.replay_buffer, before
        if not isinstance(loaded, TaskReplayBuffer):
            raise TaskMismatchError(f"{path} holds a {type(loaded).__name__}, the agent needs a TaskReplayBuffer")
        loaded.check_fits(self.tasks.names, self.n_envs, self.observation_space, self.action_space)
        loaded.n_steps, loaded.gamma = self.n_steps, self.gamma
        if truncate_last_traj:
            loaded.end_episodes()
        self.replay_buffer = loaded.to(self.device)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps or self._last_obs is None:  # SB3 then begins new episodes, and tells the replay nothing
            self.replay_buffer.end_episodes()
        noise = [] if reset_num_timesteps else noise_state(self.action_noise)
        found = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        self.action_noise = restore_noise(self.action_noise, noise)  # which SB3 resets, episodes going on or not
        return found

    def _checkpoint_parts(self) -> dict[str, Part]:
        return {
            **super()._checkpoint_parts(),
            "action_noise": Part(lambda: noise_state(self.action_noise), self._set_noise),
            "replay": Part(self.replay_buffer.get_state, self._set_replay),
        }

    def _set_noise(self, state: Any) -> None:
        self.action_noise = restore_noise(self.action_noise, state)

    def _set_replay(self, state: Any) -> str | None:
        if state is not None:
            self.replay_buffer.set_state(state)
        elif self.num_timesteps > 0:
            return "it was saved without its replay; an empty one begins, which gives few transitions at first"
        return None
