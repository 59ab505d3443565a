"""Meta-World's rows with the poison of ``poisoned_rows`` among them, in this process or in a worker's.

Worker processes import it, and start without torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtrl_imgrad.envs.backends.metaworld_rows import MetaWorldRows
from tests.support.envs.poisoned_rows import poison_reset, poison_step


class PoisonedMetaWorldRows(MetaWorldRows):
    def reset(self, rows: Any) -> tuple[np.ndarray, list[Any]]:
        observations, streams = super().reset(rows)
        poison_reset([self._config.rows[row] for row in rows], observations)
        return observations, streams

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        observations, rewards, success = super().step(actions)
        poison_step(list(self._config.rows), observations, rewards)
        return observations, rewards, success
