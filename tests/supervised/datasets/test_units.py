"""Files of the right shape and type in another unit, encoding or layout: told with the remedy, or read rightly."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mtrl_imgrad.errors import DatasetError
from mtrl_imgrad.experiments.supervised.config import DataConfig
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.supervised.datasets import CelebA, CityScapes, NYUv2, write_celeba, write_cityscapes, write_nyuv2
from tests.support.supervised.random_samples import attribute_samples, dense_samples


@pytest.fixture
def nyuv2(tmp_path):
    return write_nyuv2(tmp_path / "nyuv2", {"train": dense_samples(5), "val": dense_samples(8)[5:]})


@pytest.fixture
def city(tmp_path):
    return write_cityscapes(tmp_path / "city", {"train": dense_samples(5, num_classes=7, disparity=True)})


def _store(folder, change):
    for path in sorted(folder.glob("*.npy")):
        np.save(path, change(np.load(path)))


def _read_all(data):
    for index in range(len(data)):
        data[index]


def _void_is_255(label):
    return np.where(label < 0, 255, label).astype(np.uint8)


def _one_hot(label):
    return np.eye(14, dtype=np.float32)[label.astype(int)]


@pytest.mark.parametrize(
    ("layer", "change", "remedy"),
    [
        ("image", lambda a: a * 255, r"0\.\.255\? divide by 255"),
        ("image", lambda a: a * 2 - 1, r"normalized\? undo it"),
        ("image", lambda a: a / 255, "divided by 255 twice"),
        ("image", lambda a: np.moveaxis(a, -1, 0), r"channels first\? np.moveaxis"),
        ("image", lambda a: a[..., 0], r"grey picture\? np.repeat"),
        ("image", lambda a: np.concatenate([a, a[..., :1]], -1), "drops an alpha channel"),
        ("image", lambda a: a[None], "one file holds one image"),
        ("image", lambda a: a * 0, r"all black in 5 file\(s\)"),
        ("depth", lambda a: a * 1000, r"millimetres\? divide by 1000"),
        ("depth", lambda a: a * 100, r"centimetres\? divide by 100$"),
        ("depth", lambda a: (a * 1000).astype(np.int32), r"integers in millimetres\? divide by 1000"),
        ("depth", lambda a: (a * 1000).astype(np.uint16), "16-bit millimetres by 1000"),
        ("depth", lambda a: np.where(a > 0, 0.05 / np.maximum(a, 0.1), 0), "disparity, inverse or scaled depth"),
        ("depth", lambda a: a / a.max(), r"scaled to 0\.\.1 file by file"),
        ("depth", lambda a: np.where(a == 0, -1, a), "0 where unknown, in place of NaN"),
        ("depth", lambda a: np.where(a == 0, np.nan, a), "0 where unknown, in place of NaN"),
        ("depth", lambda a: a[..., 0], r"array\[..., None\]"),
        ("depth", lambda a: np.moveaxis(a, -1, 0), "np.moveaxis"),
        ("label", _void_is_255, r"255 for void\? void=255 reads it"),
        ("label", lambda a: a + 1, "counted from 1.*void=0 reads it"),
        ("label", lambda a: a * 3, "another set of classes"),
        ("label", lambda a: a / 13, "labels are whole numbers"),
        ("label", lambda a: np.where(a < 0, np.nan, a), "-1 where unlabelled, in place of NaN"),
        ("label", _one_hot, r"one-hot\? np.argmax"),
        ("label", lambda a: a[..., None], "np.squeeze"),
        ("label", lambda a: a[None], "np.squeeze"),
        ("label", lambda a: a >= 0, "dtype bool; expected whole numbers"),
        ("label", lambda a: a - 1, "void is -1"),
        ("normal", lambda a: (a + 1) / 2, r"normals as colors\? array \* 2 - 1"),
        ("normal", lambda a: np.round((a + 1) * 127.5), r"normals as colors\? array / 255 \* 2 - 1"),
        ("normal", lambda a: ((a + 1) * 127.5).astype(np.uint8), r"normals as colors\? array / 255 \* 2 - 1"),
        ("normal", lambda a: a / 2, "divide each vector by its length"),
        ("normal", lambda a: np.moveaxis(a, -1, 0), "np.moveaxis"),
    ],
)
def test_nyuv2_in_another_unit_or_encoding_is_told_with_the_remedy(nyuv2, layer, change, remedy):
    _store(nyuv2 / "train" / layer, change)
    with pytest.raises(DatasetError, match=rf"train/{layer}.*{remedy}"):
        _read_all(NYUv2(nyuv2, "train"))


@pytest.mark.parametrize(
    ("layer", "change", "remedy"),
    [
        ("depth", lambda a: np.round(a * 65536), r"16-bit disparity\? divide by 65536"),
        ("depth", lambda a: np.round(a * 65536).astype(np.uint16), "16-bit disparity by 65536"),
        ("depth", lambda a: a * 256, "metres, or disparity in pixels"),
        ("depth", lambda a: np.where(a == 0, -1, a), "0 where unknown, in place of"),
        ("label_7", _void_is_255, "255 for void"),
        ("label_7", lambda a: a + 1, "counted from 1"),
    ],
)
def test_cityscapes_in_another_unit_or_encoding_is_told_with_the_remedy(city, layer, change, remedy):
    _store(city / "train" / layer, change)
    with pytest.raises(DatasetError, match=rf"train/{layer}.*{remedy}"):
        _read_all(CityScapes(city, "train"))


def _counted_from_one(label):
    return (label + 1).astype(np.uint8)


@pytest.mark.parametrize(("void", "encode"), [(255, _void_is_255), (0, _counted_from_one)])
@pytest.mark.parametrize(("kind", "folder"), [(NYUv2, "label"), (CityScapes, "label_7")])
def test_other_encodings_of_labels_are_read_where_they_are_said(request, kind, folder, void, encode):
    root = request.getfixturevalue("nyuv2" if kind is NYUv2 else "city")
    before = [kind(root, "train")[index][1]["segmentation"] for index in range(5)]
    assert min(labels.min() for labels in before) == -1
    _store(root / "train" / folder, encode)
    data = kind(root, "train", void=void)
    assert all(torch.equal(data[index][1]["segmentation"], labels) for index, labels in enumerate(before))


@pytest.mark.parametrize(
    ("void", "change", "says"),
    [
        (255, lambda a: a, r"-1.0 at .*expected classes 0 to 12, 255 where unlabelled; void is 255"),
        (255, lambda a: np.where(a < 0, 255, a + 1), "counted from 1.*void=0"),
        (255, lambda a: np.where(a < 0, 255, a * 3), "another set of classes"),
        (0, lambda a: a, r"-1.0 at .*expected classes 1 to 13, 0 where unlabelled; void is 0"),
        (0, _void_is_255, r"void=255 reads it"),
        (0, lambda a: a + 2, "another set of classes"),
        (0, lambda a: a + 0.5, "labels are whole numbers"),
    ],
)
def test_labels_in_another_encoding_than_was_said_are_refused(nyuv2, void, change, says):
    _store(nyuv2 / "train" / "label", change)
    with pytest.raises(DatasetError, match=rf"train/label.*{says}"):
        _read_all(NYUv2(nyuv2, "train", void=void))


def test_a_configuration_says_the_encoding(nyuv2):
    for split in ("train", "val"):
        _store(nyuv2 / split / "label", _void_is_255)
    splits = load_splits(DataConfig(root=nyuv2, reader_kwargs={"void": 255}))
    assert splits.train[0][1]["segmentation"].max() < 13


def test_classes_that_may_be_counted_from_one_are_warned_of(nyuv2):
    _store(nyuv2 / "train" / "label", lambda a: np.clip(a + 1, 1, 12))
    with pytest.warns(UserWarning, match=r"train/label: neither.*in any of 5 files.*counted from 1.*void=0"):
        NYUv2(nyuv2, "train")


@pytest.mark.parametrize(("layer", "nothing"), [("label", -1), ("depth", 0), ("normal", 0)])
def test_a_task_without_a_target_is_warned_of(nyuv2, layer, nothing):
    _store(nyuv2 / "train" / layer, lambda a: a * 0 + nothing)
    with pytest.warns(UserWarning, match=rf"train/{layer}: nothing known in any of 5 files.*{nothing} everywhere"):
        NYUv2(nyuv2, "train")


def test_pictures_in_place_of_arrays_are_told_with_the_remedy(nyuv2):
    (nyuv2 / "train/image/0.npy").rename(nyuv2 / "train/image/0.PNG")
    with pytest.raises(DatasetError, match=r"stray 0.PNG; .*write them as arrays, with write_nyuv2"):
        NYUv2(nyuv2, "train")


def test_a_file_as_root_is_named(tmp_path):
    (tmp_path / "nyuv2.tar").touch()
    with pytest.raises(DatasetError, match=r"nyuv2.tar/train: no such folder|nyuv2.tar: no such folder"):
        NYUv2(tmp_path / "nyuv2.tar", "train")


def test_depth_of_any_size_is_read_where_meta_json_says_metres(nyuv2):
    _store(nyuv2 / "train" / "depth", lambda a: a * 1000)
    (nyuv2 / "meta.json").write_text('{"depth_unit": "metres"}')
    assert NYUv2(nyuv2, "train")[0][1]["depth"].max() > 1000
    _store(nyuv2 / "train" / "depth", lambda a: a * 1e-6)
    assert NYUv2(nyuv2, "train")[0][1]["depth"].max() < 0.1
    (nyuv2 / "meta.json").write_text('{"depth_unit": "feet"}')
    with pytest.raises(DatasetError, match="'depth_unit' is 'feet'; expected 'metres'"):
        NYUv2(nyuv2, "train")


def test_one_dark_picture_and_normals_shortened_at_edges_are_no_mistake(nyuv2, recwarn):
    np.save(nyuv2 / "train/image/0.npy", np.zeros((48, 64, 3), np.float32))
    normals = np.load(nyuv2 / "train/normal/0.npy")
    normals[:, ::10] *= 0.3
    np.save(nyuv2 / "train/normal/0.npy", normals)
    _read_all(NYUv2(nyuv2, "train"))
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("how", ["copy", "link"])
def test_a_validation_split_of_training_pictures_is_refused(nyuv2, how):
    shutil.rmtree(nyuv2 / "val")
    if how == "copy":
        shutil.copytree(nyuv2 / "train", nyuv2 / "val")
    else:
        (nyuv2 / "val").symlink_to(nyuv2 / "train")
    with pytest.raises(DatasetError, match=r"val/image/0.npy: the same file as .*train/image/0.npy"):
        load_splits(DataConfig(root=nyuv2), progress_bar=False)


@pytest.mark.parametrize(
    ("make", "choose", "message"),
    [
        (None, lambda root: root / "train", "this is one split; root must be the folder above"),
        (None, lambda root: root.parent, r"it is in .*nyuv2: take that as root"),
        ("leftImg8bit/train/", lambda root: root.parent / "other", "raw CityScapes download.*write_cityscapes"),
        ("nyu_depth_v2_labeled.mat", lambda root: root.parent / "other", "raw NYUv2 download.*write_nyuv2"),
        ("nyuv2.zip", lambda root: root.parent / "other", "unpack nyuv2.zip there first"),
    ],
)
def test_layouts_that_are_not_read_are_told_with_the_remedy(nyuv2, make, choose, message):
    if make is not None:
        path = nyuv2.parent / "other" / make
        (path if make.endswith("/") else path.parent).mkdir(parents=True)
        if not make.endswith("/"):
            path.touch()
    with pytest.raises(DatasetError, match=message):
        NYUv2(choose(nyuv2), "train")


def test_a_tilde_is_the_home_folder(nyuv2, monkeypatch):
    monkeypatch.setenv("HOME", str(nyuv2.parent))
    assert len(NYUv2("~/nyuv2", "train")) == 5
    assert load_splits(DataConfig(root=Path("~/nyuv2")), progress_bar=False).tasks[0].name == "segmentation"


# CelebA

NAMES = ["Smiling", "Young"]


@pytest.fixture
def faces(tmp_path):
    sizes = {"train": 4, "val": 2, "test": 2}
    samples = {split: attribute_samples(count, 2, start=count) for split, count in sizes.items()}
    return write_celeba(tmp_path / "flat", samples, NAMES, tree="flat")


def _everything(root):
    return [[(image.tolist(), targets) for image, targets in CelebA(root, s, size=(8, 8))] for s in ("train", "test")]


def _to_csv(folder, values=lambda text: text):
    """As Kaggle has it: CSV with column names, pictures one folder deeper."""
    _, names, *rows = (folder / "list_attr_celeba.txt").read_text().splitlines()
    lines = [["image_id", *names.split()], *([first, *map(values, rest)] for first, *rest in map(str.split, rows))]
    (folder / "list_attr_celeba.csv").write_text("\n".join(map(",".join, lines)) + "\n")
    parts = [["image_id", "partition"], *map(str.split, (folder / "list_eval_partition.txt").read_text().splitlines())]
    (folder / "list_eval_partition.csv").write_text("\n".join(map(",".join, parts)) + "\n")
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        (folder / name).unlink()
    (folder / "img_align_celeba").rename(folder / "images")
    (folder / "img_align_celeba").mkdir()
    (folder / "images").rename(folder / "img_align_celeba" / "img_align_celeba")


@pytest.mark.parametrize("where", [".", "data"])
@pytest.mark.parametrize("values", [lambda text: text, lambda text: text.replace("-1", "0")])
def test_celeba_as_kaggle_unpacks_it(faces, where, values):
    before = _everything(faces)
    _to_csv(faces / "celeba", values)
    root = faces / "celeba"
    if where == "data":
        (faces / "celeba").rename(faces / "data")
        root = faces
    assert _everything(root) == before


def test_celeba_one_folder_deeper_is_told(faces):
    (faces / "celeba").rename(faces / "list")
    with pytest.raises(DatasetError, match=r"no list_attr_celeba; .*it is in .*flat/list: take that as root"):
        CelebA(faces, "train")


def test_a_mixture_of_zeros_and_minus_ones_is_refused(faces):
    path = faces / "celeba" / "list_attr_celeba.txt"
    count, names, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([count, names, first.replace("-1", " 0"), *rest]))
    with pytest.raises(DatasetError, match=r"line 3: a 0 in a file with -1"):
        CelebA(faces, "train")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "list_attr_celeba.csv").write_text("000001.jpg,1,-1\n"), "expected the attributes' names"),
        (lambda f: (f / "list_attr_celeba.csv").write_text("image_id,Smiling,Young\n"), "no images"),
        (lambda f: (f / "list_eval_partition.csv").unlink(), "list_eval_partition.csv: no such file; .* holds"),
        (lambda f: shutil.move(f / "img_align_celeba", f / "img_celeba"), "img_celeba holds other images"),
        (
            lambda f: [
                shutil.rmtree(f / "img_align_celeba"),
                (f / "img_align_celeba.zip").touch(),
            ],
            "unpack img_align_celeba.zip there",
        ),
        (
            lambda f: (f / "img_align_celeba/img_align_celeba/000001.jpg").rename(
                f / "img_align_celeba/img_align_celeba/000001.png"
            ),
            "000001.png is there, but",
        ),
    ],
)
def test_what_is_wrong_in_kaggle_s_tree_is_named(faces, spoil, message):
    _to_csv(faces / "celeba")
    spoil(faces / "celeba")
    with pytest.raises(DatasetError, match=message):
        CelebA(faces / "celeba", "train")
