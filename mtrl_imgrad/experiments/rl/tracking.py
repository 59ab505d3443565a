"""Experiment trackers as one more place that SB3's logger writes to: Weights & Biases, MLflow, Trackio.

None is a dependency: the package is imported where ``--track`` names it. Where it writes to, and whether over a
network, is the tracker's own affair (``WANDB_MODE=offline``, ``MLFLOW_TRACKING_URI``). To the tracker a run
that goes on after a break is a new one.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from mtrl_imgrad.errors import MissingDependencyError

TrackerName = Literal["wandb", "mlflow", "trackio"]
PROJECT = "mtrl_imgrad"


class Tracker(KVWriter):
    """Writes scalars to a tracker, under TensorBoard's tags.

    Args:
        module: the tracker's package.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Write the scalars among the values."""
        shown = filter_excluded_keys(key_values, key_excluded, "tensorboard")
        scalars = {name: float(value) for name, value in shown.items() if _is_scalar(value)}
        if scalars:
            self._log(scalars, step)

    def _log(self, scalars: dict[str, float], step: int) -> None:
        self._module.log(scalars, step=step)

    def close(self) -> None:
        """End the tracker's run."""
        self._module.finish()


class _MLflow(Tracker):
    def _log(self, scalars: dict[str, float], step: int) -> None:
        self._module.log_metrics(scalars, step=step)

    def close(self) -> None:
        self._module.end_run()


def start_tracker(name: TrackerName, folder: Path, options: dict[str, Any]) -> Tracker:
    """Begin a tracker's run, named as the run folder.

    Args:
        name: of the tracker.
        folder: of the run.
        options: of the run, which the tracker keeps.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(f"track={name!r} needs the package {name}: pip install {name}") from error
    if name == "mlflow":
        module.set_experiment(PROJECT)
        module.start_run(run_name=folder.name)
        module.log_params({option: str(value) for option, value in options.items()})
        return _MLflow(module)
    place = {"dir": str(folder)} if name == "wandb" else {}
    module.init(project=PROJECT, name=folder.name, config=options, **place)
    return Tracker(module)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
