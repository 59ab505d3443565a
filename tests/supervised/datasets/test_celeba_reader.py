"""CelebA: both trees, the files' looseness, and what is wrong in them."""

import numpy as np
import pytest
import torch
from PIL import Image

from mtrl_imgrad.errors import ArgumentError, DatasetError
from mtrl_imgrad.supervised.datasets import AttributeSample, CelebA, write_celeba
from mtrl_imgrad.supervised.tasks import TaskSpec
from tests.support.supervised.random_samples import attribute_samples

NAMES = tuple(f"Attribute_{number}" for number in range(40))
SIZES = {"train": 5, "val": 2, "test": 3}


@pytest.fixture
def splits():
    return {split: attribute_samples(count, start=count) for split, count in SIZES.items()}


@pytest.fixture
def root(tmp_path, splits):
    return write_celeba(tmp_path / "faces", splits, NAMES)


def _attributes(root):
    return root / "Anno" / "list_attr_celeba.txt"


def _partition(root):
    return root / "Eval" / "list_eval_partition.txt"


@pytest.mark.parametrize("tree", ["original", "flat", "inside flat"])
def test_both_trees(tmp_path, splits, tree):
    root = write_celeba(tmp_path / "set", splits, NAMES, tree=tree.removeprefix("inside "))
    root = root / "celeba" if tree == "inside flat" else root
    for split, samples in splits.items():
        data = CelebA(root, split)
        assert len(data) == SIZES[split]
        assert data.tasks == tuple(TaskSpec(name, "attribute", 1) for name in NAMES)
        for index, sample in enumerate(samples):
            image, targets = data[index]
            assert tuple(targets) == NAMES
            assert torch.cat(list(targets.values())).tolist() == sample.attributes.tolist()
            assert (image.shape, image.dtype) == ((3, 64, 64), torch.float32)
            assert targets["Attribute_0"].tolist() == [0.0]
            # A plain colour survives JPEG and resizing up to a few steps of 255.
            np.testing.assert_allclose(image[:, 32, 32], sample.image[0, 0] / 255, atol=4 / 255)


def test_files_have_the_published_look(root):
    lines = _attributes(root).read_text().splitlines()
    assert lines[0] == "10"
    assert lines[1].split() == list(NAMES)
    assert lines[2].startswith("000001.jpg -1 ")
    assert "  1" in lines[2]
    assert _partition(root).read_text().splitlines()[-1] == "000010.jpg 2"
    with Image.open(root / "Img" / "img_align_celeba" / "000001.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (178, 218))


def test_aspect_ratio_is_not_kept(tmp_path):
    picture = np.zeros((100, 40, 3), dtype=np.uint8)
    picture[50:] = 255
    root = write_celeba(tmp_path / "set", {"test": [AttributeSample(picture, np.array([True]))]}, ["Tall"])
    image, _ = CelebA(root, "test", size=(20, 30))[0]
    assert image.shape == (3, 20, 30)
    assert image[:, :8].max() < 0.05
    assert image[:, 12:].min() > 0.95


def test_order_blanks_and_the_last_newline_do_not_matter(root):
    before = [targets for _, targets in CelebA(root, "train")]
    count, names, *rows = _attributes(root).read_text().splitlines()
    messy = [count, names + "  ", *(row.replace(" ", "   ") for row in reversed(rows))]
    _attributes(root).write_text("\n".join(messy))
    _partition(root).write_text(_partition(root).read_text().rstrip("\n"))
    assert [targets for _, targets in CelebA(root, "train")] == before
    assert len(CelebA(root, "test")) == SIZES["test"]


def _edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: _edit(_attributes(r), "10\n", "11\n"), r"list_attr_celeba.txt: 10 images; expected 11"),
        (lambda r: _edit(_attributes(r), "10\n", ""), r"line 1: 'Attribute_0 .*expected the number of images"),
        (lambda r: _edit(_attributes(r), "Attribute_1 ", "Attribute_0 "), r"line 2: .*each once"),
        (lambda r: _edit(_attributes(r), "000002.jpg -1", "000002.jpg 0"), r"line 4: .*expected 40, each 1 or -1"),
        (lambda r: _edit(_attributes(r), "000002.jpg -1", "000002.jpg"), r"line 4: 39 values"),
        (lambda r: _edit(_attributes(r), "000002.jpg", "000001.jpg"), r"line 4: '000001.jpg' a second time"),
        (lambda r: _edit(_partition(r), "000003.jpg 0", "000003.jpg 3"), r"partition.txt, line 3: .*0, 1 or 2"),
        (lambda r: _edit(_partition(r), "000003.jpg 0\n", ""), r"partition.txt: '000003.jpg' missing"),
        (lambda r: _edit(_partition(r), "000003.jpg", "999999.jpg"), r"line 3: '999999.jpg' is not in"),
        (lambda r: _partition(r).unlink(), r"list_eval_partition.txt: no such file; .* holds"),
        (lambda r: _attributes(r).unlink(), r"expected one of Anno/list_attr_celeba.txt.*holds Anno, Eval, Img"),
        (lambda r: (r / "Img/img_align_celeba/000004.jpg").unlink(), r"img_align_celeba: 000004.jpg missing"),
        (lambda r: _partition(r).write_text(_partition(r).read_text().replace(" 0\n", " 1\n")), "no image of split"),
    ],
)
def test_construction_names_what_is_wrong(root, spoil, message):
    spoil(root)
    with pytest.raises(DatasetError, match=message):
        CelebA(root, "train")


def test_a_broken_image_is_named(root):
    (root / "Img" / "img_align_celeba" / "000002.jpg").write_bytes(b"not a picture")
    data = CelebA(root, "train")
    data[0]
    with pytest.raises(DatasetError, match=r"000002.jpg: cannot be read as an image"):
        data[1]


def test_arguments_are_checked(root, tmp_path):
    with pytest.raises(ArgumentError, match="split"):
        CelebA(root, "training")
    with pytest.raises(ArgumentError, match="size"):
        CelebA(root, "train", size=(0, 64))
    with pytest.raises(DatasetError, match="exists already"):
        write_celeba(root, {}, NAMES)
    with pytest.raises(ArgumentError, match="'Big Nose'"):
        write_celeba(tmp_path / "new", {}, ["Big Nose"])
    with pytest.raises(ArgumentError, match="'dev'"):
        write_celeba(tmp_path / "new", {"dev": []}, ["Nose"])
    sample = attribute_samples(1)[0]
    for bad, message in (
        (AttributeSample(sample.image / 255, sample.attributes), "expected uint8"),
        (AttributeSample(sample.image, sample.attributes[:3]), r"expected bool \[40\]"),
    ):
        with pytest.raises(DatasetError, match=message):
            write_celeba(tmp_path / message[-4:], {"val": [bad]}, NAMES)
