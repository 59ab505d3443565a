"""Small folders in the format of the real sets."""

import numpy as np
from PIL import Image

from mtrl_imgrad.supervised.datasets import QM9_TASKS

CLASSES = ("back_pack", "bike", "mug")


def write_office(root, sources, inner="", count=5, classes=CLASSES):
    """Office's folders: picture i of class c and source s is all of the grey 40 s + 10 c + i."""
    for s, source in enumerate(sources):
        for c, name in enumerate(classes):
            folder = root / source / inner / name
            folder.mkdir(parents=True)
            for i in range(count + s):
                pixels = np.full((12, 10, 3), 40 * s + 10 * c + i, np.uint8)
                Image.fromarray(pixels).save(folder / f"frame_{i + 1:04d}.png")
    return root


def molecules(count=30, seed=0):
    """The arrays of QM9's archive."""
    rng = np.random.default_rng(seed)
    atoms = rng.integers(3, 8, count)
    arrays = {
        "N": atoms,
        "Z": rng.choice([1, 6, 7, 8, 9], atoms.sum()),
        "R": rng.normal(0, 2, (atoms.sum(), 3)),
        "id": np.arange(count),
    }
    return arrays | {name: rng.normal(k - 5, 1 + k, count) for k, name in enumerate(QM9_TASKS)}
