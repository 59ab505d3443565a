"""Formats of data sets by name: what a record says is what the reader gets."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.experiments.supervised.config import DataConfig
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.supervised.datasets import DataFormat, register_format
from mtrl_imgrad.supervised.tasks import TaskSpec
from tests.support.registries import forget_registrations


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_registrations(monkeypatch)


class Reader(torch.utils.data.Dataset):
    """Notes what it is built with."""

    tasks = (TaskSpec("depth", "depth", 1),)
    built: list[dict[str, Any]]

    def __init__(self, root: Any, split: str, **arguments: Any) -> None:
        self.split = split
        type(self).built.append({"split": split, **arguments})

    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("record", "arguments", "of_training"),
    [
        ({}, {}, {}),
        ({"augments": True}, {"protocol": "fixed", "seed": 7}, {"augment": True}),
        ({"options": {"image_size": "size", "label_dir": "folder"}}, {"size": (64, 64), "folder": "label_7"}, {}),
    ],
)
def test_a_reader_gets_the_options_of_its_record(
    record: dict[str, Any], arguments: dict[str, Any], of_training: dict[str, Any], tmp_path: Any
) -> None:
    Reader.built = []
    register_format(DataFormat("mine", Reader, **record))
    splits = load_splits(DataConfig(format="mine", root=tmp_path, reader_kwargs={"crop": 3}), seed=7)
    assert splits.tasks == Reader.tasks
    expected = {"crop": 3, **arguments}
    assert Reader.built == [{"split": "train", **expected, **of_training}, {"split": "val", **expected}]


@pytest.mark.parametrize(
    ("there", "evaluated"), [((), ["val", "dark"]), (("test",), ["val", "dark", "test"]), (("other",), ["val", "dark"])]
)
def test_the_splits_evaluated_are_those_of_the_record_and_of_the_folder(
    there: tuple[str, ...], evaluated: list[str], tmp_path: Any
) -> None:
    Reader.built = []
    for name in there:
        (tmp_path / name).mkdir()
    register_format(DataFormat("mine", Reader, splits=("train", "val", "dark"), optional_splits=("test",)))
    assert list(load_splits(DataConfig(format="mine", root=tmp_path)).evaluation) == evaluated


def test_wrong_names_and_records_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="format 'nyu'.*Did you mean 'nyuv2'"):
        DataConfig(format="nyu")
    with pytest.raises(ArgumentError, match="a name of its own, got 'celeba'"):
        register_format(DataFormat("celeba", Reader))
    with pytest.raises(ArgumentError, match="splits must have 'train' and 'val'"):
        DataFormat("mine", Reader, splits=("train",))
