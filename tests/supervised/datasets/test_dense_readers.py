"""NYUv2 and CityScapes: what is read is what was written; what is wrong is named."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mtrl_imgrad.errors import ArgumentError, DatasetError
from mtrl_imgrad.supervised.datasets import CITYSCAPES_CLASSES, CityScapes, NYUv2, write_cityscapes, write_nyuv2
from mtrl_imgrad.supervised.tasks import TaskSpec
from tests.support.supervised.random_samples import HEIGHT, WIDTH, dense_samples


@pytest.fixture
def nyuv2(tmp_path):
    return write_nyuv2(tmp_path / "nyuv2", {"train": dense_samples(5), "val": dense_samples(3)})


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_nyuv2_gives_back_what_was_written(tmp_path, dtype):
    samples = dense_samples(3)
    root = write_nyuv2(tmp_path / "set", {"train": samples}, dtype=dtype)
    stored = np.load(root / "train" / "label" / "0.npy")
    assert stored.dtype == dtype
    assert stored.shape == (HEIGHT, WIDTH)
    assert np.load(root / "train" / "depth" / "0.npy").shape == (HEIGHT, WIDTH, 1)
    assert not (root / "meta.json").exists()

    data = NYUv2(root, "train")
    assert len(data) == 3
    assert data.size == (HEIGHT, WIDTH)
    for index, sample in enumerate(samples):
        image, targets = data[index]
        assert list(targets) == ["segmentation", "depth", "normal"]
        assert (image.dtype, targets["segmentation"].dtype) == (torch.float32, torch.int64)
        np.testing.assert_allclose(image, sample.image.transpose(2, 0, 1), atol=1e-7)
        np.testing.assert_array_equal(targets["segmentation"], sample.label)
        np.testing.assert_allclose(targets["depth"][0], sample.depth, rtol=1e-6)
        np.testing.assert_allclose(targets["normal"], sample.normal.transpose(2, 0, 1), atol=1e-6)
    assert targets["normal"][:, 10, 10].abs().sum() > 1.5


def test_integer_labels_are_labels(nyuv2):
    path = nyuv2 / "train" / "label" / "2.npy"
    labels = np.load(path)
    np.save(path, labels.astype(np.int16))
    np.testing.assert_array_equal(NYUv2(nyuv2, "train")[2][1]["segmentation"], labels)


def test_tasks_tell_what_a_model_needs(nyuv2):
    data = NYUv2(nyuv2, "val")
    assert data.tasks == (
        TaskSpec("segmentation", "segmentation", 13),
        TaskSpec("depth", "depth", 1),
        TaskSpec("normal", "normal", 3),
    )
    assert data.class_names[0] == "bed"


def test_meta_names_other_classes(tmp_path):
    root = write_nyuv2(tmp_path / "two", {"val": dense_samples(1, num_classes=2)}, classes=["ground", "thing"])
    data = NYUv2(root, "val")
    assert data.class_names == ("ground", "thing")
    assert data.tasks[0].channels == 2
    for wrong in ('{"classes": 7}', "{", "[]"):
        (root / "meta.json").write_text(wrong)
        with pytest.raises(DatasetError, match="meta.json"):
            NYUv2(root, "val")


def _remove(root, name):
    (root / "train" / name).unlink()


def _move(root, old, new):
    (root / "train" / old).rename(root / "train" / new)


def _store(root, name, change):
    path = root / "train" / name
    np.save(path, change(np.load(path)))


def _spoil_header(path):
    """NumPy reads it as Python, and again without the brackets' end after a SyntaxError."""
    path.write_bytes(path.read_bytes().replace(b"}", b"(", 1))


def _loop(folder):
    shutil.rmtree(folder)
    folder.symlink_to(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: _remove(root, "depth/2.npy"), r"depth: 2.npy missing; expected 0.npy to 4.npy"),
        (lambda root: _remove(root, "label/4.npy"), r"label: 4 files; expected 5"),
        (lambda root: _move(root, "image/4.npy", "image/four.npy"), r"image: stray four.npy"),
        (lambda root: _move(root, "image/4.npy", "image/04.npy"), r"image: stray 04.npy"),
        (lambda root: (root / "train" / "normal" / "notes.txt").write_text(""), r"normal: stray notes.txt"),
        (lambda root: _move(root, "label", "labels"), r"label: no such folder; .*holds depth, image, labels, normal"),
        (lambda root: _store(root, "depth/0.npy", lambda a: a[..., 0]), r"depth/0.npy: shape \[48, 64\]; expected"),
        (lambda root: _store(root, "normal/0.npy", lambda a: a[:40]), r"normal/0.npy: height and width \[40, 64\]"),
        (
            lambda root: _store(root, "image/0.npy", lambda a: (a * 255).astype(np.uint8)),
            r"image/0.npy: dtype uint8; expected a floating type.*divide 8-bit pictures by 255",
        ),
        (lambda root: (root / "train" / "label" / "0.npy").write_bytes(b"no"), r"label/0.npy: cannot be read"),
        (lambda root: _spoil_header(root / "train" / "label" / "0.npy"), r"label/0.npy: cannot be read"),
        (
            lambda root: _loop(root / "train" / "depth"),
            r"depth: cannot be listed",
        ),
    ],
)
def test_construction_names_what_is_wrong(nyuv2, spoil, message):
    spoil(nyuv2)
    with pytest.raises(DatasetError, match=message):
        NYUv2(nyuv2, "train")


def _with(index, value):
    def change(array):
        array[index] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("depth", _with((5, 7), np.nan), r"depth/3.npy: 1 wrong value\(s\), the first nan at \[5, 7, 0\]"),
        ("depth", _with((5, 7), -1), r"depth/3.npy: .* -1.0 at \[5, 7, 0\]; expected depth in metres"),
        ("depth", _with((5, 7), np.inf), r"depth/3.npy: .* inf"),
        ("label", _with((9, 9), 13), r"label/3.npy: .* 13.0 at \[9, 9\]; expected classes 0 to 12"),
        ("label", _with((9, 9), 2.5), r"label/3.npy: .* 2.5"),
        ("image", lambda a: a * 255, r"image/3.npy: .*expected RGB from 0 to 1"),
        ("image", lambda a: a.astype(np.uint8), r"image/3.npy: dtype uint8"),
        ("normal", lambda a: a * 2, r"normal/3.npy: .*unit vectors"),
        ("normal", lambda a: a[:, :40], r"normal/3.npy: height and width \[48, 40\]; expected \[48, 64\]"),
        ("image", lambda a: np.array({}, dtype=object), r"image/3.npy: cannot be read"),
    ],
)
def test_reading_names_what_is_wrong(nyuv2, name, change, message):
    _store(nyuv2, f"{name}/3.npy", change)
    data = NYUv2(nyuv2, "train")
    data[2]
    with pytest.raises(DatasetError, match=message):
        data[3]


def test_arguments_are_checked(nyuv2):
    with pytest.raises(DatasetError, match=r"test: no such folder; .* holds train, val"):
        NYUv2(nyuv2, "test")
    with pytest.raises(DatasetError, match="no such folder"):
        NYUv2(nyuv2 / "elsewhere", "train")
    with pytest.raises(ArgumentError, match="split"):
        NYUv2(nyuv2, "validation")
    with pytest.raises(ArgumentError, match="protocol must be .*, got 'papers'. Did you mean 'paper'"):
        NYUv2(nyuv2, "train", protocol="papers")
    with pytest.raises(IndexError, match="0 to 2"):
        NYUv2(nyuv2, "val")[3]
    with pytest.raises(ArgumentError, match="seed"):
        NYUv2(nyuv2, "val", seed=-1)


@pytest.mark.parametrize("label_dir", ["label_7", "label"])
def test_cityscapes(tmp_path, label_dir):
    samples = dense_samples(3, num_classes=7, disparity=True)
    root = write_cityscapes(tmp_path / "city", {"val": samples}, label_dir=label_dir)
    assert not (root / "val" / "normal").exists()
    data = CityScapes(root, "val", label_dir=label_dir)
    assert data.tasks == (TaskSpec("segmentation", "segmentation", 7), TaskSpec("depth", "depth", 1))
    assert data.class_names == CITYSCAPES_CLASSES
    _, targets = data[1]
    assert list(targets) == ["segmentation", "depth"]
    np.testing.assert_allclose(targets["depth"][0], samples[1].depth, rtol=1e-6)
    assert targets["depth"][0, 20, 20] == 1 / 65536
    with pytest.raises(DatasetError, match=rf"label_19: no such folder; .* holds depth, image, {label_dir}"):
        CityScapes(root, "val", label_dir="label_19", num_classes=19)
    assert CityScapes(root, "val", label_dir=label_dir, num_classes=19).tasks[0].channels == 19


def test_augmentation_is_drawn_from_seed_epoch_and_index(nyuv2):
    def shown(seed, epoch, index):
        data = NYUv2(nyuv2, "train", augment=True, seed=seed)
        data.set_epoch(epoch)
        return data[index][0]

    assert torch.equal(shown(1, 2, 3), shown(1, 2, 3))
    others = [shown(1, 2, 3), shown(2, 2, 3), shown(1, 3, 3), NYUv2(nyuv2, "train")[3][0]]
    assert all(not torch.equal(a, b) for i, a in enumerate(others) for b in others[:i])


@pytest.mark.timeout(60)
def test_running_workers_see_the_epoch(nyuv2):
    data = NYUv2(nyuv2, "train", augment=True)
    loader = DataLoader(data, batch_size=2, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        data.set_epoch(epoch)
        batches = [image for image, _ in loader]
        assert [len(batch) for batch in batches] == [2, 2, 1]
        assert torch.equal(torch.cat(batches), torch.stack([data[index][0] for index in range(5)]))


def test_stored_normals_are_made_unit_vectors_unless_paper(nyuv2):
    _store(nyuv2, "normal/0.npy", lambda a: a * 0.9)
    kept = NYUv2(nyuv2, "train", protocol="paper")[0][1]["normal"].norm(dim=0)
    mended = NYUv2(nyuv2, "train")[0][1]["normal"].norm(dim=0)
    assert set(kept.mul(10).round().unique().tolist()) == {0, 9}
    assert set(mended.mul(10).round().unique().tolist()) == {0, 10}


def test_writers_check_samples_and_touch_nothing_that_exists(tmp_path):
    (sample,) = dense_samples(1)
    write_nyuv2(tmp_path / "set", {"val": [sample]}, meta={"simulated": False})
    assert json.loads((tmp_path / "set" / "meta.json").read_text()) == {"simulated": False}
    with pytest.raises(DatasetError, match=r"val/image: exists already"):
        write_nyuv2(tmp_path / "set", {"val": [sample]})
    with pytest.raises(DatasetError, match=r"label_7/0.npy: .* expected classes 0 to 6"):
        write_cityscapes(tmp_path / "city", {"val": [sample]})
    with pytest.raises(ArgumentError, match="dtype must be a floating type, got .*uint8"):
        write_nyuv2(tmp_path / "bytes", {"val": [sample]}, dtype=np.uint8)
    no_normals = type(sample)(sample.image, sample.label, sample.depth)
    with pytest.raises(DatasetError, match=r"normal/0.npy: the sample has none"):
        write_nyuv2(tmp_path / "none", {"val": [no_normals]})


@pytest.mark.parametrize(("kind", "channels"), [("segmentation", 1), ("depth", 3), ("normal", 1), ("attribute", 2)])
def test_task_specs_hold_together(kind, channels):
    with pytest.raises(ArgumentError, match="task 'it'"):
        TaskSpec("it", kind, channels)
    with pytest.raises(ArgumentError, match="kind of task 'segmantation'. Did you mean 'segmentation'"):
        TaskSpec("it", "segmantation", 2)
