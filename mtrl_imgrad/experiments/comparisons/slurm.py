"""Runs as a job array of Slurm: a script in the comparison's folder, handed to ``sbatch``."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from mtrl_imgrad.errors import MissingDependencyError, MtrlImgradError
from mtrl_imgrad.experiments.comparisons.plan import Comparison, PlannedRun
from mtrl_imgrad.experiments.comparisons.processes import INTERRUPTED
from mtrl_imgrad.reporting.atomic_files import write_text

SCRIPT = "slurm.sh"


def submit(comparison: Comparison, runs: Sequence[PlannedRun], jobs: int, console: Console) -> None:
    """Write ``slurm.sh`` and hand it to ``sbatch``.

    What a job gets (time, memory, partition, account) comes from ``sbatch``'s own variables: ``SBATCH_TIMELIMIT``,
    ``SBATCH_MEM_PER_NODE``, ``SBATCH_PARTITION``, ``SBATCH_ACCOUNT``.
    """
    if not runs:
        return
    path = comparison.folder / SCRIPT
    write_text(path, array_script(comparison.folder, [run.name for run in runs], jobs))
    try:
        done = subprocess.run(["sbatch", str(path)], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MissingDependencyError(f"launcher slurm needs sbatch on the PATH; the script is {path}") from error
    if done.returncode:
        raise MtrlImgradError(f"sbatch refused {path}: {done.stderr.strip()}")
    console.print(escape(f"{done.stdout.strip()}: {len(runs)} runs, {path}"), soft_wrap=True)


def array_script(folder: Path, names: Sequence[str], jobs: int) -> str:
    """A bash script: array task i makes the i-th run.

    Before its time is over Slurm sends SIGTERM: the run saves a checkpoint, and the task asks to be queued again, where
    it goes on.

    Args:
        folder: of the comparison.
        names: of the runs.
        jobs: at a time.
    """
    here = shlex.quote(str(Path.cwd()))
    worker = f"{shlex.quote(sys.executable)} -m mtrl_imgrad.experiments.comparisons.worker"
    threads = os.environ.get("OMP_NUM_THREADS", "${SLURM_CPUS_PER_TASK:-1}")
    return f"""#!/bin/bash
#SBATCH --job-name={shlex.quote(folder.name)}
#SBATCH --array=0-{len(names) - 1}%{jobs}
#SBATCH --output=/dev/null
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
cd {here} || exit 1
export OMP_NUM_THREADS={threads}
runs=({" ".join(shlex.quote(name) for name in names)})
run=${{runs[$SLURM_ARRAY_TASK_ID]}}
folder={shlex.quote(str(folder))}
mkdir -p "$folder/$run"
{worker} "$folder" "$run" >> "$folder/$run/output.log" 2>&1 &
worker=$!
trap 'kill -TERM $worker' TERM
wait $worker; status=$?
# A signal ends the first wait, the second one waits for the checkpoint.
if kill -0 $worker 2> /dev/null; then wait $worker; status=$?; fi
if [ $status = {INTERRUPTED} ] || [ $status = 143 ]; then
    exec scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit $status
"""
