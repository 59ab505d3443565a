"""SB3's arrays of a replay buffer, read out of rows that hold a transition each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from torch import Tensor

from mtrl_imgrad.agents.off_policy.n_step import CUT_OFF


class StoredColumns(ReplayBuffer):
    """SB3's names for what is stored: read-only, each a copy on the host."""

    _rows: Tensor
    """``[buffer_size, n_envs, W]``"""
    _widths: tuple[int, ...]
    """Of observation, next observation, action, reward, and how the episode ended."""

    @property
    def observations(self) -> NDArray:  # type: ignore[override]
        """``[buffer_size, n_envs, O]``, zero where nothing is stored."""
        return self._column(0)

    @property
    def next_observations(self) -> NDArray:  # type: ignore[override]
        """Likewise, of the terminal observation where an episode ended."""
        return self._column(1)

    @property
    def actions(self) -> NDArray:  # type: ignore[override]
        """Scaled to [-1, 1], ``[buffer_size, n_envs, A]``."""
        return self._column(2)

    @property
    def rewards(self) -> NDArray:  # type: ignore[override]
        """``[buffer_size, n_envs]``, raw."""
        return self._column(3)[..., 0]

    @property
    def dones(self) -> NDArray:  # type: ignore[override]
        """``[buffer_size, n_envs]``: 1 where an episode ended or was cut off."""
        return (self._column(4)[..., 0] != 0).astype(np.float32)

    @property
    def timeouts(self) -> NDArray:  # type: ignore[override]
        """``[buffer_size, n_envs]``: 1 where it was cut off."""
        return (self._column(4)[..., 0] == CUT_OFF).astype(np.float32)

    def _column(self, number: int) -> NDArray:
        return self._rows.split(self._widths, dim=-1)[number].cpu().numpy().copy()
