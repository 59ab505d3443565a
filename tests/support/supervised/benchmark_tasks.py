"""Tasks of the three data sets."""

from mtrl_imgrad.supervised.tasks import TaskSpec

NYUV2 = (
    TaskSpec("segmentation", "segmentation", 13),
    TaskSpec("depth", "depth", 1),
    TaskSpec("normal", "normal", 3),
)
CITYSCAPES = (TaskSpec("segmentation", "segmentation", 7), TaskSpec("depth", "depth", 1))
CELEBA = tuple(TaskSpec(f"attribute_{k}", "attribute", 1) for k in range(40))
