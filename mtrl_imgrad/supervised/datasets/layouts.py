"""Layouts that people have and the readers do not read, each with what to do."""

from __future__ import annotations

from pathlib import Path

from mtrl_imgrad.errors import DatasetError
from mtrl_imgrad.supervised.datasets.folder import SPLITS, deeper_hint, listing, packed_hint


def check_root(root: Path, split: str) -> None:
    """Whether ``root/split`` is there.

    Raises:
        DatasetError: it is not; says what lies there instead and what to do.
    """
    if (root / split).is_dir() or not root.is_dir():
        listing(root / split)
        return
    hint = _hint(root, listing(root))
    if hint:
        raise DatasetError(f"{root}: no folder {split}; {hint}")
    listing(root / split)


def _hint(root: Path, names: list[str]) -> str:
    if any((root / name).is_dir() for name in SPLITS):
        return ""
    if "image" in names:
        return f"this is one split; root must be the folder above, which holds train and val: {root.parent}"
    if {"leftImg8bit", "gtFine", "disparity"} & set(names):
        return (
            "this is the raw CityScapes download; the reader takes MTAN's preprocessed set (128 x 256, .npy files, see "
            "docs/datasets.md), or what write_cityscapes makes of it"
        )
    if deeper := deeper_hint(root, *SPLITS):
        return deeper
    if any(name.endswith(".mat") for name in names):
        return (
            "this is the raw NYUv2 download; the reader takes MTAN's preprocessed set (288 x 384, .npy files, see "
            "docs/datasets.md), or what write_nyuv2 makes of it"
        )
    return packed_hint(root)
