"""A combiner in a LightningModule: manual optimization, ``combiner.backward`` in ``training_step``.

    pip install lightning
    python examples/lightning_module.py
    python examples/lightning_module.py --devices 2  # two processes, strategy "ddp"

Two regressions on one trunk. The combiner's state goes into Lightning's checkpoints, so that a training goes on with
what the method remembers. Prints what is left of the loss of each task.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import lightning
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mtrl_imgrad import make_combiner


class TwoTasks(lightning.LightningModule):
    """A trunk with two heads, whose gradients a combiner joins.

    Args:
        method: name of the combiner.
    """

    def __init__(self, method: str = "imgrad") -> None:
        super().__init__()
        self.automatic_optimization = False  # the combiner takes the place of Lightning's backward
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(32, 1) for _ in range(2))
        self.combiner = make_combiner(method)

    def losses(self, batch: list[Tensor]) -> list[Tensor]:
        """The mean squared errors, one a task."""
        x, y = batch
        features = self.trunk(x)
        return [(head(features)[:, 0] - y[:, task]).square().mean() for task, head in enumerate(self.heads)]

    def training_step(self, batch: list[Tensor], index: int) -> None:
        """One update; with several processes the same one on each."""
        losses = self.losses(batch)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        group = dist.group.WORLD if dist.is_initialized() else None
        out = self.combiner.backward(losses, self.trunk, self.heads, group=group)
        optimizer.step()
        self.log_dict({f"weight/{task}": weight for task, weight in enumerate(out.weights)}, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, over trunk and heads."""
        return torch.optim.Adam(self.parameters(), lr=1e-2)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What the combiner remembers goes along."""
        checkpoint["combiner"] = self.combiner.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """And comes back."""
        self.combiner.load_state_dict(checkpoint["combiner"])


def make_data() -> TensorDataset:
    """512 inputs ``[8]`` with two targets each, the first a hundred times the second."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(512, 8, generator=generator) * 2 - 1
    return TensorDataset(x, torch.stack([100 * x[:, 0], x[:, 1] - x[:, 2]], dim=1))


def main() -> None:
    """Train, and print from the first process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--devices", type=int, default=1, help="processes")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="The 'train_dataloader' does not have many workers")
    lightning.seed_everything(0, verbose=False)
    data, module = make_data(), TwoTasks()
    with torch.no_grad():
        before = module.losses(list(data.tensors))
    trainer = lightning.Trainer(
        max_epochs=given.epochs,
        accelerator="cpu",
        devices=given.devices,
        strategy="ddp" if given.devices > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=32, shuffle=True))
    if trainer.is_global_zero:
        with torch.no_grad():
            after = module.losses(list(data.tensors))
        left = "  ".join(f"{float(now / then):6.1%}" for now, then in zip(after, before, strict=True))
        print(f"{trainer.world_size} process(es), left of the loss of each task: {left}")


if __name__ == "__main__":
    main()
