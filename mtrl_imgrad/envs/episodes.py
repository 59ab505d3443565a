"""The running episodes of a vector environment: their lengths, returns and successes, and when they end."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


class Episodes:
    """One episode a row.

    Args:
        rows: Number of environments.
        horizon: Steps after which an episode is truncated.
        terminate_on_success: Whether its first success terminates it.
    """

    def __init__(self, rows: int, horizon: int, terminate_on_success: bool) -> None:
        self.lengths: IntArray = np.zeros(rows, dtype=np.int64)
        self._returns = np.zeros(rows)
        self._succeeded = np.zeros(rows, dtype=bool)
        self._horizon = horizon
        self._terminate_on_success = terminate_on_success
        self._born = time.time()

    def start(self, rows: IntArray) -> None:
        """New episodes begin in ``rows``."""
        self._returns[rows], self.lengths[rows], self._succeeded[rows] = 0.0, 0, False

    def get_state(self) -> dict[str, npt.NDArray[Any]]:
        """Length, return and success so far of each row's episode."""
        state = {"lengths": self.lengths, "returns": self._returns, "succeeded": self._succeeded}
        return {name: values.copy() for name, values in state.items()}

    def set_state(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """Restore `get_state`."""
        self.lengths[:], self._returns[:] = state["lengths"], state["returns"]
        self._succeeded[:] = state["succeeded"]

    def advance(
        self, rewards: FloatArray, success: BoolArray, terminated: BoolArray, truncated: BoolArray
    ) -> tuple[BoolArray, list[dict[str, Any]]]:
        """Account for a step that ``lengths`` counts already.

        Args:
            rewards: ``[rows]``.
            success: Success of this step ``[rows]``.
            terminated: Which episodes the simulator itself terminated ``[rows]``.
            truncated: Which it truncated ``[rows]``.

        Returns:
            Which episodes end with it ``[rows]``, and an info for each row.
        """
        self._returns += rewards
        self._succeeded |= success
        if self._terminate_on_success:
            terminated = terminated | success
        truncated = (truncated | (self.lengths >= self._horizon)) & ~terminated
        dones = terminated | truncated
        pairs = zip(success.tolist(), truncated.tolist(), strict=True)
        return dones, [{"success": won, "TimeLimit.truncated": late} for won, late in pairs]

    def finish(self, rows: IntArray, last: npt.NDArray[np.float32], infos: list[dict[str, Any]]) -> None:
        """Write what SB3 reads at an episode's end into the infos of ``rows``.

        Args:
            rows: Rows whose episodes ended.
            last: Their last observations ``[len(rows), observation]``.
            infos: An info for every row of the environment, changed in place.
        """
        seconds = round(time.time() - self._born, 6)
        for row, observation in zip(rows.tolist(), last, strict=True):
            infos[row]["episode"] = {
                "r": float(self._returns[row]),
                "l": int(self.lengths[row]),
                "t": seconds,
            }
            infos[row]["is_success"] = bool(self._succeeded[row])
            infos[row]["terminal_observation"] = observation
