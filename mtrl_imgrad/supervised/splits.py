"""The data of a run: a split to learn from, splits to evaluate on, and the tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor
from torch.utils.data import Dataset

from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.experiments.supervised.config import DataConfig
from mtrl_imgrad.supervised.datasets import CelebA, CityScapes, NYUv2, make_scenes
from mtrl_imgrad.supervised.datasets.description import read_meta
from mtrl_imgrad.supervised.datasets.partly_labeled import PartlyLabeled
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import checked

__all__ = ["ItemDataset", "Splits", "load_splits"]

ItemDataset = Dataset[tuple[Tensor, dict[str, Tensor]]]
"""Items are ``(image [3, H, W], {task name: target})``."""


@checked
@dataclass(frozen=True)
class Splits:
    """What a network learns from and is judged on.

    Attributes:
        train: may have ``set_epoch(epoch)``, which is then called before each epoch.
        evaluation: splits by name. Training never sees them, but an epoch may be chosen by ``"val"``.
        tasks: those to learn; the data may hold more.
        simulated: whether the folder says that it holds a simulation.

    Raises:
        ArgumentError: for no task, an empty split, or no split ``"val"``.
    """

    train: ItemDataset
    evaluation: Mapping[str, ItemDataset]
    tasks: tuple[TaskSpec, ...]
    simulated: bool = False

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ArgumentError("tasks must name at least one task, got none")
        if "val" not in self.evaluation:
            raise ArgumentError(f"evaluation must have the split 'val', got {', '.join(self.evaluation) or 'none'}")
        for name, split in {"train": self.train, **self.evaluation}.items():
            if not length(split):
                raise ArgumentError(f"split {name!r} must hold at least one image, got none")

    @property
    def reported(self) -> str:
        """The split that results are of: ``"test"`` where there is one, else ``"val"`` (the papers' habit)."""
        return "test" if "test" in self.evaluation else "val"

    def only(self, names: tuple[str, ...]) -> Splits:
        """The same with some of the tasks.

        Raises:
            UnknownNameError: if there is no task of a name.
        """
        known = {task.name: task for task in self.tasks}
        for name in names:
            if name not in known:
                raise UnknownNameError("task", name, known)
        return dataclasses.replace(self, tasks=tuple(known[name] for name in names))


def length(split: ItemDataset) -> int:
    """Number of items."""
    return len(cast(Sized, split))


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
    root = prepare(config, config.root.expanduser(), progress)
    if config.format == "celeba":
        faces = {split: CelebA(root, split, size=config.image_size) for split in ("train", "val", "test")}
        splits = Splits(faces.pop("train"), dict(faces), faces["val"].tasks, _is_simulated(root))
    else:
        train = _dense(config, root, "train", augment=config.augment, protocol=protocol, seed=seed)
        names = ("val", "test") if (root / "test").is_dir() else ("val",)
        held_out = {name: _dense(config, root, name, augment=False, protocol=protocol, seed=seed) for name in names}
        for other in held_out.values():
            train.check_differs(other)
        splits = Splits(train, dict(held_out), train.tasks, _is_simulated(root))
    splits = splits.only(config.tasks) if config.tasks else splits
    if config.train_fraction == 1:
        return splits
    partly = PartlyLabeled(splits.train, splits.tasks, config.train_fraction, config.full_tasks, seed)
    return dataclasses.replace(splits, train=partly)


def prepare(config: DataConfig, root: Path, progress: bool) -> Path:
    """Make the folder's scenes where the configuration asks for it; at once if they are there."""
    if config.simulate is None:
        return root
    names = ("train", "val", "test") if config.simulate == "attributes" else ("train", "val")
    if len(config.simulate_counts) != len(names):
        raise ArgumentError(f"simulate_counts must give {', '.join(names)}, got {list(config.simulate_counts)}")
    height, width = config.simulate_size
    counts = dict(zip(names, config.simulate_counts, strict=True))
    return make_scenes(config.simulate, root, counts=counts, height=height, width=width, progress=progress)


def _dense(
    config: DataConfig, root: Path, split: str, *, augment: bool, protocol: Protocol, seed: int
) -> NYUv2 | CityScapes:
    if config.format == "nyuv2":
        return NYUv2(root, split, augment=augment, protocol=protocol, seed=seed)
    return CityScapes(
        root,
        split,
        label_dir=config.label_dir,
        num_classes=config.num_classes,
        augment=augment,
        protocol=protocol,
        seed=seed,
    )


def _is_simulated(root: Path) -> bool:
    return bool(read_meta(root).get("simulated", False))
