"""PASCAL-Context from folders as PASCAL_MT.tgz unpacks."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from mtrl_imgrad.errors import ArgumentError, DatasetError, UnknownNameError
from mtrl_imgrad.experiments.supervised.config import DataConfig
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.supervised.datasets import PascalContext
from tests.support.supervised.pascal_folders import HEIGHT, NAMES, WIDTH, write_pascal

SIZE = (16, 32)


@pytest.fixture
def root(tmp_path):
    return write_pascal(tmp_path / "PASCAL_MT")


def test_pictures_and_targets_are_those_of_the_files(root):
    data = PascalContext(root, "train", size=SIZE)
    assert [(task.name, task.kind, task.channels) for task in data.tasks] == [
        ("segmentation", "segmentation", 21),
        ("human_parts", "segmentation", 7),
        ("saliency", "segmentation", 2),
        ("normal", "normal", 3),
    ]
    assert len(data) == 3
    for i in range(3):
        image, targets = data[i]
        assert image.shape == (3, *SIZE)
        assert image.dtype == torch.float32
        inside = image[:, :HEIGHT, :WIDTH]
        torch.testing.assert_close(inside, torch.full_like(inside, (40 + i) / 255), atol=2 / 255, rtol=0)  # JPEG
        assert not image[:, HEIGHT:].any()
        assert not image[:, :, WIDTH:].any()
        labels = targets["segmentation"]
        assert labels.dtype == torch.int64
        assert (labels[:HEIGHT, 1:WIDTH] == i + 1).all()
        assert (labels[:, 0] == -1).all()
        assert (labels[HEIGHT:] == -1).all()
        assert (targets["saliency"][:HEIGHT, : WIDTH // 2] == 0).all()
        assert (targets["saliency"][:HEIGHT, WIDTH // 2 : WIDTH] == 1).all()
        assert (targets["saliency"][:, WIDTH:] == -1).all()
        normals = targets["normal"]
        assert not normals[:, 0].any()
        torch.testing.assert_close(normals[:, 1:HEIGHT, :WIDTH].norm(dim=0), torch.ones(HEIGHT - 1, WIDTH))
        assert (normals[2, 1:HEIGHT, :WIDTH] > 0.999).all()
        assert not normals[:, HEIGHT:].any()


@pytest.mark.parametrize(("groups", "numbers"), [(6, (1, 3, 4, 6, 2)), (4, (1, 3, 3, 4, 2)), (1, (1, 1, 1, 1, 1))])
def test_parts_of_all_people_are_put_together(root, groups, numbers):
    """Head, upper arm, hand and foot of one person, torso of another; the dog's head is none."""
    data = PascalContext(root, "train", size=(HEIGHT, WIDTH), tasks=["human_parts"], human_parts=groups)
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    boxes = ((2, 5, 4, 8), (4, 4, 6, 5), (6, 4, 7, 5), (9, 5, 10, 7), (4, 12, 7, 16))
    for number, (top, left, bottom, right) in zip(numbers, boxes, strict=True):
        expected[top:bottom, left:right] = number
    assert torch.equal(data[0][1]["human_parts"], expected)
    assert (data[2][1]["human_parts"] == -1).all()  # a picture without people


def test_parts_as_pictures_of_numbers(tmp_path):
    data = PascalContext(
        write_pascal(tmp_path / "mt", parts=".png"), "val", tasks=["human_parts"], size=(HEIGHT, WIDTH)
    )
    found = data[0][1]["human_parts"]
    assert (found[:, 1:] == 1).all()
    assert torch.equal(found[:, 0], torch.full((HEIGHT,), 6))  # of min(255, 6)


def test_larger_pictures_are_made_smaller_in_proportion(root):
    data = PascalContext(root, "train", size=(8, 10))
    image, targets = data[1]
    assert image[:, :6].all()  # 12 x 20 into 6 x 10
    assert not image[:, 6:].any()
    assert (targets["segmentation"][:6, 1:] == 2).all()
    assert set(targets["segmentation"].unique().tolist()) == {-1, 2}


def test_views_follow_from_seed_and_epoch_and_move_all_layers_alike(root):
    data = PascalContext(root, "train", size=(HEIGHT, WIDTH), augment=True, seed=3)
    seen = set()
    for epoch in range(12):
        data.set_epoch(epoch)
        image, targets = data[0]
        again = data[0]
        assert torch.equal(image, again[0])
        assert torch.equal(targets["saliency"], again[1]["saliency"])
        seen.add(int((targets["saliency"] == 1).sum()))
        assert (targets["segmentation"] == 1).any()
        lengths = targets["normal"].norm(dim=0)
        torch.testing.assert_close(lengths, (lengths > 0.5).float())
    assert len(seen) > 2


def test_in_a_configuration(root):
    config = DataConfig(format="pascal_context", root=root, tasks=("normal", "segmentation"), image_size=(32, 32))
    shutil.rmtree(root / "sal_distill")
    shutil.rmtree(root / "human_parts")
    splits = load_splits(config)
    assert [task.name for task in splits.tasks] == ["normal", "segmentation"]
    image, targets = splits.evaluation["val"][0]
    assert image.shape == (3, 32, 32)
    assert set(targets) == {"segmentation", "normal"}


def test_a_picture_in_both_splits_is_refused(root):
    (root / "ImageSets/Context/val.txt").write_text(NAMES["train"][1])
    shutil.copy(root / f"human_parts/{NAMES['train'][0]}.mat", root / f"human_parts/{NAMES['val'][0]}.mat")
    with pytest.raises(DatasetError, match=r"2008_000003 is in train and val"):
        load_splits(DataConfig(format="pascal_context", root=root))


def broken(root, what):
    name = NAMES["train"][0]
    labels = root / f"semseg/pascal-context/{name}.png"
    if what == "no picture":
        (root / f"JPEGImages/{name}.jpg").unlink()
    elif what == "no label":
        labels.unlink()
    elif what == "no saliency at all":
        shutil.rmtree(root / "sal_distill")
    elif what == "colours":
        Image.open(labels).convert("RGB").save(labels)
    elif what == "59 classes":
        Image.fromarray(np.full((HEIGHT, WIDTH), 59, np.uint8)).save(labels)
    elif what == "another size":
        Image.fromarray(np.zeros((HEIGHT, WIDTH + 1), np.uint8)).save(labels)
    elif what == "no annotation":
        (root / f"human_parts/{name}.mat").write_bytes(b"MATLAB")
    elif what == "above":
        return root.parent
    elif what == "packed":
        alone = root.parent / "alone"
        alone.mkdir()
        (alone / "PASCAL_MT.tgz").touch()
        return alone
    elif what == "VOC":
        shutil.rmtree(root / "ImageSets")
        (root / "SegmentationClass").mkdir()
    return root


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no picture", r"JPEGImages/2008_000002.jpg: no such file \(1 in all\)"),
        ("no label", r"no semseg/VOC12/2008_000002.png or semseg/pascal-context/2008_000002.png"),
        (
            "no saliency at all",
            r"no folder sal_distill/; expected .*'saliency', or tasks of segmentation, human_parts, ",
        ),
        ("colours", r"a picture of mode RGB; expected class numbers, grey or with a palette"),
        ("59 classes", r"wrong value.*59.*expected classes 0 to 20.*another set of classes"),
        ("another size", r"height and width \[12, 21\]; expected \[12, 20\] as in 2008_000002.jpg"),
        ("no annotation", r"2008_000002.mat: cannot be read as an annotation of PASCAL-Part"),
        ("above", r"train.txt: no such file; it is in .*PASCAL_MT: take that as root"),
        ("packed", r"unpack PASCAL_MT.tgz there first"),
        ("VOC", r"this is PASCAL VOC alone; the reader takes ASTMT's archive"),
    ],
)
def test_a_folder_that_is_not_as_described_says_what_to_do(root, what, message):
    with pytest.raises(DatasetError, match=message):
        PascalContext(broken(root, what), "train", size=SIZE)[0]


def test_saliency_of_0_and_1_is_told_with_the_remedy(root):
    for path in (root / "sal_distill").iterdir():
        Image.fromarray((np.array(Image.open(path)) > 127).astype(np.uint8)).save(path)
    with pytest.raises(DatasetError, match=r"sal_distill/.*: 0 and 1 only, as in 3 file\(s\); .*multiply by 255"):
        PascalContext(root, "train", tasks=["saliency"])


def test_a_name_that_is_listed_twice_is_refused(root):
    path = root / "ImageSets/Context/train.txt"
    path.write_text(path.read_text() * 2)
    with pytest.raises(DatasetError, match=r"train.txt: '2008_000002' a second time; expected each name once"):
        PascalContext(root, "train")


def test_another_void_is_an_option(root):
    path = root / f"semseg/pascal-context/{NAMES['train'][0]}.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 99, np.uint8)).save(path)
    found = PascalContext(root, "train", size=SIZE, tasks=["segmentation"], void=99)[0][1]["segmentation"]
    assert (found == -1).all()


def test_bad_arguments_are_named(root):
    with pytest.raises(ArgumentError, match="split must be one of train, val, got 'test'"):
        PascalContext(root, "test")
    with pytest.raises(UnknownNameError, match="unknown task 'salience'. Did you mean 'saliency'"):
        PascalContext(root, "train", tasks=["salience"])
    with pytest.raises(ArgumentError, match="human_parts must be one of 1, 4, 6, got 14"):
        PascalContext(root, "train", human_parts=14)
