"""Updates while the environments simulate: what is slower, simulation or learning, is all that one waits for.

A vector step has two halves: actions are sent, results are received. Between them the simulators are at work, EnvPool's
threads or worker processes, and the agent waits. Here it updates meanwhile. Actions are those of the newest policy; the
updates lack only the transitions that are being made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn


class UpdatesWhileStepping(VecEnvWrapper):
    """Calls a function once, between the two halves of the next step.

    Args:
        venv: whose steps they are.
        update: what to call.
    """

    def __init__(self, venv: VecEnv, update: Callable[[], None]) -> None:
        super().__init__(venv)
        self.update: Callable[[], None] | None = update

    def step_async(self, actions: Any) -> None:
        """Send the actions, then update."""
        self.venv.step_async(actions)
        if self.update is not None:
            update, self.update = self.update, None
            update()

    def step_wait(self) -> VecEnvStepReturn:
        """Receive what the actions led to."""
        return self.venv.step_wait()

    def reset(self) -> Any:
        """As the environment's."""
        return self.venv.reset()
