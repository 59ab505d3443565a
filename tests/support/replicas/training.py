"""A tiny supervised run without batch statistics, in one process or as one of several ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Dataset

from mtrl_imgrad.supervised.epoch_record import EpochRecord
from mtrl_imgrad.supervised.models.base import FeatureModel
from mtrl_imgrad.supervised.settings import OptimizationConfig, ReportConfig
from mtrl_imgrad.supervised.splits import Splits
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.supervised.trainer import MultiTaskTrainer

TASKS = (TaskSpec("segmentation", "segmentation", 3), TaskSpec("depth", "depth", 1))


class Scenes(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images of which many pixels are not labelled, and some have no depth at all."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.rand(count, 3, 6, 6, generator=generator)
        self.labels = torch.randint(-1, 3, (count, 6, 6), generator=generator)
        self.depth = torch.rand(count, 1, 6, 6, generator=generator).clamp_min(0.3) - 0.3
        self.depth[1] = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.images[index], {"segmentation": self.labels[index], "depth": self.depth[index]}


class Net(FeatureModel):
    """Two convolutions, a head a task, no batch norm."""

    name = "net"

    def __init__(self) -> None:
        super().__init__(TASKS, "fixed")
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh())
        self.task_heads = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(4, 3, 1), nn.LogSoftmax(1)), nn.Sequential(nn.Conv2d(4, 1, 1), nn.Softplus())]
        )

    def features(self, images: Tensor) -> Tensor:
        """``[B, 4, H, W]``."""
        return self.trunk(images)


def make(group: dist.ProcessGroup | None, combiner: str, gradients: Any) -> MultiTaskTrainer:
    """A trainer; the last of an epoch's batches holds one image."""
    return MultiTaskTrainer(
        Net(),
        Splits(Scenes(9, 0), {"val": Scenes(5, 1)}, TASKS),
        combiner,
        optimization=OptimizationConfig(epochs=2, batch_size=4, learning_rate=1e-2, lr_schedule="constant"),
        reporting=ReportConfig(log_every=2),
        gradients=gradients,
        device="cpu",
        group=group,
    )


def run(
    group: dist.ProcessGroup | None, combiner: str, gradients: str, stop: bool = False
) -> tuple[Tensor, list[EpochRecord]]:
    """The parameters and records of two epochs; with ``stop`` by two trainers, the second from the first's state."""
    trainer = make(group, combiner, gradients)
    records = []
    for record in trainer.epochs():
        records.append(record)
        if stop and len(records) == 1:
            break
    if stop:
        state = trainer.state_dict()
        trainer = make(group, combiner, gradients)
        trainer.load_state_dict(state)
        records += trainer.epochs()
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()]), records
