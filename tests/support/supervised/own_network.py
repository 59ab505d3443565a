"""A data set and a network of one's own: tasks of whole images, some unknown; batch norm and dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mtrl_imgrad.supervised.models.base import FeatureModel
from mtrl_imgrad.supervised.settings import OptimizationConfig, ReportConfig
from mtrl_imgrad.supervised.splits import Splits
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.supervised.trainer import MultiTaskTrainer

TASKS = (TaskSpec("smiles", "attribute", 1), TaskSpec("who", "classification", 4), TaskSpec("age", "regression", 1))


class Faces(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Random images and targets, of which a share is known."""

    def __init__(self, count: int, seed: int, known: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.rand(count, 3, 4, 4, generator=generator)
        self.targets = {
            "smiles": torch.randint(2, (count, 1), generator=generator).float(),
            "who": torch.randint(4, (count,), generator=generator),
            "age": torch.randn(count, 1, generator=generator),
        }
        for (name, target), unknown in zip(self.targets.items(), (-1, -1, torch.nan), strict=True):
            self.targets[name][torch.rand(target.shape, generator=generator) >= known] = unknown

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.images[index], {name: target[index] for name, target in self.targets.items()}


class FaceNet(FeatureModel):
    """One hidden layer; plain: without batch norm and dropout."""

    name = "face_net"

    def __init__(self, momentum: float | None = 0.1, plain: bool = False) -> None:
        super().__init__(TASKS, "fixed")
        torch.manual_seed(0)
        norm = [] if plain else [nn.BatchNorm1d(16, momentum=momentum), nn.Dropout(0.3)]
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), *norm, nn.ReLU())
        heads = [nn.Linear(16, 1), nn.Sequential(nn.Linear(16, 4), nn.LogSoftmax(1)), nn.Linear(16, 1)]
        self.task_heads = nn.ModuleList(heads)

    def features(self, images: Tensor) -> Tensor:
        """``[B, 16]``."""
        return self.trunk(images)


def face_trainer(
    combiner: str = "imgrad",
    train: Faces | None = None,
    val: Faces | None = None,
    *,
    momentum: float | None = 0.1,
    plain: bool = False,
    batch_size: int = 4,
    learning_rate: float = 1e-2,
    **options: Any,
) -> MultiTaskTrainer:
    """A trainer of three epochs on the CPU."""
    return MultiTaskTrainer(
        FaceNet(momentum, plain),
        Splits(train or Faces(11, 0), {"val": val or Faces(7, 1)}, TASKS),
        combiner,
        optimization=OptimizationConfig(epochs=3, batch_size=batch_size, learning_rate=learning_rate),
        reporting=ReportConfig(log_every=2),
        device="cpu",
        **options,
    )
