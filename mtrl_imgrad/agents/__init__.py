"""SB3-style multi-task agents and the callbacks that know of tasks."""

from mtrl_imgrad.extras import require

require("mtrl_imgrad.agents", "gymnasium", "stable_baselines3", "rich", "safetensors")

from mtrl_imgrad.agents.callbacks.checkpoints import MTCheckpointCallback, latest_checkpoint
from mtrl_imgrad.agents.callbacks.diagnostics import GradientDiagnosticsCallback
from mtrl_imgrad.agents.callbacks.evaluation import MTEvalCallback
from mtrl_imgrad.agents.callbacks.progress import MTProgressBarCallback
from mtrl_imgrad.agents.common.pretrained import list_pretrained, pretrained_card
from mtrl_imgrad.agents.off_policy.buffer import TaskReplayBuffer
from mtrl_imgrad.agents.ppo.agent import MTPPO
from mtrl_imgrad.agents.ppo.policy import MTPPOPolicy
from mtrl_imgrad.agents.sac.agent import MTSAC
from mtrl_imgrad.agents.sac.policy import MTSACPolicy
from mtrl_imgrad.agents.td3.agent import MTTD3
from mtrl_imgrad.agents.td3.policy import MTTD3Policy

__all__ = [
    "MTPPO",
    "MTSAC",
    "MTTD3",
    "GradientDiagnosticsCallback",
    "MTCheckpointCallback",
    "MTEvalCallback",
    "MTPPOPolicy",
    "MTProgressBarCallback",
    "MTSACPolicy",
    "MTTD3Policy",
    "TaskReplayBuffer",
    "latest_checkpoint",
    "list_pretrained",
    "pretrained_card",
]
