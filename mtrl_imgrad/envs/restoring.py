"""Episodes of a vector environment to a checkpoint and back, in the midst of them, whatever the simulator.

No simulator's state is saved. An episode follows from what its reset drew and from its actions; so the last reset of
each row is repeated, and the actions since. (Meta-World's state is spread over MuJoCo, the model and the environment's
attributes; EnvPool's cannot be read at all.) Whether the environment is then where it was is checked: its observations
must be those of the checkpoint, bit for bit.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl_imgrad.envs.env_attributes import EnvAttributes
from mtrl_imgrad.envs.episodes import BoolArray, Episodes, FloatArray, IntArray
from mtrl_imgrad.errors import ArgumentError, EnvironmentFaultError


class RestorableEpisodes(EnvAttributes):
    """The part of a multi-task environment that saves and restores its episodes."""

    num_envs_per_task: int
    horizon: int
    one_hot: bool
    terminate_on_success: bool
    state_size: int
    initial_seed: int
    _pending_seed: int | None
    _used: bool
    _running: bool
    _stepping: bool
    _episodes: Episodes
    _last_observations: npt.NDArray[np.float32] | None
    _restoring = False

    def get_state(self, episodes: bool = True) -> dict[str, Any] | None:
        """State for `set_state` of an equal environment, between two steps.

        Args:
            episodes: whether the running episodes are held, or only what the next `reset` draws; after a step that
                failed there are none.

        Returns:
            Nested dicts of numbers, text and arrays; None before the first reset, or where the back-end cannot repeat
            its resets.
        """
        streams = self._get_streams() if self._used else None
        if streams is None:
            return None
        state = {
            "settings": self._settings(),
            "seed": self.initial_seed,
            "pending_seed": self._pending_seed,
            "streams": streams,
            "episodes": None,
        }
        if self._running and episodes:
            assert self._last_observations is not None
            state["episodes"] = self._episodes.get_state()
            state["actions"] = self._action_log[: self._episodes.lengths.max()].copy()
            state["observations"] = self._last_observations.copy()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from where `get_state` was called, in this or in another process.

        If no episode was under way there, the next `reset` draws what it would have drawn.

        Takes as long as the running episodes took to simulate; EnvPool also repeats all resets since the start.

        Raises:
            ArgumentError: if the environment is another one, naming the first difference, or the state is malformed.
            EnvironmentFaultError: if the repeated episodes do not lead to the observations of the state, naming the
                task. No episode is under way then.
        """
        for name, ours in self._settings().items():
            theirs = state["settings"].get(name)
            if ours != theirs:
                raise ArgumentError(f"the episodes are of an environment with {name}={theirs!r}, this one has {ours!r}")
        if state["episodes"] is not None:
            self._check_shapes(state)
        self._running = self._stepping = False
        self._used = True
        self.initial_seed = state["seed"]
        self._seed_rows(self.initial_seed)
        if state["episodes"] is None:
            self._replay(state["streams"])
        else:
            self._resume(state)
        self._pending_seed = state["pending_seed"]

    def _resume(self, state: dict[str, Any]) -> None:
        """Take up the episodes of a state."""
        actions = state["actions"]
        wrong = self._replay(state["streams"], state["episodes"]["lengths"], actions, state["observations"])
        if wrong is not None:
            raise EnvironmentFaultError(
                f"the episodes cannot be restored: {wrong}. Was it saved with another version of the simulator?"
            )
        self._episodes.set_state(state["episodes"])
        self._action_log[: len(actions)] = actions
        self._last_observations = state["observations"].copy()
        self._running = True

    def _restore_rows(self) -> None:
        """Bring rows that were built anew, with the seed, to where the old ones were before a call that failed.

        Raises:
            EnvironmentFaultError: if that cannot be done, or they came out elsewhere.
        """
        if self._restoring:
            raise EnvironmentFaultError("it failed while the episodes of a checkpoint were being restored")
        streams = self._get_streams()
        if streams is None:
            return  # as they were built
        if self._last_observations is None:
            self._replay(streams)  # all rows were about to be reset
            return
        wrong = self._replay(streams, self._episodes.lengths, self._action_log, self._last_observations)
        if wrong is not None:
            raise EnvironmentFaultError(wrong)

    def _replay(
        self,
        streams: Any,
        lengths: IntArray | None = None,
        actions: npt.NDArray[np.float32] | None = None,
        expected: npt.NDArray[np.float32] | None = None,
    ) -> str | None:
        """Repeat the last reset of each row from ``streams`` and, where ``lengths`` are given, the actions since.

        Returns:
            None if the observations are those expected, or which row's are not, in words.
        """
        self._restoring = True
        try:
            if lengths is not None and lengths.min() < lengths.max():
                self._reset_rows(np.arange(self.num_envs))  # a row can then be stepped before its own episode begins
            self._set_streams(streams)
            if lengths is None or actions is None or expected is None:
                self._reset_rows(np.arange(self.num_envs))
                return None
            return self._difference(self._repeat(lengths, actions), expected[:, : self.state_size])
        finally:
            self._restoring = False

    def _repeat(self, lengths: IntArray, actions: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Reset every row and step it ``lengths`` times, all ending together; the last observations."""
        longest, rows = int(lengths.max()), np.arange(self.num_envs)
        states = np.zeros((self.num_envs, self.state_size), dtype=np.float32)
        for step in range(longest + 1):
            begins = np.flatnonzero(lengths == longest - step)  # shorter episodes begin later
            if len(begins):
                states[begins] = to_float32(self._reset_rows(begins))
            if step < longest:
                own_step = step - (longest - lengths)  # negative: this row's episode has not begun
                self._send(np.where(own_step[:, None] >= 0, actions[own_step, rows], np.float32(0)))
                states = to_float32(self._recv()[0])
        return states

    def _check_shapes(self, state: dict[str, Any]) -> None:
        episodes, actions, observations = state["episodes"], state["actions"], state["observations"]
        lengths = episodes["lengths"]
        rows = (self.num_envs,)
        fit = (
            all(episodes[name].shape == rows for name in ("lengths", "returns", "succeeded"))
            and lengths.dtype == np.int64
            and bool(((lengths >= 0) & (lengths < self.horizon)).all())
            and actions.shape == (lengths.max(), *rows, *self._action_log.shape[2:])
            and actions.dtype == np.float32
            and observations.shape == (*rows, *self.observation_space.shape)  # type: ignore[misc]
            and observations.dtype == np.float32
        )
        if not fit:
            raise ArgumentError("the episodes' state is malformed: its arrays do not fit this environment")

    def _difference(self, observed: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> str | None:
        """The first row whose observations are not bit for bit those expected, in words; None if all are."""
        wrong = np.flatnonzero((observed != expected).any(axis=1))
        if not len(wrong):
            return None
        row = int(wrong[0])
        away = float(np.abs(observed[row] - expected[row]).max())
        return f"task {self.task_names[self.task_ids[row]]!r}, environment {row}, is {away:.3g} away from where it was"

    def _settings(self) -> dict[str, Any]:
        """Settings that must be equal where episodes are taken over."""
        names = ("backend", "task_names", "num_envs_per_task", "horizon", "one_hot", "terminate_on_success")
        return {name: getattr(self, name) for name in names}

    def _make_action_log(self) -> None:
        """Room for the actions of every row's episode, ``[horizon, num_envs, action]``."""
        shape = (self.horizon, self.num_envs, *self.action_space.shape)  # type: ignore[misc]
        self._action_log = np.zeros(shape, dtype=np.float32)

    def _log_actions(self, actions: npt.NDArray[np.float32]) -> None:
        self._action_log[self._episodes.lengths, np.arange(self.num_envs)] = actions

    def _get_streams(self) -> Any:
        """States of the generators before the last reset of each row; None where a back-end has none."""
        return None

    def _set_streams(self, streams: Any) -> None:
        """Have the next reset of each row draw from ``streams``; called after `_seed_rows`."""
        raise ArgumentError(f"the {self.backend} back-end cannot restore its episodes")

    @abstractmethod
    def _seed_rows(self, seed: int) -> None:
        """Behave from the next reset on as if built with ``seed``."""

    @abstractmethod
    def _reset_rows(self, rows: IntArray) -> FloatArray:
        """Start new episodes in ``rows``; returns their first observations ``[len(rows), state]``."""

    @abstractmethod
    def _send(self, actions: npt.NDArray[np.float32]) -> None:
        """Begin a step of all rows with ``actions [num_envs, action]``."""

    @abstractmethod
    def _recv(self) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Finish the step: observations ``[num_envs, state]``, rewards and successes ``[num_envs]``."""


def to_float32(values: FloatArray) -> npt.NDArray[np.float32]:
    """As float32; what is too large becomes infinite, and is refused where no infinity may be."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
