"""Checkpoints while learning, the last few of them, and one when a signal or a failing environment ends it."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm
from mtrl_imgrad.checkpoints.format import delete_checkpoint, is_checkpoint
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.errors import (
    ArgumentError,
    EnvironmentFaultError,
    LearningInterruptedError,
    MtrlImgradError,
    WorkerError,
)
from mtrl_imgrad.validation import Count, checked

NAME = re.compile(r"step_(\d{12})")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@checked
class MTCheckpointCallback(BaseCallback):
    """Saves a checkpoint now and then, where one rollout is over and the next has not begun.

    That is the only place from which a resumed agent does bit for bit what this one does: after each training of
    `MTSAC` (with ``train_freq=1``: after every step), after each rollout of `MTPPO`. It may lie in the midst of
    episodes.

    While learning, the first Ctrl-C (SIGINT) or SIGTERM is kept until there; then a checkpoint is saved and
    `LearningInterruptedError` raised. A second one interrupts at once, without a checkpoint. (Signals can be handled
    in the main thread only; in another one they are left alone.)

    Where an environment fails (a NaN, a dead worker), nothing has learned from the step that failed, so one more
    checkpoint is saved, and a note on the error names it. What goes on from it begins new episodes: those that failed
    would fail again, to the bit.

    Args:
        save_freq: steps of the vector environment between checkpoints.
        path: folder of the checkpoints, each a folder ``step_<timesteps>``.
        keep: how many of the latest to keep.
        replay: whether they hold the replay.
        verbose: 1 prints a line a checkpoint.
        eval_env: the environment of the run's evaluations, so that they go on as well.

    Raises:
        ArgumentError: if an argument is out of range; when learning starts, if the agent has no checkpoints, or the
            folder holds later ones than the agent's step.
        CheckpointError: if a checkpoint cannot be written.
    """

    def __init__(
        self,
        save_freq: Count,
        path: str | os.PathLike[str],
        keep: Count = 3,
        replay: bool = True,
        verbose: int = 0,
        eval_env: MultiTaskVecEnv | None = None,
    ) -> None:
        super().__init__(verbose)
        self.save_freq = save_freq
        self.path = Path(path)
        self.keep = keep
        self.replay = replay
        self.eval_env = eval_env
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def _init_callback(self) -> None:
        if not isinstance(self.model, MultiTaskAlgorithm):
            raise ArgumentError(f"{type(self.model).__name__} has no save_checkpoint: use one of ours")

    def _on_training_start(self) -> None:
        self.num_timesteps = self.model.num_timesteps
        later = [kept for kept in list_checkpoints(self.path) if kept.name > self._target().name]
        if later:  # new ones would be the oldest, and the first to be deleted
            raise ArgumentError(
                f"path {self.path} holds {later[-1].name}, but the agent begins at {self.num_timesteps:,} timesteps: "
                "give another folder, or remove what is later"
            )
        self._next = self._due_after(self.num_timesteps)
        self._signal = None
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _due_after(self, timesteps: int) -> int:
        period = self.save_freq * self.training_env.num_envs
        return (timesteps // period + 1) * period

    def _note(self, number: int, frame: FrameType | None) -> None:
        """The first signal is kept for later; a second one does what it would have done."""
        self._signal = number
        self.release()
        if self.verbose:
            print("stopping where the rollout ends, with a checkpoint; once more to stop at once")

    def release(self) -> None:
        """Give the signals back to whoever had them. Called where learning ends, also by an exception."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _on_rollout_start(self) -> None:
        self.num_timesteps = self.model.num_timesteps
        if self.num_timesteps >= self._next or self._signal is not None:
            self._save()
            self._next = self._due_after(self.num_timesteps)
        if self._signal is not None:
            raise LearningInterruptedError(
                f"learning was interrupted by {signal.Signals(self._signal).name} after {self.num_timesteps:,} "
                f"timesteps; {self._target()} holds a checkpoint",
                self._signal,
            )

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.release()
        self._save()

    def on_learning_failed(self, error: BaseException) -> None:
        """Save what there is if an environment failed. `MTSAC` and `MTPPO` call it where learning ends by an error."""
        self.release()
        model = getattr(self, "model", None)  # None where the environment's first reset failed
        if model is None or model.num_timesteps == model._num_timesteps_at_start:
            return  # there is nothing new
        if not isinstance(error, EnvironmentFaultError | WorkerError):
            return
        self.num_timesteps = self.model.num_timesteps
        try:
            self._save()
        except MtrlImgradError as second:
            error.add_note(f"No checkpoint could be saved: {second}")
        else:
            error.add_note(f"{self._target()} holds a checkpoint from before this step, with new episodes to come")

    def _target(self) -> Path:
        return self.path / f"step_{self.num_timesteps:012d}"

    def _save(self) -> None:
        assert isinstance(self.model, MultiTaskAlgorithm)
        self.model.save_checkpoint(self._target(), self.replay, self.eval_env)
        if self.verbose:
            print(f"saved {self._target()}")
        for old in list_checkpoints(self.path)[: -self.keep]:
            delete_checkpoint(old)


def list_checkpoints(path: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of a `MTCheckpointCallback`, the latest last."""
    folder = Path(path)
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return [folder / name for name in names if NAME.fullmatch(name) and is_checkpoint(folder / name)]


@checked
def latest_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The latest of them.

    Raises:
        ArgumentError: if there is none.
    """
    checkpoints = list_checkpoints(path)
    if not checkpoints:
        raise ArgumentError(f"{path} holds no checkpoint; expected folders such as step_000000012000")
    return checkpoints[-1]
