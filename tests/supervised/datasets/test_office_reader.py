"""Office-31 and Office-Home from folders as they unpack."""

import pytest
import torch

from mtrl_imgrad.errors import ArgumentError, DatasetError, UnknownNameError
from mtrl_imgrad.supervised.datasets import Office31, OfficeHome
from tests.support.supervised.small_folders import CLASSES, write_office


@pytest.fixture
def office31(tmp_path):
    return write_office(tmp_path / "office31", ["amazon", "dslr", "webcam"], "images")


def test_a_source_is_a_task_and_its_splits_hold_every_picture_once(office31):
    assert (office31 / "amazon/images/bike/frame_0001.png").is_file()
    for s, name in enumerate(Office31.task_names):
        splits = {split: Office31(office31, split, task=name, size=(6, 8)) for split in ("train", "val", "test")}
        total = 3 * (5 + s)
        assert [len(one) for one in splits.values()] == [
            round(0.6 * total), round(0.8 * total) - round(0.6 * total), total - round(0.8 * total)
        ]  # fmt: skip
        seen = [one[i] for one in splits.values() for i in range(len(one))]
        values = sorted(round(float(image[0, 0, 0]) * 255) for image, _ in seen)
        assert values == sorted(40 * s + 10 * c + i for c in range(3) for i in range(5 + s))
        for image, targets in seen:
            assert image.shape == (3, 6, 8)
            assert targets[name] == (round(float(image[0, 0, 0]) * 255) - 40 * s) // 10
            assert targets[name].dtype == torch.int64
        assert splits["train"].tasks[0].channels == 3
        assert splits["train"].class_names == CLASSES


def test_the_draw_follows_from_its_seed_and_differs_between_seeds(office31):
    def names(seed):
        return Office31(office31, "test", task="amazon", split_seed=seed)._rows

    assert names(0) == names(0)
    assert names(0) != names(1)


def test_office_home_as_it_unpacks(tmp_path):
    root = write_office(tmp_path / "OfficeHomeDataset_10072016", ["Art", "Clipart", "Product", "Real World"])
    found = OfficeHome(root, "val", task="Real_World", size=(8, 8))
    assert found.tasks[0].name == "Real_World"
    assert len(found) == round(0.8 * 24) - round(0.6 * 24)


def test_published_lists_are_taken_as_they_are(office31, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "amazon_val.txt").write_text("amazon/images/mug/frame_0002.png 2\namazon/images/bike/frame_0001.png 1\n")
    found = Office31(office31, "val", task="amazon", size=(4, 4), lists=lists)
    assert [int(found[i][1]["amazon"]) for i in range(len(found))] == [2, 1]
    (lists / "amazon_val.txt").write_text("amazon/images/mug/frame_0002.png 3\n")
    with pytest.raises(DatasetError, match=r"amazon_val.txt, line 1: .*a path and a class from 0 to 2"):
        Office31(office31, "val", task="amazon", lists=lists)
    (lists / "amazon_val.txt").write_text("images/mug/frame_0002.png 2\n")
    with pytest.raises(DatasetError, match=r"line 1: .* is no file; paths are relative to the root"):
        Office31(office31, "val", task="amazon", lists=lists)


def test_what_is_wrong_is_named_with_its_remedy(office31):
    with pytest.raises(DatasetError, match=r"no folder amazon; it holds office31; .*office31: take that as root"):
        Office31(office31.parent, "train", task="amazon")
    (office31 / "dslr/images/mug").rename(office31 / "dslr/images/cup")
    with pytest.raises(DatasetError, match="class 'cup' is in 'dslr' only"):
        Office31(office31, "train", task="amazon")
    with pytest.raises(UnknownNameError, match="task 'amazn'"):
        Office31(office31, "train", task="amazn")
    with pytest.raises(ArgumentError, match="split must be one of train, val, test"):
        Office31(office31, "dev", task="amazon")


def test_a_file_that_is_no_picture_is_named(office31):
    broken = "amazon/images/mug/frame_0001.png"
    (office31 / broken).write_bytes(b"nothing")
    found = [Office31(office31, split, task="amazon", size=(4, 4)) for split in ("train", "val", "test")]
    split, index = next((one, i) for one in found for i, (path, _) in enumerate(one._rows) if path == broken)
    with pytest.raises(DatasetError, match=r"mug/frame_0001.png: cannot be read as an image"):
        split[index]
