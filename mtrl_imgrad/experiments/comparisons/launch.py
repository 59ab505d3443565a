"""The place where the runs of a comparison are made, as options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import NonNegative, NonNegativeInt, checked

Launcher = Literal["local", "ray", "slurm"]


@checked
@dataclass(frozen=True)
class Launch:
    """The place where the runs of a comparison are made, and their number at a time.

    Raises:
        ArgumentError: if an option is out of range, or not one of the launcher's.
    """

    jobs: NonNegativeInt = 1
    """Runs at a time; 0 runs one after the other in this process."""
    launcher: Launcher = "local"
    """Processes of this machine, tasks of a Ray cluster, or a job array of Slurm."""
    num_cpus: NonNegative = 1.0
    """Launcher ray: cores of a run, and threads of its numerical libraries."""
    num_gpus: NonNegative = 0.0
    """Launcher ray: GPUs of a run; a fraction shares one; 0 hides them."""
    retries: NonNegativeInt = 3
    """Launcher ray: times that a run that lost its node, or was killed there, goes on from its last checkpoint."""

    def __post_init__(self) -> None:
        if self.launcher != "local" and self.jobs < 1:
            raise ArgumentError(f"jobs must be 1 or more with launcher {self.launcher}, got {self.jobs}")
        if self.launcher != "ray" and (self.num_cpus, self.num_gpus, self.retries) != (1.0, 0.0, 3):
            raise ArgumentError(f"num_cpus, num_gpus and retries are for launcher ray, not for {self.launcher}")
