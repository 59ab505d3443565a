"""``make bench``: every claim of speed in the docs, measured side by side in one run on one thread."""

from __future__ import annotations

import argparse
import os
import platform

import torch

from benchmarks import (
    checks,
    compiled,
    dropout,
    encoders,
    gradients,
    networks,
    overlap,
    simulators,
    solvers,
    supervised,
    training,
)
from mtrl_imgrad.experiments.versions import installed_versions

PARTS = {
    "training": training.run,
    "gradients": gradients.run,
    "encoders": encoders.run,
    "dropout": dropout.run,
    "checks": checks.run,
    "compiled": compiled.run,
    "solvers": solvers.run,
    "overlap": overlap.run,
    "simulators": simulators.run,
    "supervised": supervised.run,
    "networks": networks.run,
}


def main() -> None:
    """Print a Markdown table for each part."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    torch.set_num_threads(1)
    versions = installed_versions()
    print(f"{platform.platform()}, {os.cpu_count()} cores, one thread;", end=" ")
    print(
        ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "stable_baselines3") if name in versions)
    )
    for part in parser.parse_args().parts:
        print(f"\n{PARTS[part]()}", flush=True)


if __name__ == "__main__":
    main()
