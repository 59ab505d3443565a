"""Samples without meaning that have every feature of the real ones: void labels, unknown depth and normals."""

import numpy as np

from mtrl_imgrad.supervised.datasets import AttributeSample, DenseSample

HEIGHT, WIDTH = 48, 64


def dense_sample(seed, num_classes=13, disparity=False):
    rng = np.random.default_rng(seed)
    label = rng.integers(num_classes, size=(HEIGHT, WIDTH))
    label[:8, :8] = -1
    depth = rng.uniform(0.5, 10, size=(HEIGHT, WIDTH))
    if disparity:
        depth = rng.integers(1, 32258, size=(HEIGHT, WIDTH)) / 65536
        depth[20, 20] = 1 / 65536
    normal = rng.normal(size=(HEIGHT, WIDTH, 3))
    normal[10, 10] = [1.0, -0.5, -0.5]  # components cancel, and yet it is a normal
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    for border in (depth, normal):
        border[:2] = border[-2:] = 0
    return DenseSample(rng.integers(256, size=(HEIGHT, WIDTH, 3)) / 255, label, depth, normal)


def dense_samples(count, **options):
    return [dense_sample(seed, **options) for seed in range(count)]


def attribute_samples(count, num_attributes=40, start=0):
    rng = np.random.default_rng(start)
    smooth = rng.integers(256, size=(count, 1, 1, 3)).repeat(218, 1).repeat(178, 2).astype(np.uint8)
    present = rng.integers(2, size=(count, num_attributes)).astype(bool)
    present[:, 0] = False  # one that nobody has
    return [AttributeSample(image, row) for image, row in zip(smooth, present, strict=True)]
