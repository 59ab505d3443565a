"""SB3's VecNormalize applied to batches on the training device."""

from __future__ import annotations

import torch
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor


class Normalization:
    """Observations and rewards normalized by the present statistics of a VecNormalize.

    Args:
        env: with flat observations.
        device: of the batches.
    """

    def __init__(self, env: VecNormalize, device: torch.device) -> None:
        self._env = env
        self._device = device

    def observations(self, observations: Tensor) -> Tensor:
        """``[..., O]`` float32, by their mean and deviation, clipped."""
        if not self._env.norm_obs:
            return observations
        statistics = self._env.obs_rms
        assert isinstance(statistics, RunningMeanStd), "of a flat Box"
        mean, std = self._on_device(statistics)
        limit = self._env.clip_obs
        return ((observations.double() - mean) / std).clamp(-limit, limit).float()

    def rewards(self, rewards: Tensor) -> Tensor:
        """``[...]`` float32, by the deviation of the returns, clipped."""
        if not self._env.norm_reward:
            return rewards
        std = self._on_device(self._env.ret_rms)[1]
        limit = self._env.clip_reward
        return (rewards.double() / std).clamp(-limit, limit).float()

    def _on_device(self, statistics: RunningMeanStd) -> tuple[Tensor, Tensor]:
        mean = torch.as_tensor(statistics.mean, dtype=torch.float64, device=self._device)
        variance = torch.as_tensor(statistics.var, dtype=torch.float64, device=self._device)
        return mean, (variance + self._env.epsilon).sqrt()
