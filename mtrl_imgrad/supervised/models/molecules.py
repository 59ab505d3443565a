"""A network for molecules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.models.base import FeatureModel
from mtrl_imgrad.supervised.models.layers import VectorHead, scaled
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec

_CHANNELS = 64
_ROUNDS = 3
_CENTRES, _FARTHEST = 25, 10.0
"""Gaussians over the distance of two atoms, in angstrom."""
_ELEMENTS = 119
_USUAL_ATOMS = 18
"""Atoms of a molecule of QM9, on average."""


class MoleculeNet(FeatureModel):
    """Continuous-filter convolutions over all pairs of atoms (Schuett et al., SchNet, NeurIPS 2017, 1706.08566).

    Sees atomic numbers and distances only, so that turning, moving or renumbering a molecule changes nothing. Ours in
    size: three rounds of 64 channels; the published tables on QM9 are of another network (Gilmer et al., ICML 2017).

    Args:
        tasks: of whole molecules.
        width: multiplies the number of channels.
        protocol: makes no difference here.
    """

    name = "molecule_net"
    dense_tasks = False

    def __init__(self, tasks: Sequence[TaskSpec], width: float = 1.0, protocol: Protocol = "fixed") -> None:
        super().__init__(tasks, protocol)
        (channels,) = scaled([_CHANNELS], width)
        self.embedding = nn.Embedding(_ELEMENTS, channels)
        self.rounds = nn.ModuleList(_Round(channels) for _ in range(_ROUNDS))
        self.readout = nn.Sequential(nn.Linear(2 * channels, channels), nn.SiLU())
        self.task_heads = nn.ModuleList(VectorHead(channels, task, protocol) for task in self.tasks)
        self.register_buffer("centres", torch.linspace(0, _FARTHEST, _CENTRES), persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """The representation ``[B, 64 * width]`` of molecules ``[B, A, 4]``: atomic number and position, 0 for no atom.

        Raises:
            ArgumentError: if the molecules are not ``[B, A, 4]``.
        """
        if images.ndim != 3 or images.shape[2] != 4:
            raise ArgumentError(f"molecules must be [B, A, 4], got {list(images.shape)}")
        numbers, positions = images[..., 0].long(), images[..., 1:]
        there = numbers > 0
        pairs = there[:, :, None] & there[:, None, :] & ~torch.eye(numbers.shape[1], device=images.device).bool()
        offsets = positions[:, :, None] - positions[:, None, :]
        distance = torch.linalg.vector_norm(offsets, dim=-1, keepdim=True)
        spread = _FARTHEST / (_CENTRES - 1)
        basis = torch.exp(-(((distance - self.centres) / spread) ** 2) / 2)
        atoms = self.embedding(numbers)
        for one in self.rounds:
            atoms = one(atoms, basis, pairs)
        atoms = atoms * there[..., None]
        total = atoms.sum(dim=1)
        return self.readout(torch.cat([total / there.sum(dim=1, keepdim=True), total / _USUAL_ATOMS], dim=1))


class _Round(nn.Module):
    """Every atom adds up what the others tell it, weighted by filters of their distance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filters = nn.Sequential(nn.Linear(_CENTRES, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.message = nn.Linear(channels, channels, bias=False)
        self.update = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, atoms: Tensor, basis: Tensor, pairs: Tensor) -> Tensor:
        """Atoms ``[B, A, C]`` from atoms, distances ``[B, A, A, centres]`` and who sees whom ``[B, A, A]``."""
        weights = self.filters(basis) * pairs[..., None]
        return atoms + self.update((weights * self.message(atoms)[:, None]).sum(dim=2))
