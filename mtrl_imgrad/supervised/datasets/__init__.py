"""Data of the supervised benchmarks: readers, and writers of the same formats.

::

    from mtrl_imgrad.scenes import make_scenes
    from mtrl_imgrad.supervised.datasets import NYUv2

    root = make_scenes("primitives", "data/primitives")
    train = NYUv2(root, "train", augment=True)
    image, targets = train[0]  # targets["segmentation"], targets["depth"], targets["normal"]
"""

from mtrl_imgrad.extras import require

require("mtrl_imgrad.supervised.datasets", "PIL")

from mtrl_imgrad.supervised.datasets.augmentation import View, apply_view, draw_view
from mtrl_imgrad.supervised.datasets.celeba import CelebA
from mtrl_imgrad.supervised.datasets.dense import CITYSCAPES_CLASSES, NYUV2_CLASSES, CityScapes, DenseDataset, NYUv2
from mtrl_imgrad.supervised.datasets.office import Office31, OfficeHome
from mtrl_imgrad.supervised.datasets.pascal import PASCAL_CLASSES, PascalContext
from mtrl_imgrad.supervised.datasets.qm9 import QM9, QM9_TASKS
from mtrl_imgrad.supervised.datasets.registry import DataFormat, data_format, list_formats, register_format
from mtrl_imgrad.supervised.datasets.writers import (
    AttributeSample,
    DenseSample,
    write_celeba,
    write_cityscapes,
    write_nyuv2,
)

__all__ = [
    "CITYSCAPES_CLASSES",
    "NYUV2_CLASSES",
    "PASCAL_CLASSES",
    "QM9",
    "QM9_TASKS",
    "AttributeSample",
    "CelebA",
    "CityScapes",
    "DataFormat",
    "DenseDataset",
    "DenseSample",
    "NYUv2",
    "Office31",
    "OfficeHome",
    "PascalContext",
    "View",
    "apply_view",
    "data_format",
    "draw_view",
    "list_formats",
    "register_format",
    "write_celeba",
    "write_cityscapes",
    "write_nyuv2",
]
