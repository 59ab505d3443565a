"""The logs of a run folder: a table, TensorBoard events and, where asked for, a tracker's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import HParam, KVWriter, Logger, TensorBoardOutputFormat

from mtrl_imgrad.experiments.rl.csv_table import PROGRESS, OrderedCSV

LAYOUT: dict[str, dict[str, list[Any]]] = {
    "success": {
        "mean": ["Multiline", [r"^eval/success_rate$", r"^rollout/success_rate$"]],
        "of each task": ["Multiline", [r"^eval/success_rate/.*"]],
    },
    "imbalance": {
        "largest over smallest gradient": ["Multiline", [r"^grad/[^/]+/imbalance$"]],
        "conflicting pairs": ["Multiline", [r"^grad/[^/]+/conflict_fraction$"]],
        "Pareto failures": ["Multiline", [r"^grad/[^/]+/pareto_failure$"]],
        "norms of the critic's gradients": ["Multiline", [r"^grad/critic/norm/.*"]],
        "norms of the actor's gradients": ["Multiline", [r"^grad/actor/norm/.*"]],
    },
    "combiner": {
        "the critic's weights": ["Multiline", [r"^combiner/critic/weight/.*"]],
        "the actor's weights": ["Multiline", [r"^combiner/actor/weight/.*"]],
    },
}
"""Charts of TensorBoard's page "custom scalars", by regular expressions of tags."""


def run_logger(folder: Path, timesteps: int, others: Sequence[KVWriter] = ()) -> Logger:
    """``progress.csv`` and TensorBoard events; a run that goes on after ``timesteps`` goes on in them.

    Args:
        folder: of the run.
        timesteps: after which the run goes on; 0 begins it.
        others: further places to write to.
    """
    formats: list[KVWriter] = [
        OrderedCSV(folder / PROGRESS, timesteps),
        TensorBoardOutputFormat(str(folder)),
        *others,
    ]
    return Logger(str(folder), formats)


def begin_tensorboard(logger: Logger) -> None:
    """Write the layout of the charts, once a run: success first, then imbalance."""
    for output in logger.output_formats:
        if isinstance(output, TensorBoardOutputFormat):
            output.writer.add_custom_scalars(LAYOUT)


def record_hparams(logger: Logger, config: Any) -> None:
    """Record a run's options for TensorBoard's page of hyperparameters; to be called once a run."""
    metrics = {"eval/success_rate": 0.0, "eval/mean_reward": 0.0}
    options = {name: _plain(value) for name, value in flat_options(config).items()}
    logger.record("hparams", HParam(options, metrics), exclude=("stdout", "log", "json", "csv"))


def flat_options(config: Any) -> dict[str, Any]:
    """The options of a configuration by their dotted names, without the run folder."""
    options: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            options |= {f"{field.name}.{name}": option for name, option in flat_options(value).items()}
        elif field.name != "run_dir":
            options[field.name] = value
    return options


def _plain(value: Any) -> bool | float | str:
    """A value as TensorBoard's hyperparameters can hold it."""
    return value if isinstance(value, (bool, int, float)) else str(value)
