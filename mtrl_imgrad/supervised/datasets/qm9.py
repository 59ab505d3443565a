"""QM9 (Ramakrishnan et al., Scientific Data 2014): small organic molecules with eleven properties, each a task.

Read from one archive, ``qm9_eV.npz`` as the authors of DimeNet (Klicpera et al., ICLR 2020) distribute it::

    N      [M]             number of atoms of each of the M molecules
    Z      [sum of N]      atomic numbers, molecule after molecule
    R      [sum of N, 3]   positions in angstrom
    mu, alpha, homo, lumo, r2, zpve, U0, U, H, G, Cv   [M]   energies in eV; U0 to G of atomization
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError, DatasetError
from mtrl_imgrad.supervised.datasets.folder import FolderDataset, listing, quoted
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import Count, Seed, checked

QM9_TASKS = ("mu", "alpha", "homo", "lumo", "r2", "zpve", "U0", "U", "H", "G", "Cv")
"""In the order of Nash-MTL's table."""
_IN_MEV = frozenset({"homo", "lumo", "zpve", "U0", "U", "H", "G"})
_OF_ATOMIZATION = ("U0", "U", "H", "G")
FILE = "qm9_eV.npz"
TOTAL_ENERGY = 500.0
"""Atomization takes less than this in eV for every molecule of QM9; a total energy is thousands."""
SHALLOWEST_HOMO = 1.0
"""The highest occupied orbital lies deeper than this in eV in every molecule of QM9; in hartree none does."""


@checked
class QM9(FolderDataset):
    """Molecules; item i is ``(atoms [A, 4], {property: float32 [1]})``.

    A row of ``atoms`` is an atomic number and a position, zeros beyond the molecule's last atom; A is the largest
    molecule's number of atoms (29). Properties have mean 0 and standard deviation 1 over the training molecules;
    ``TaskSpec.scale`` brings an error back to the published tables' unit: debye, bohr^3, meV, bohr^2, cal/(mol K).

    Args:
        root: The folder of ``qm9_eV.npz``; ``~`` is the home folder.
        split: ``"train"``, ``"val"`` or ``"test"``.
        held_out: Molecules for validation, and as many for test; Nash-MTL (Navon et al., ICML 2022) takes 10 000.
        split_seed: Of the draw.

    Raises:
        DatasetError: The file is not as described.
    """

    def __init__(
        self, root: str | os.PathLike[str], split: str, *, held_out: Count = 10_000, split_seed: Seed = 0
    ) -> None:
        super().__init__(root, split)
        path = self.root / FILE
        arrays = _read(path)
        counts = arrays["N"].astype(np.int64)
        if 2 * held_out >= len(counts):
            raise ArgumentError(f"held_out must leave molecules to train on: 2 * {held_out} of {len(counts)}")
        parts = np.split(np.random.default_rng(split_seed).permutation(len(counts)), [held_out, 2 * held_out])
        test, val, train = parts
        self._rows = {"train": train, "val": val, "test": test}[split]
        values = np.stack([arrays[name].reshape(-1) for name in QM9_TASKS], axis=1).astype(np.float64)
        mean, std = values[train].mean(axis=0), values[train].std(axis=0)
        if not (std > 0).all():
            raise DatasetError(f"{path}: {QM9_TASKS[int(np.argmin(std))]} is the same for all training molecules")
        units = [1000.0 if name in _IN_MEV else 1.0 for name in QM9_TASKS]
        self.tasks = tuple(
            TaskSpec(name, "regression", 1, scale=float(s * unit), offset=float(m * unit))
            for name, unit, m, s in zip(QM9_TASKS, units, mean, std, strict=True)
        )
        self._targets = torch.from_numpy((values - mean) / std).float()
        self._counts, self._starts = counts, np.cumsum(counts) - counts
        self._atoms = np.column_stack([arrays["Z"], arrays["R"]]).astype(np.float32)
        self._largest = int(counts.max())

    def __len__(self) -> int:
        return len(self._rows)

    def item(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """See `FolderDataset.item`."""
        row = self._rows[index]
        start, count = self._starts[row], self._counts[row]
        atoms = torch.zeros(self._largest, 4)
        atoms[:count] = torch.from_numpy(self._atoms[start : start + count])
        return atoms, dict(zip(QM9_TASKS, self._targets[row].split(1), strict=True))


def _read(path: Path) -> Mapping[str, NDArray[np.generic]]:
    if not path.is_file():
        raise DatasetError(
            f"{path}: no such file; {path.parent} holds {quoted(listing(path.parent))}; the reader takes the archive "
            "of DimeNet's authors, not the .xyz or .sdf files of the raw download"
        )
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            wanted = ("N", "Z", "R", *QM9_TASKS)
            if missing := [name for name in wanted if name not in archive]:
                raise DatasetError(f"{path}: no {missing[0]}; expected {', '.join(wanted)}")
            arrays = {name: archive[name] for name in wanted}
    except DatasetError:
        raise
    except Exception as error:  # what zip, zlib and numpy raise for damaged bytes has no common base
        raise DatasetError(f"{path}: cannot be read as a NumPy archive ({error})") from error
    _check(path, arrays)
    return arrays


def _check(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in "iuf":
            raise DatasetError(f"{path}: {name} of dtype {array.dtype}; expected numbers")
    for name in ("N", "Z"):
        if arrays[name].ndim != 1:
            raise DatasetError(f"{path}: {name} of shape {list(arrays[name].shape)}; expected one axis")
        numbers = arrays[name].astype(np.float64)
        if not ((numbers >= 1) & (numbers == np.rint(numbers))).all():
            raise DatasetError(f"{path}: {name} holds other values than 1, 2, 3 ...; expected whole numbers from 1")
    molecules, atoms = len(arrays["N"]), int(arrays["N"].astype(np.int64).sum())
    expected = {"Z": (atoms,), "R": (atoms, 3), **dict.fromkeys(QM9_TASKS, (molecules,))}
    for name, shape in expected.items():
        array = arrays[name].reshape(-1) if name in QM9_TASKS else arrays[name]
        if array.shape != shape:
            raise DatasetError(f"{path}: {name} of shape {list(array.shape)}; expected {list(shape)}")
        if not np.isfinite(array.astype(np.float64)).all():
            raise DatasetError(f"{path}: {name} has a value that is not finite")
    if np.median(np.abs(arrays["homo"].astype(np.float64))) < SHALLOWEST_HOMO:
        raise DatasetError(f"{path}: homo is in hartree; expected energies in eV: multiply them by 27.211386")
    for name in _OF_ATOMIZATION:
        if np.median(np.abs(arrays[name].astype(np.float64))) > TOTAL_ENERGY:
            raise DatasetError(
                f"{path}: {name} is a total energy; expected that of atomization: subtract the energies of the atoms"
            )
