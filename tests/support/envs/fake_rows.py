"""Groups of rows for the workers' tests: no simulator, faults on demand. Worker processes import it."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from mtrl_imgrad.envs.workers.processes import MissingMethodError

WIDTH = 39


class FakeRows:
    """Rows whose observation counts the steps of their episode; what the first action says decides what
    happens.

    0.1: raise. 0.2: sleep long. 0.3: exit with code 7. Anything else: an ordinary step.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.counts = np.zeros(len(config.rows))
        self.unpicklable = lambda: None

    def seed(self, seed: int) -> None:
        self.counts[:] = 0

    def reset(self, rows: list[int]) -> tuple[np.ndarray, list[int]]:
        self.counts[rows] = 0
        return np.zeros((len(rows), WIDTH)), [0] * len(rows)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        for row, action in enumerate(np.round(actions[:, 0], 3)):
            if action == np.float32(0.1):
                raise ZeroDivisionError(f"the simulator of row {self.config.rows[row]} fell over")
            if action == np.float32(0.2):
                time.sleep(600)
            if action == np.float32(0.3):
                os._exit(7)
        self.counts += 1
        observations = np.repeat(self.counts[:, None], WIDTH, axis=1)
        return observations, np.array(self.config.rows, dtype=float), self.counts == 2

    def get(self, name: str, rows: list[int]) -> list[Any]:
        return [getattr(self, name) for _ in rows]

    def set(self, name: str, value: Any, rows: list[int]) -> None:
        setattr(self, name, value)

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], rows: list[int]) -> list[Any]:
        if name == "no_method":
            raise MissingMethodError("there is no 'no_method'")
        return [(self.config.rows[row], name, args, kwargs) for row in rows]

    def close(self) -> None:
        pass


class UnbuildableRows(FakeRows):
    def __init__(self, config: Any) -> None:
        raise FileNotFoundError("sawyer.xml")
