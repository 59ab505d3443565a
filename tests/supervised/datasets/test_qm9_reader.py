"""QM9 from an archive with the keys of the published one."""

import numpy as np
import pytest
import torch

from mtrl_imgrad.errors import ArgumentError, DatasetError
from mtrl_imgrad.supervised.datasets import QM9, QM9_TASKS
from mtrl_imgrad.supervised.models import make_model
from mtrl_imgrad.supervised.objectives import make_metric
from tests.support.supervised.small_folders import molecules


@pytest.fixture
def root(tmp_path):
    np.savez(tmp_path / "qm9_eV.npz", **molecules())
    return tmp_path


def test_items_are_the_archives_molecules_and_standardized_properties(root):
    arrays = molecules()
    parts = {split: QM9(root, split, held_out=6) for split in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [18, 6, 6]
    assert sorted(np.concatenate([part._rows for part in parts.values()]).tolist()) == list(range(30))
    values = np.stack([arrays[name] for name in QM9_TASKS], 1)
    starts = np.cumsum(arrays["N"]) - arrays["N"]
    train = values[parts["train"]._rows]
    for part in parts.values():
        for item, row in zip((part[i] for i in range(len(part))), part._rows, strict=True):
            atoms, targets = item
            n = arrays["N"][row]
            assert atoms.shape == (arrays["N"].max(), 4)
            assert not atoms[n:].any()
            np.testing.assert_array_equal(atoms[:n, 0], arrays["Z"][starts[row] : starts[row] + n])
            np.testing.assert_allclose(atoms[:n, 1:], arrays["R"][starts[row] : starts[row] + n], rtol=1e-6)
            for k, task in enumerate(part.tasks):
                unit = 1000 if task.name in ("homo", "lumo", "zpve", "U0", "U", "H", "G") else 1
                back = float(targets[task.name]) * task.scale + task.offset
                assert back == pytest.approx(unit * values[row, k], rel=1e-4, abs=1e-3)
                assert task.scale == pytest.approx(unit * train[:, k].std())


def test_the_error_is_in_the_unit_of_the_tables(root):
    task = QM9(root, "val", held_out=6).tasks[2]
    metric = make_metric(task)
    metric.update(torch.zeros(2, 1), torch.tensor([[0.5], [-1.5]]))
    assert metric.compute()["mae"] == pytest.approx(task.scale)  # one standard deviation, in meV


def test_the_network_does_not_see_how_a_molecule_lies_or_is_numbered(root):
    part = QM9(root, "train", held_out=6)
    atoms = torch.stack([part[i][0] for i in range(4)]).double()
    torch.manual_seed(0)
    model = make_model("molecule_net", part.tasks, width=0.25).double()
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    there = atoms[..., :1] > 0
    moved = torch.cat([atoms[..., :1], there * (atoms[..., 1:] @ turn.T + 3.0)], dim=-1)
    padded = torch.cat([moved.flip(1), torch.zeros(4, 2, 4, dtype=torch.float64)], dim=1)
    for name, prediction in model(atoms).items():
        assert prediction.shape == (4, 1)
        torch.testing.assert_close(model(padded)[name], prediction)
    heavier = torch.cat([atoms[..., :1] + there, atoms[..., 1:]], dim=-1)
    assert not torch.allclose(model(heavier)["mu"], model(atoms)["mu"])
    with pytest.raises(ArgumentError, match=r"molecules must be \[B, A, 4\], got \[1, 3, 8, 8\]"):
        model(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"homo": None}, r"no homo; expected N, Z, R, mu"),
        ({"R": np.zeros((3, 3))}, r"R of shape \[3, 3\]; expected"),
        ({"mu": np.full(30, np.nan)}, "mu has a value that is not finite"),
        ({"U0": np.full(30, -11178.0)}, "U0 is a total energy; expected that of atomization: subtract"),
        ({"mu": np.ones(30)}, "mu is the same for all training molecules"),
        ({"homo": np.linspace(-0.3, -0.2, 30)}, "homo is in hartree; expected energies in eV: multiply them by 27.2"),
        ({"N": molecules()["N"][:, None]}, r"N of shape \[30, 1\]; expected one axis"),
        ({"N": molecules()["N"] + 0.4}, "N holds other values than 1, 2, 3"),
        ({"N": np.where(np.arange(30) == 7, -3, molecules()["N"])}, "N holds other values than 1, 2, 3"),
        ({"Z": molecules()["Z"] * 0}, "Z holds other values than 1, 2, 3"),
        ({"mu": molecules()["mu"].astype(str)}, "mu of dtype .*; expected numbers"),
    ],
)
def test_wrong_archives_are_refused(tmp_path, change, message):
    arrays = {name: value for name, value in (molecules() | change).items() if value is not None}
    np.savez(tmp_path / "qm9_eV.npz", **arrays)
    with pytest.raises(DatasetError, match=message):
        QM9(tmp_path, "train", held_out=6)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_archive_is_named(tmp_path, compressed):
    path = tmp_path / "qm9_eV.npz"
    (np.savez_compressed if compressed else np.savez)(path, **molecules())
    whole = path.read_bytes()
    middle = len(whole) // 3
    for damaged in (b"", whole[:middle], whole[:middle] + bytes(64) + whole[middle + 64 :]):
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"qm9_eV.npz: cannot be read as a NumPy archive"):
            QM9(tmp_path, "train", held_out=6)


def test_other_downloads_and_too_few_molecules_are_refused(root, tmp_path):
    with pytest.raises(ArgumentError, match=r"held_out must leave molecules to train on: 2 \* 10000 of 30"):
        QM9(root, "train")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "gdb9.sdf").touch()
    with pytest.raises(DatasetError, match=r"holds gdb9.sdf; the reader takes the archive"):
        QM9(tmp_path / "raw", "train")
