"""CelebA's two files of text, as the authors wrote them and as Kaggle has them.

``list_attr_celeba.txt`` has the number of images in its first line, the names of the attributes in its second, then a
line an image: its name and 1 or -1 for each attribute. ``list_eval_partition.txt`` has a line an image: its name and 0
(train), 1 (val) or 2 (test). The ``.csv`` forms have one line of column names instead. The two files are joined by
name, whatever their order. Where -1 stands nowhere, 0 stands for it: some copies were converted so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mtrl_imgrad.errors import DatasetError
from mtrl_imgrad.supervised.datasets.folder import SPLITS, listing, quoted, read_text

_VALUES = {"1": 1, "-1": -1, "0": 0}


def read_attributes(path: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names of the attributes, and for each image its row of 1 and -1 (or 0), int8.

    Raises:
        DatasetError: The file is not as described; names the line.
    """
    lines = _lines(path)
    place, first = next(lines, (str(path), []))
    count = None
    if path.suffix == ".csv":
        names = first[1:]
    else:
        if len(first) != 1 or not first[0].isdecimal():
            raise DatasetError(f"{place}: {' '.join(first)[:60]!r}; expected the number of images")
        count = int(first[0])
        place, names = next(lines, (str(path), []))
    if not names or len(set(names)) != len(names) or set(names) <= set(_VALUES):
        raise DatasetError(f"{place}: {' '.join(names)[:60]!r}; expected the attributes' names, each once")
    rows: dict[str, np.ndarray] = {}
    zero: str | None = None
    negative = False
    for place, (name, *values) in lines:
        if len(values) != len(names) or not set(values) <= set(_VALUES):
            raise DatasetError(f"{place}: {len(values)} values after {name!r}; expected {len(names)}, each 1 or -1")
        if name in rows:
            raise DatasetError(f"{place}: {name!r} a second time; expected each image once")
        rows[name] = np.array([_VALUES[value] for value in values], dtype=np.int8)
        negative = negative or "-1" in values
        zero = place if zero is None and "0" in values else zero
        if zero is not None and negative:
            raise DatasetError(f"{zero}: a 0 in a file with -1; expected {len(names)}, each 1 or -1")
    if count is not None and len(rows) != count:
        raise DatasetError(f"{path}: {len(rows)} images; expected {count}, as its first line says")
    if not rows:
        raise DatasetError(f"{path}: no images; expected a line for each")
    return tuple(names), rows


def names_of_split(path: Path, split: str, known: set[str]) -> list[str]:
    """Names of the split's images, in the file's order.

    Args:
        path: of the file.
        split: ``"train"``, ``"val"`` or ``"test"``.
        known: names of the images with attributes.

    Raises:
        DatasetError: The file is not as described, or names other images; names the line.
    """
    seen: dict[str, str] = {}
    lines = _lines(path)
    if path.suffix == ".csv":
        next(lines, None)  # names of the columns
    for place, words in lines:
        if len(words) != 2 or words[1] not in {"0", "1", "2"}:
            raise DatasetError(f"{place}: {' '.join(words)[:60]!r}; expected an image's name and 0, 1 or 2")
        if words[0] in seen:
            raise DatasetError(f"{place}: {words[0]!r} a second time; expected each image once")
        if words[0] not in known:
            raise DatasetError(f"{place}: {words[0]!r} is not in list_attr_celeba{path.suffix}")
        seen[words[0]] = words[1]
    if absent := sorted(known - set(seen)):
        raise DatasetError(
            f"{path}: {absent[0]!r} missing ({len(absent)} in all); list_attr_celeba{path.suffix} has it"
        )
    wanted = str(SPLITS.index(split))
    names = [name for name, number in seen.items() if number == wanted]
    if not names:
        raise DatasetError(f"{path}: no image of split {split!r} ({wanted})")
    return names


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Place and words of every line that is not blank."""
    if not path.exists():
        there = quoted(listing(path.parent))
        raise DatasetError(f"{path}: no such file; {path.parent} holds {there}; take it from CelebA's download")
    separator = "," if path.suffix == ".csv" else None
    for number, line in enumerate(read_text(path, "text").splitlines(), start=1):
        if line.strip():
            words = [word.strip() for word in line.split(separator)]
            yield f"{path}, line {number}", words
