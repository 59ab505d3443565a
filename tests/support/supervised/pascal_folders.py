"""Small folders in the format of PASCAL_MT.tgz."""

import numpy as np
from PIL import Image
from scipy.io import savemat

WIDTH, HEIGHT = 20, 12
NAMES = {"train": ["2008_000002", "2008_000003", "2008_000007"], "val": ["2008_000008"]}


def struct_array(entries):
    """A 1 x n array of structs, as MATLAB writes it."""
    found = np.zeros((1, len(entries)), dtype=[(name, object) for name in entries[0]])
    for place, entry in enumerate(entries):
        for name, value in entry.items():
            found[0, place][name] = value
    return found


def mask(*box):
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    top, left, bottom, right = box
    found[top:bottom, left:right] = 1
    return found


def part(name, *box):
    return {"part_name": name, "mask": mask(*box)}


def annotation(people=True):
    """A dog with a head and, if wanted, two people with parts; the second has one only."""
    dog = {"class": "dog", "class_ind": 12, "mask": mask(0, 0, 4, 4), "parts": struct_array([part("head", 0, 0, 2, 2)])}
    bottle = {"class": "bottle", "class_ind": 5, "mask": mask(0, 0, 1, 1), "parts": np.zeros((0, 0))}
    first = [part("head", 2, 5, 4, 8), part("luarm", 4, 4, 6, 5), part("rhand", 6, 4, 7, 5), part("lfoot", 9, 5, 10, 7)]
    second = [part("torso", 4, 12, 7, 16)]
    persons = [
        {"class": "person", "class_ind": 15, "mask": mask(2, 4, 10, 9), "parts": struct_array(first)},
        {
            "class": "person",
            "class_ind": 15,
            "mask": mask(2, 12, 9, 16),
            "parts": struct_array(second),
        },
    ]
    return {"imname": "x", "objects": struct_array([dog, bottle, *(persons if people else [])])}


def write_pascal(root, size=(HEIGHT, WIDTH), parts=".mat"):
    """Picture i of a split is all of the grey 40 + i; its label is i + 1 with a void column, under a palette."""
    height, width = size
    folders = "JPEGImages ImageSets/Context semseg/pascal-context semseg/VOC12 human_parts sal_distill normals_distill"
    for folder in folders.split():
        (root / folder).mkdir(parents=True)
    for split, names in NAMES.items():
        (root / "ImageSets/Context" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for i, name in enumerate(names):
            Image.fromarray(np.full((height, width, 3), 40 + i, np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
            label = np.full((height, width), i + 1, np.uint8)
            label[:, 0] = 255
            picture = Image.fromarray(label, mode="P")
            picture.putpalette([k % 256 for k in range(768)])
            picture.save(root / "semseg" / ("VOC12" if i == 1 else "pascal-context") / f"{name}.png")
            if parts == ".mat":
                savemat(root / "human_parts" / f"{name}.mat", {"anno": annotation(people=i != 2)})
            else:
                Image.fromarray(np.minimum(label, 6)).save(root / "human_parts" / f"{name}.png")
            saliency = np.full((height, width), 200, np.uint8)
            saliency[:, : width // 2] = 100
            Image.fromarray(saliency).save(root / "sal_distill" / f"{name}.png")
            normals = np.zeros((height, width, 3), np.uint8)  # black: unknown
            normals[1:] = (128, 128, 255)
            Image.fromarray(normals).save(root / "normals_distill" / f"{name}.png")
    return root
