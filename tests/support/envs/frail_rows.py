"""Rows without a simulator whose worker processes fail on demand. Worker processes import it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 39
FOLDER = "FRAIL_ROWS"
"""Environment variable: a folder of orders, files named ``<request>-<kind>``."""
KINDS = ("raise", "exit", "kill", "hang")


def order(folder: Path, request: str, kind: str, times: int = 1) -> None:
    """Have the next ``times`` requests of that name fail in the worker that runs row 1."""
    (folder / f"{request}-{kind}").write_text(str(times))


class FrailRows:
    """Each row draws a state at its reset and moves it by its actions: a chaotic map, in which nothing is forgiven."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.seed(config.seed)

    def seed(self, seed: int) -> None:
        self.generators = [np.random.default_rng((seed, row)) for row in self.config.rows]
        self.states = np.zeros((len(self.config.rows), WIDTH))

    def reset(self, rows: list[int]) -> tuple[np.ndarray, list[Any]]:
        self._fail("reset")
        before = [self.generators[row].bit_generator.state for row in rows]
        self.states[rows] = [self.generators[row].uniform(-1, 1, WIDTH) for row in rows]
        return self.states[rows], before

    def set_streams(self, streams: list[Any]) -> None:
        for generator, state in zip(self.generators, streams, strict=True):
            generator.bit_generator.state = state

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self._fail("step")
        self.states = 1 - 1.9 * np.abs(0.9 * self.states + 0.1 * np.clip(actions, -1, 1).mean(1, keepdims=True))
        return self.states.copy(), self.states[:, 1], self.states[:, 0] > 0.9

    def get(self, name: str, rows: list[int]) -> list[Any]:
        return [getattr(self, name) for _ in rows]

    def set(self, name: str, value: Any, rows: list[int]) -> None:
        setattr(self, name, value)

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], rows: list[int]) -> list[Any]:
        return [name for _ in rows]

    def close(self) -> None:
        pass

    def _fail(self, request: str) -> None:
        folder = os.environ.get(FOLDER)
        if folder is None or 1 not in self.config.rows:
            return
        for kind in KINDS:
            path = Path(folder) / f"{request}-{kind}"
            if not path.exists():
                continue
            left = int(path.read_text()) - 1
            path.write_text(str(left)) if left else path.unlink()
            if kind == "raise":
                raise ZeroDivisionError(f"row 1 fell over in {request}")
            if kind == "exit":
                os._exit(7)
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)


class ForgetfulRows(FrailRows):
    """Rows that depend on more than their resets and actions."""

    def reset(self, rows: list[int]) -> tuple[np.ndarray, list[Any]]:
        observations, before = super().reset(rows)
        self.states[rows, 2] = os.getpid()
        observations[:, 2] = os.getpid()
        return observations, before
