"""Office-31 and Office-Home from folders as they unpack."""

import numpy as np
import pytest
import torch
from PIL import Image

from mtrl_imgrad.errors import ArgumentError, DatasetError, UnknownNameError
from mtrl_imgrad.supervised.datasets import Office31, OfficeHome
from mtrl_imgrad.supervised.datasets.images import read_image
from mtrl_imgrad.supervised.datasets.pascal_files import read_normals
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


def test_folders_are_classes_whatever_their_names(tmp_path):
    root = write_office(tmp_path, ["amazon", "dslr", "webcam"], "images", classes=("desk.lamp", "mug"))
    (root / "dslr/images/README").touch()
    assert Office31(root, "train", task="amazon").class_names == ("desk.lamp", "mug")


def test_a_class_without_pictures_is_named(office31):
    for path in (office31 / "amazon/images/mug").iterdir():
        path.rename(path.with_suffix(".bmp"))
    with pytest.raises(DatasetError, match=r"mug: no picture \(.jpg, .jpeg, .png\); it holds frame_0001.bmp"):
        Office31(office31, "train", task="amazon")
    lists = office31 / "lists"
    lists.mkdir()
    (lists / "dslr_val.txt").touch()
    with pytest.raises(DatasetError, match=r"no picture of 'dslr' for split 'val'; expected some in dslr_val.txt"):
        Office31(office31, "val", task="dslr", lists=lists)


@pytest.mark.parametrize(("mode", "dtype"), [("I;16", np.uint16), ("F", np.float32)])
def test_pictures_of_more_than_8_bits_are_refused(tmp_path, mode, dtype):
    """Pillow's own conversion would make them white, or black."""
    path = tmp_path / "deep.tiff"
    Image.fromarray(np.full((4, 4), 300, dtype)).save(path)
    with pytest.raises(DatasetError, match=rf"deep.tiff: a picture of mode {mode}; expected 8 bits a channel"):
        read_image(path, (4, 4))


def test_grey_pictures_and_alpha_channels_are_read_as_colours(tmp_path):
    for mode, colour, seen in (("L", 51, (51, 51, 51)), ("RGBA", (51, 102, 204, 99), (51, 102, 204))):
        Image.new(mode, (4, 4), colour).save(tmp_path / f"{mode}.png")
        assert (read_image(tmp_path / f"{mode}.png", (2, 2)) * 255).round()[:, 0, 0].tolist() == list(seen)


def test_a_damaged_png_is_named(tmp_path):
    """Pillow raises SyntaxError for it, which is no OSError."""
    path = tmp_path / "broken.png"
    noise = np.random.default_rng(0).integers(256, size=(200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    second = whole.index(b"IDAT", whole.index(b"IDAT") + 4)
    path.write_bytes(whole[:second] + b"*|\x8c\x85" + whole[second + 4 :])
    with pytest.raises(DatasetError, match="broken.png: cannot be read as an image"):
        read_image(path, (4, 4))
    with pytest.raises(DatasetError, match="broken.png: cannot be read as an image"):
        read_normals(path)


def test_a_file_that_is_no_picture_is_named(office31):
    broken = "amazon/images/mug/frame_0001.png"
    (office31 / broken).write_bytes(b"nothing")
    found = [Office31(office31, split, task="amazon", size=(4, 4)) for split in ("train", "val", "test")]
    split, index = next((one, i) for one in found for i, (path, _) in enumerate(one._rows) if path == broken)
    with pytest.raises(DatasetError, match=r"mug/frame_0001.png: cannot be read as an image"):
        split[index]
