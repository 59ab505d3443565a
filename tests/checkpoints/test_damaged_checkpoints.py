"""Damage is found and named, and no file of a stranger's runs code."""

import hashlib
import json
import os
import pickle
import random
import shutil
import struct

import numpy as np
import pytest
import torch

from mtrl_imgrad.checkpoints.format import MANIFEST, read_checkpoint, write_checkpoint
from mtrl_imgrad.errors import ArgumentError, CheckpointError
from tests.support.checkpoints.saved_states import number_in, save_small

pytestmark = pytest.mark.faults


@pytest.fixture
def folder(tmp_path):
    save_small(tmp_path / "it")
    return tmp_path / "it"


def _member_of(path):
    return MANIFEST if path.name == MANIFEST else f"member {path.name.rpartition('-')[0]!r}"


def _assert_refused(folder, path):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder)
    assert str(folder) in str(caught.value)
    assert _member_of(path) in str(caught.value)


def _damage(folder, draw, rounds):
    files = sorted(folder.iterdir())
    for number in range(rounds):
        path = files[number % len(files)]
        whole = path.read_bytes()
        at = draw.randrange(len(whole))
        if draw.random() < 0.7:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :])
        else:
            path.write_bytes(whole[:at])
        _assert_refused(folder, path)
        path.write_bytes(whole)
    assert number_in(read_checkpoint(folder)) == 1


def test_flipped_bits_and_truncations_are_found_and_named(folder):
    _damage(folder, random.Random(0), 80)


@pytest.mark.slow
def test_a_thousand_flipped_bits_and_truncations(folder):
    _damage(folder, random.Random(1), 1000)


def test_every_missing_or_longer_file_is_named(folder, tmp_path):
    for path in sorted(folder.iterdir()):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        (copy / path.name).unlink()
        _assert_refused(copy, path)
        (copy / path.name).write_bytes(path.read_bytes() + b"\0")
        _assert_refused(copy, path)
        shutil.rmtree(copy)


# ---------------------------------------------------------------------- forged files, hashes and all


def _canonical(plain):
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def _sign(folder, manifest):
    manifest.pop("sha256", None)
    digest = hashlib.sha256(_canonical(manifest)).hexdigest()
    (folder / MANIFEST).write_bytes(_canonical({**manifest, "sha256": digest}))


def _forge(folder, name, content, file=None):
    """Put ``content`` in a member's place as somebody would who knows the format; an array as in version 1."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["version"] = 2 if name in ("state", "tensors") else 1
    suffix = {"state": ".json", "tensors": ".safetensors"}.get(name, ".npy")
    digest = hashlib.sha256(content).hexdigest()
    file = file or f"{name}-{digest[:16]}{suffix}"
    manifest["members"][name] = {"file": file, "bytes": len(content), "sha256": digest}
    target = folder / file
    if not target.exists():
        target.write_bytes(content)
    _sign(folder, manifest)
    return target


class _Bomb:
    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _pickled_bomb(tmp_path):
    bomb = _Bomb()
    bomb.path = tmp_path / "exploded"
    return pickle.dumps(bomb)


def _npy(header, content=b""):
    text = header.encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def test_a_forgery_that_is_well_formed_loads(folder):
    # Else the tests below would refuse for the wrong reason.
    _forge(folder, "replay_rows", _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }", b"\0\0\x80\x3f"))
    state = read_checkpoint(folder)
    assert number_in(state) == 1
    assert state["arrays"]["replay_rows"].tolist() == [[1]]


def test_arrays_are_of_version_1_only(folder):
    _forge(folder, "replay_rows", _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }", b"\0\0\x80\x3f"))
    manifest = json.loads((folder / MANIFEST).read_bytes())
    _sign(folder, {**manifest, "version": 2})
    _assert_refused(folder, folder / MANIFEST)


@pytest.mark.parametrize("name", ["state", "tensors", "replay_rows", "other"])
def test_a_pickle_as_a_member_is_not_run(folder, name, tmp_path):
    _assert_refused(folder, _forge(folder, name, _pickled_bomb(tmp_path)))
    assert not (tmp_path / "exploded").exists()


def test_an_array_of_pickled_objects_is_not_run(folder, tmp_path):
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    _assert_refused(folder, _forge(folder, "replay_rows", _npy(header, _pickled_bomb(tmp_path))))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1), }",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1), }",
        "{'descr': '<U1', 'fortran_order': False, 'shape': (1, 1), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), 'more': 1}",
        "__import__('os').getcwd()",
        "((" * 3000,
        "",
    ],
)
def test_headers_of_arrays(folder, header):
    _assert_refused(folder, _forge(folder, "replay_rows", _npy(header, b"\0\0\x80\x3f")))


def _safetensors(header):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**62) + b"{}",
        _safetensors({"/a": {"dtype": "F32", "shape": [10**12, 10**6], "data_offsets": [0, 4]}}) + b"\0" * 4,
        _safetensors({"/a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        _safetensors({"/a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}) + b"\0" * 4,
        _safetensors({}),
        b"",
    ],
)
def test_headers_of_tensors(folder, content):
    forged = _forge(folder, "tensors", content)
    with pytest.raises(CheckpointError, match="member '(tensors|state)'"):
        read_checkpoint(folder)
    assert forged.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b'{"number": NaN}',
        b'{"number": ' + b"9" * 10_000 + b"}",
        b"[1, 2]",
        b'{"a": {"$tensor": "nowhere"}}',
        b'{"a": {"$tensor": []}}',
        b'{"a": {"$code": "1"}}',
        b'{"a": {"$float": "1"}}',
        b'{"a": {"$tuple": [], "b": 1}}',
        b'{"a": {"$integers": {"x": 1}}}',
        b"{}",
        b"\xff\xfe",
    ],
)
def test_states(folder, content):
    _assert_refused(folder, _forge(folder, "state", content))


@pytest.mark.parametrize("file", ["../outside.npy", "/etc/passwd", "sub/rows.npy", "..", ".", "", "rows\0.npy"])
def test_a_member_outside_the_folder_is_not_read(folder, file, tmp_path):
    (tmp_path / "outside.npy").write_bytes(b"secret")
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["members"]["tensors"]["file"] = file
    _sign(folder, manifest)
    with pytest.raises(CheckpointError, match=r"manifest.json has member 'tensors'"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["../x", "a/b", "A", "", "x" * 100, "$x"])
def test_names_of_members(folder, name):
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["members"][name] = manifest["members"]["tensors"]
    _sign(folder, {**manifest, "version": 1})
    with pytest.raises(CheckpointError, match=r"manifest.json has a malformed entry"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("key", "value"), [("bytes", -1), ("bytes", 1.0), ("bytes", True), ("bytes", "1"), ("sha256", "x"), ("sha256", 1)]
)
def test_entries_of_members(folder, key, value):
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["members"]["state"][key] = value
    _sign(folder, manifest)
    with pytest.raises(CheckpointError, match=r"manifest.json has a malformed entry for member 'state'"):
        read_checkpoint(folder)


def test_links_pipes_and_folders_are_not_read(folder, tmp_path):
    path = next(path for path in folder.iterdir() if path.name.startswith("state"))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    _assert_refused(folder, path)
    path.unlink()
    os.mkfifo(path)
    _assert_refused(folder, path)
    path.unlink()
    path.mkdir()
    _assert_refused(folder, path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "zip"},
        {"version": 3},
        {"version": 0},
        {"version": True},
        {"version": 1.0},
        {"members": []},
        {"members": {}},
    ],
)
def test_other_formats_are_refused(folder, change):
    manifest = json.loads((folder / MANIFEST).read_bytes())
    _sign(folder, {**manifest, **change})
    _assert_refused(folder, folder / MANIFEST)


def test_a_newer_format_asks_for_an_upgrade(folder):
    manifest = json.loads((folder / MANIFEST).read_bytes())
    _sign(folder, {**manifest, "version": 3})
    with pytest.raises(
        CheckpointError, match="version 3 of the format; 1 to 2 expected: a newer mtrl-imgrad wrote it, upgrade"
    ):
        read_checkpoint(folder)


def test_a_folder_without_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"manifest\.json cannot be read"):
        read_checkpoint(tmp_path)


# ---------------------------------------------------------------------- what is not written


def test_nothing_is_written_over_other_peoples_files(tmp_path):
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(CheckpointError, match=r"thesis\.tex"):
        save_small(tmp_path)
    with pytest.raises(CheckpointError, match="a file of this name"):
        save_small(tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_checkpoint_cannot_hold_is_named_and_nothing_is_written(tmp_path):
    with pytest.raises(ArgumentError, match="/a/1 is a object"):
        write_checkpoint(tmp_path / "it", {"a": [1, object()]})
    with pytest.raises(ArgumentError, match="/rows"):
        write_checkpoint(tmp_path / "it", {"rows": np.array([object()])})
    assert not (tmp_path / "it").exists()


def test_saving_again_leaves_no_old_members(folder):
    assert len(save_small(folder, number=2)) == len(save_small(folder, number=3)) == 3
    assert number_in(read_checkpoint(folder)) == 3


def test_tensors_that_share_their_memory_come_back_as_two(tmp_path):
    both = torch.arange(6.0)
    write_checkpoint(tmp_path / "it", {"a": both, "b": both[::2], "c": both[3:], "d": both.numpy()[3:]})
    state = read_checkpoint(tmp_path / "it")
    assert [value.tolist() for value in state.values()] == [[0, 1, 2, 3, 4, 5], [0, 2, 4], [3, 4, 5], [3, 4, 5]]
    state["a"].zero_()
    assert state["c"].tolist() == [3, 4, 5]
