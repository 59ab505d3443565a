"""Make a data set of simulated scenes: the folder, once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mtrl_imgrad.errors import ArgumentError, DatasetError, UnknownNameError
from mtrl_imgrad.reporting.progress import counting_bar
from mtrl_imgrad.scenes.rendering import choose_colour
from mtrl_imgrad.supervised.datasets.description import META_NAME, read_meta
from mtrl_imgrad.supervised.datasets.folder import SPLITS
from mtrl_imgrad.validation import Seed, checked

Sample = TypeVar("Sample")

SCENE_KINDS = {
    "primitives": "MuJoCo scenes of boxes, spheres, cylinders, capsules and ellipsoids; NYUv2's format, 7 classes",
    "mt10": "MuJoCo scenes of Meta-World's ten MT10 tasks; NYUv2's format, 7 classes",
    "attributes": "MuJoCo scenes of primitives with forty attributes (colour and shape seen); CelebA's format",
}
"""What can be made, in words."""

VERSION = 1
"""Of the scenes: raised when the same seed gives other ones, so that an old folder is not taken for a new one."""

DENSE_COUNTS = {"train": 320, "val": 80}
ATTRIBUTE_COUNTS = {"train": 640, "val": 160, "test": 160}


@checked
def make_scenes(
    kind: str,
    root: str | os.PathLike[str],
    *,
    counts: Mapping[str, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    seed: Seed = 0,
    colour: str = "auto",
    progress_bar: bool = True,
) -> Path:
    """Write a folder of simulated scenes with true labels, unless it is there already.

    The folder appears when it is complete. Its ``meta.json`` says that it is simulated and how it was made. Labels
    depend on the arguments alone, colour by OpenGL also on the driver.

    Args:
        kind: One of `SCENE_KINDS`: ``"primitives"`` and ``"mt10"`` are read by `NYUv2`, ``"attributes"`` by `CelebA`.
        root: The folder: absent, empty, or one that was made with the same arguments.
        counts: Scenes of each split; by default 320 and 80 (``"attributes"``: 640, 160 and 160).
        height: Pixels; 96 by default (``"attributes"``: 218, CelebA's).
        width: Pixels; 128 by default (``"attributes"``: 178, CelebA's).
        seed: That everything is drawn from.
        colour: ``"gl"`` draws with OpenGL, ``"rays"`` shades the labels' rays, ``"auto"`` takes the first that works.
        progress_bar: Whether to show how far it is.

    Returns:
        ``root``.

    Raises:
        DatasetError: ``root`` holds something else.
        MissingDependencyError: OpenGL was asked for and does not work.
        ArgumentError: An argument is out of range.
    """
    recipe = _recipe(kind, counts, height, width, seed)
    root = Path(root).expanduser()
    if _is_made(root, recipe, colour):
        return root
    recipe["colour"] = choose_colour(colour)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}-"))
    except OSError as error:
        raise DatasetError(f"{root}: cannot be made ({error}); take another folder") from error
    try:
        _write(place / root.name, recipe, progress_bar)
        (place / root.name).rename(root)
    finally:
        shutil.rmtree(place)
    return root


def _recipe(
    kind: str, counts: Mapping[str, int] | None, height: int | None, width: int | None, seed: int
) -> dict[str, Any]:
    """What determines the labels, checked, the defaults of the kind filled in."""
    if kind not in SCENE_KINDS:
        raise UnknownNameError("kind of scenes", kind, SCENE_KINDS)
    of_attributes = kind == "attributes"
    counts = dict(counts or (ATTRIBUTE_COUNTS if of_attributes else DENSE_COUNTS))
    height = (218 if of_attributes else 96) if height is None else height
    width = (178 if of_attributes else 128) if width is None else width
    if not set(counts) <= set(SPLITS) or any(count < 1 for count in counts.values()):
        raise ArgumentError(f"counts must give each of some of {', '.join(SPLITS)} a positive number, got {counts}")
    if min(height, width) < 1:
        raise ArgumentError(f"height and width must be positive, got {height} and {width}")
    return {"kind": kind, "counts": counts, "height": height, "width": width, "seed": seed, "version": VERSION}


def _is_made(root: Path, recipe: Mapping[str, Any], colour: str) -> bool:
    """Whether ``root`` was made by this recipe; False if there is nothing.

    Raises:
        DatasetError: There is something else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    before = read_meta(root).get("recipe") if root.is_dir() else None
    if not isinstance(before, dict):
        raise DatasetError(f"{root}: holds something else (no recipe in {META_NAME}); choose another folder")
    wanted = dict(recipe) if colour == "auto" else {**recipe, "colour": colour}
    for name, value in wanted.items():
        if before.get(name) != value:
            raise DatasetError(
                f"{root}: was made with {name} {before.get(name)!r}, asked for {value!r}; choose another folder"
            )
    return True


def _write(root: Path, recipe: Mapping[str, Any], progress_bar: bool) -> None:
    # MuJoCo is imported here, after choose_colour has set the back-end that it takes at its first import.
    from mtrl_imgrad.scenes import primitives, robot, sources
    from mtrl_imgrad.supervised.datasets.writers import write_celeba, write_nyuv2

    kind, counts = recipe["kind"], recipe["counts"]
    meta = {"simulated": True, "source": SCENE_KINDS[kind], "recipe": dict(recipe)}
    config = sources.SourceConfig(recipe["height"], recipe["width"], recipe["seed"], recipe["colour"])
    source = sources.RobotSource(config) if kind == "mt10" else sources.PrimitiveSource(config)
    try:
        with counting_bar(f"{kind}, colour from {recipe['colour']}", sum(counts.values()), progress_bar) as advance:
            if isinstance(source, sources.PrimitiveSource) and kind == "attributes":
                attribute_splits = {split: _each(source.attributes, split, counts[split], advance) for split in counts}
                write_celeba(root, attribute_splits, primitives.ATTRIBUTES, meta=meta)
            else:
                classes = robot.CLASSES if kind == "mt10" else primitives.CLASSES
                dense_splits = {split: _each(source.dense, split, counts[split], advance) for split in counts}
                write_nyuv2(root, dense_splits, classes=classes, meta=meta)
    finally:
        source.close()


def _each(
    draw: Callable[[int, int], Sample], split: str, count: int, advance: Callable[[int], None]
) -> Iterator[Sample]:
    for index in range(count):
        yield draw(SPLITS.index(split), index)
        advance(1)
