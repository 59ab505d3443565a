"""SB3-style multi-task agents."""

from mtrl_imgrad.agents.buffers import TaskReplayBuffer
from mtrl_imgrad.agents.mtsac import MTSAC
from mtrl_imgrad.agents.policies import MTSACPolicy

__all__ = ["MTSAC", "MTSACPolicy", "TaskReplayBuffer"]
