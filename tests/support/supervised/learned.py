"""Scenes and faces that a small network learns in a few steps, and its runs."""

import numpy as np

from mtrl_imgrad.experiments.supervised.config import (
    DataConfig,
    MethodConfig,
    ModelConfig,
    SupervisedConfig,
)
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.experiments.supervised.run import make_trainer
from mtrl_imgrad.supervised.datasets import AttributeSample, DenseSample, write_celeba, write_nyuv2
from mtrl_imgrad.supervised.settings import OptimizationConfig, ReportConfig

CLASSES = ("floor", "wall", "thing")


def _scene(seed):
    """Three horizontal bands whose colour, class, depth and normal agree: learned in a few steps."""
    rng = np.random.default_rng(seed)
    label = np.repeat(rng.permutation(3), [10, 11, 11])[:, None].repeat(32, 1)
    return DenseSample(
        image=(np.eye(3)[label] * 0.7 + rng.uniform(0, 0.3, (32, 32, 3))),
        label=label,
        depth=1.0 + label,
        normal=np.eye(3)[label],
    )


def write_scenes(folder):
    splits = {"train": [_scene(seed) for seed in range(10)], "val": [_scene(seed) for seed in range(100, 104)]}
    return write_nyuv2(folder, splits, classes=CLASSES)


def write_faces(folder):
    def sample(seed):
        rng = np.random.default_rng(seed)
        has = rng.integers(2, size=2).astype(bool)
        image = np.zeros((24, 20, 3), np.uint8) + np.array([255 * has[0], 255 * has[1], 128], np.uint8)
        return AttributeSample(image, has)

    splits = {
        "train": [sample(seed) for seed in range(33)],
        "val": [sample(seed) for seed in range(50, 60)],
        "test": [sample(seed) for seed in range(80, 90)],
    }
    return write_celeba(folder, splits, ["Red", "Green"])


def config_for(root, folder=None, **method):
    return SupervisedConfig(
        data=DataConfig(root=root),
        model=ModelConfig(model="segnet", width=1 / 16),
        method=MethodConfig(**method),
        optimization=OptimizationConfig(epochs=3, batch_size=4, learning_rate=5e-3, lr_schedule="cosine"),
        reporting=ReportConfig(last_epochs=2, log_every=2, panel_images=1),
        device="cpu",
        run_dir=folder,
    )


def trainer_for(root, **method):
    config = config_for(root, **method)
    return make_trainer(config, load_splits(config.data))


def weights_of(trainer):
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def batch_of(trainer):
    part = next(trainer.feed.in_order(trainer.data.train))
    return part.images, part.targets
