"""SB3-style multi-task agents and the callbacks that know of tasks."""

from mtrl_imgrad.agents.buffers import TaskReplayBuffer
from mtrl_imgrad.agents.callbacks import GradientDiagnosticsCallback, MTEvalCallback
from mtrl_imgrad.agents.checkpoint_callback import MTCheckpointCallback, latest_checkpoint
from mtrl_imgrad.agents.mtppo import MTPPO
from mtrl_imgrad.agents.mtsac import MTSAC
from mtrl_imgrad.agents.policies import MTSACPolicy
from mtrl_imgrad.agents.ppo_policy import MTPPOPolicy
from mtrl_imgrad.agents.progress import MTProgressBarCallback

__all__ = [
    "MTPPO",
    "MTSAC",
    "GradientDiagnosticsCallback",
    "MTCheckpointCallback",
    "MTEvalCallback",
    "MTPPOPolicy",
    "MTProgressBarCallback",
    "MTSACPolicy",
    "TaskReplayBuffer",
    "latest_checkpoint",
]
