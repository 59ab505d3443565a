"""The data of a configuration: a real folder, or simulated scenes that are made first."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.supervised.config import DataConfig
from mtrl_imgrad.scenes import make_scenes
from mtrl_imgrad.supervised.datasets.description import read_meta
from mtrl_imgrad.supervised.datasets.partly_labeled import PartlyLabeled
from mtrl_imgrad.supervised.datasets.registry import data_format
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.splits import Splits
from mtrl_imgrad.validation import checked

__all__ = ["load_splits"]


@checked
def load_splits(config: DataConfig, *, protocol: Protocol = "fixed", seed: int = 0, progress: bool = True) -> Splits:
    """Open the data set of a configuration, after making it where it is simulated and not there.

    Args:
        config: which data.
        protocol: of the augmentation.
        seed: of the augmentation.
        progress: whether to show how far the making of scenes is.

    Raises:
        ArgumentError: if no folder is named, or a task is unknown.
        DatasetError: if the folder is not what its format says.
    """
    if config.root is None:
        raise ArgumentError("root must name the folder of the data set (--root FOLDER), got none")
    root = _prepare(config, config.root.expanduser(), progress)
    record = data_format(config.format)
    reader = record.load()
    options = {name: getattr(config, option) for option, name in record.options.items()} | config.reader_kwargs
    evaluation = [name for name in record.splits if name != "train"]
    evaluation += [name for name in record.optional_splits if (root / name).is_dir()]
    drawn: dict[str, Any] = {"protocol": protocol, "seed": seed} if record.augments else {}
    train = reader(root, "train", **options, **drawn, **({"augment": config.augment} if record.augments else {}))
    held_out = {name: reader(root, name, **options, **drawn) for name in evaluation}
    if hasattr(train, "check_differs"):
        for other in held_out.values():
            train.check_differs(other)
    splits = Splits(train, held_out, train.tasks, simulated=bool(read_meta(root).get("simulated", False)))
    splits = splits.only(config.tasks) if config.tasks else splits
    if config.train_fraction == 1:
        return splits
    partly = PartlyLabeled(splits.train, splits.tasks, config.train_fraction, config.full_tasks, seed)
    return dataclasses.replace(splits, train=partly)


def _prepare(config: DataConfig, root: Path, progress: bool) -> Path:
    """Make the folder's scenes where the configuration asks for it; at once if they are there."""
    if config.simulate is None:
        return root
    names = data_format(config.format).splits
    if len(config.simulate_counts) != len(names):
        raise ArgumentError(f"simulate_counts must give {', '.join(names)}, got {list(config.simulate_counts)}")
    height, width = config.simulate_size
    counts = dict(zip(names, config.simulate_counts, strict=True))
    return make_scenes(config.simulate, root, counts=counts, height=height, width=width, progress=progress)
