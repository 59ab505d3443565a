"""Task sets as vector environments in Stable-Baselines3's sense.

``make_vec_env("MT10", seed=0)`` builds one; ``list_tasks("MT10")`` names its tasks. The simulators
(metaworld, mujoco, envpool) are imported when an environment that needs them is built, not before.
"""

from mtrl_imgrad.envs.registry import make_vec_env
from mtrl_imgrad.envs.task_sets import list_task_sets, list_tasks
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv

__all__ = ["MultiTaskVecEnv", "list_task_sets", "list_tasks", "make_vec_env"]
