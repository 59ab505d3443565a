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
from mtrl_imgrad.supervised.datasets.registry import DataFormat, data_format
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.splits import Splits, TaskSplits
from mtrl_imgrad.validation import checked, look_up


@checked
def load_splits(
    config: DataConfig, *, protocol: Protocol = "fixed", seed: int = 0, progress_bar: bool = True
) -> Splits | TaskSplits:
    """Open the data set of a configuration, after making it where it is simulated and not there.

    Args:
        config: which data.
        protocol: of the augmentation.
        seed: of the augmentation, and of which labels are left out.
        progress_bar: whether to show how far the making of scenes is.

    Returns:
        `TaskSplits` where every task has a loader of its own.

    Raises:
        ArgumentError: if no folder is named, or a task is unknown.
        DatasetError: if the folder is not what its format says.
    """
    if config.root is None:
        raise ArgumentError("root must name the folder of the data set (--root FOLDER), got none")
    record = data_format(config.format)
    has_loaders = config.multi_input or record.of_one_task
    if has_loaders and (config.train_fraction != 1 or config.full_tasks):
        raise ArgumentError("train_fraction and full_tasks go with one loader for all tasks; take task_fractions")
    unset = DataConfig()
    of_loaders = ("batch_sizes", "task_fractions", "mixing", "tasks_per_step")
    given = [name for name in of_loaders if getattr(config, name) != getattr(unset, name)]
    if given and not has_loaders:
        raise ArgumentError(f"{given[0]} goes with a loader a task (multi_input)")
    root = _prepare(config, config.root.expanduser(), progress_bar)
    splits = _of_one_task(config, record, root) if record.of_one_task else _joint(config, record, root, protocol, seed)
    if has_loaders:
        splits = _with_loaders(config, splits, seed)
    return splits.only(config.tasks) if config.tasks else splits


def _joint(config: DataConfig, record: DataFormat, root: Path, protocol: Protocol, seed: int) -> Splits:
    """One data set for all tasks."""
    reader, options = record.load(), _options(config, record)
    evaluation = [name for name in record.splits if name != "train"]
    evaluation += [name for name in record.optional_splits if (root / name).is_dir()]
    drawn: dict[str, Any] = {"protocol": protocol, "seed": seed} if record.augments else {}
    train = reader(root, "train", **options, **drawn, **({"augment": config.augment} if record.augments else {}))
    held_out = {name: reader(root, name, **options, **drawn) for name in evaluation}
    if hasattr(train, "check_differs"):
        for other in held_out.values():
            train.check_differs(other)
    splits = Splits(train, held_out, train.tasks, simulated=bool(read_meta(root).get("simulated", False)))
    known = {task.name: task for task in train.tasks}
    full = [look_up("task", name, known) for name in config.full_tasks]
    if config.train_fraction == 1:
        return splits
    splits = splits.only(config.tasks) if config.tasks else splits
    learned = [task.name for task in full if task in splits.tasks]  # a single-task run may have none of them
    partly = PartlyLabeled(splits.train, splits.tasks, config.train_fraction, learned, seed)
    return dataclasses.replace(splits, train=partly)


def _of_one_task(config: DataConfig, record: DataFormat, root: Path) -> TaskSplits:
    """A data set a task."""
    reader: Any = record.load()
    options = _options(config, record)
    opened = {
        split: {name: reader(root, split, task=name, **options) for name in reader.task_names}
        for split in record.splits
    }
    train = opened.pop("train")
    return TaskSplits(train, opened, tuple(task for items in train.values() for task in items.tasks))


def _with_loaders(config: DataConfig, data: Splits | TaskSplits, seed: int) -> TaskSplits:
    """The data of each task, as many training images as it may have."""
    names = {task.name: task for task in data.tasks}
    for name in config.task_fractions:
        look_up("task", name, names)
    if isinstance(data, Splits):
        evaluation = {split: dict.fromkeys(names, items) for split, items in data.evaluation.items()}
        data = TaskSplits(dict.fromkeys(names, data.train), evaluation, data.tasks, simulated=data.simulated)
    partly = {
        task.name: PartlyLabeled(data.train[task.name], [task], config.task_fractions[task.name], (), seed + k)
        for k, task in enumerate(data.tasks)
        if task.name in config.task_fractions
    }
    return dataclasses.replace(
        data,
        train={**data.train, **partly},
        batch_sizes=config.batch_sizes,
        mixing=config.mixing,
        tasks_per_step=config.tasks_per_step,
    )


def _options(config: DataConfig, record: DataFormat) -> dict[str, Any]:
    return {name: getattr(config, option) for option, name in record.options.items()} | config.reader_kwargs


def _prepare(config: DataConfig, root: Path, progress_bar: bool) -> Path:
    """Make the folder's scenes where the configuration asks for it; at once if they are there."""
    if config.simulate is None:
        return root
    names = data_format(config.format).splits
    if len(config.simulate_counts) != len(names):
        raise ArgumentError(f"simulate_counts must give {', '.join(names)}, got {list(config.simulate_counts)}")
    height, width = config.simulate_size
    counts = dict(zip(names, config.simulate_counts, strict=True))
    return make_scenes(config.simulate, root, counts=counts, height=height, width=width, progress_bar=progress_bar)
