"""Runs as tasks of a Ray cluster: an existing one, or one that is started on this machine."""

from __future__ import annotations

from mtrl_imgrad.extras import require

require("launcher ray", "ray")

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

from mtrl_imgrad.errors import MtrlImgradError
from mtrl_imgrad.experiments.comparisons.launch import Launch
from mtrl_imgrad.experiments.comparisons.plan import Comparison, PlannedRun
from mtrl_imgrad.experiments.comparisons.pool import run_all
from mtrl_imgrad.experiments.comparisons.processes import INTERRUPTED, BrokenOffError, make_run
from mtrl_imgrad.experiments.comparisons.state import LOG


def run_on_ray(
    comparison: Comparison,
    runs: Sequence[PlannedRun],
    launch: Launch,
    console: Console,
    progress_bar: bool,
) -> None:
    """At most ``launch.jobs`` tasks at a time, each where Ray finds what it needs; see `run_all`.

    The cluster is that of ``RAY_ADDRESS``, else one that runs on this machine, else one of this machine alone that ends
    with the comparison. All nodes have the library, and the folder by the same path. A run that loses its node or is
    killed there is tried again, and goes on from its last checkpoint.

    Raises:
        LearningInterruptedError: if a signal stopped it; says how to go on.
        MtrlImgradError: if the cluster cannot be reached.
    """
    folder, cwd = comparison.folder.resolve(), str(Path.cwd())
    threads, gpus = max(1, int(launch.num_cpus)), launch.num_gpus

    # A function inside goes to the nodes whole, without this file and its imports.
    def on_node(name: str, log: str) -> int:
        node = ray.get_runtime_context().get_node_id()
        return make_run(str(folder), name, log, threads, cwd, node, hide_gpus=not gpus)

    with _connected():
        if not _has_room(launch):
            wanted = f"num_cpus={launch.num_cpus:g} and num_gpus={launch.num_gpus:g}"
            console.print(f"no node of the cluster has {wanted}: runs wait until one joins", soft_wrap=True)
        task = ray.remote(on_node).options(
            num_cpus=launch.num_cpus,
            num_gpus=launch.num_gpus,
            max_retries=launch.retries,
            retry_exceptions=[BrokenOffError],
        )

        def start(run: PlannedRun) -> _Task:
            return _Task(task.remote(run.name, str(folder / run.name / LOG)))

        run_all(comparison, runs, launch.jobs, console, progress_bar, start)


@dataclass(frozen=True)
class _Task:
    """A `StartedRun` of a cluster."""

    reference: Any

    def poll(self) -> int | str | None:
        """See `StartedRun`."""
        if not ray.wait([self.reference], timeout=0)[0]:
            return None
        try:
            return int(ray.get(self.reference))
        except ray.exceptions.TaskCancelledError:
            return INTERRUPTED
        except ray.exceptions.RayError as error:
            return f"Ray: {str(error).strip().splitlines()[-1]}"

    def stop(self, at_once: bool) -> None:
        """See `StartedRun`."""
        ray.cancel(self.reference, force=at_once)


@contextmanager
def _connected() -> Iterator[None]:
    """Connected to a cluster; whoever was connected before stays so."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray that we start tells nobody
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise MtrlImgradError(
            f"launcher ray found no cluster (RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}): {error}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _has_room(launch: Launch) -> bool:
    wanted = {"CPU": launch.num_cpus, "GPU": launch.num_gpus}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(all(node.get(name, 0) >= count for name, count in wanted.items()) for node in nodes)
