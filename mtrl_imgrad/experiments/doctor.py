"""``mtrl-imgrad doctor``: what is installed and what works, for a new machine and for bug reports."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.envs.registry import Backend, find_backends, list_backends, list_tasks
from mtrl_imgrad.errors import MissingDependencyError
from mtrl_imgrad.experiments.versions import installed_versions, relevant_packages
from mtrl_imgrad.extras import PACKAGES, install_command
from mtrl_imgrad.reporting.narrow import NARROW, print_item

RENDER_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='.1'/></worldbody></mujoco>")
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(mujoco.MjData(model))
renderer.render()
"""
"""Run in a process of its own: the GL back-end is chosen at mujoco's first import, and a bad one may abort."""


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        subject: what was looked at.
        works: True, False, or None where it is optional and absent.
        result: what was found.
        advice: what to do, if anything.
    """

    subject: str
    works: bool | None
    result: str
    advice: str = ""


@dataclass(frozen=True)
class Doctor:
    """Options of ``doctor``: none."""

    def __call__(self) -> None:
        """Print the diagnosis."""
        print_diagnosis()


def diagnose() -> list[Finding]:
    """Look at packages, cluster, device, simulators and rendering."""
    return [*_packages(), _cluster(), _device(), *_simulators(), _rendering(), _solver()]


def print_diagnosis() -> None:
    """Print `diagnose` as a table."""
    console = Console(highlight=False)
    if console.width < NARROW:
        for finding in diagnose():
            mark = {True: "ok", False: "no", None: "--"}[finding.works]
            print_item(console, f"{mark}  {finding.subject}", finding.result, finding.advice)
        return
    table = Table("", "what", "found", "what to do", box=None, pad_edge=False)
    for finding in diagnose():
        mark = {True: "[green]ok[/]", False: "[red]no[/]", None: "[yellow]--[/]"}[finding.works]
        table.add_row(mark, *(escape(text) for text in (finding.subject, finding.result, finding.advice)))
    console.print(table)


def _packages() -> list[Finding]:
    versions = installed_versions()
    findings = [Finding("python", True, f"{versions['python']} on {platform.platform()}, {os.cpu_count()} cores")]
    backends = {backend.package: backend.install_command for backend in list_backends() if backend.package}
    modules = {name: module for module, (name, _) in PACKAGES.items()} | {module: module for module in PACKAGES}
    for name in relevant_packages():
        if name in versions:
            findings.append(Finding(name, True, versions[name]))
        else:
            command = install_command(modules[name]) if name in modules else backends.get(name, f"pip install {name}")
            findings.append(Finding(name, None, "not installed", command))
    return findings


def _cluster() -> Finding:
    if find_spec("ray") is None:
        return Finding("ray", None, "not installed: no --launcher ray", install_command("ray"))
    address = os.environ.get("RAY_ADDRESS")
    where = f"the cluster at {address}" if address else "no RAY_ADDRESS: the cluster of this machine, or a new one"
    return Finding("ray", True, f"{metadata.version('ray')}, {where}")


def _device() -> Finding:
    threads = torch.get_num_threads()
    if not torch.cuda.is_available():
        advice = "small networks are often fastest with --torch-threads 1" if threads > 1 else ""
        return Finding("device", True, f"cpu, {threads} PyTorch threads (no CUDA device)", advice)
    properties = torch.cuda.get_device_properties(0)
    return Finding("device", True, f"cuda: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")


def _simulators() -> list[Finding]:
    backends = [backend for backend in list_backends() if backend.tasks]
    findings = [_steps(backend) for backend in backends]
    working = [backend.name for backend, finding in zip(backends, findings, strict=True) if finding.works]
    auto = [backend.name for backend in find_backends(list_tasks("MT10")) if backend.name in working]
    text = f"trains MT10 on {auto[-1]}" if auto else "no simulator steps MT10"
    works = bool(auto) or (None if all(finding.works is None for finding in findings) else False)
    return [*findings, Finding("backend='auto'", works, text)]


def _steps(backend: Backend) -> Finding:
    """Whether a back-end steps its first task."""
    task = backend.tasks[0]

    def probe() -> str:
        env = make_vec_env(task, backend=backend.name)
        env.reset()
        env.step(np.stack([env.action_space.sample() for _ in range(env.num_envs)]))
        env.close()
        return f"{task} steps"

    if backend.install and not backend.is_installed:
        return Finding(f"simulator {backend.name}", None, "not installed", backend.install_command)
    return _attempt(f"simulator {backend.name}", probe)


def _rendering() -> Finding:
    chosen = os.environ.get("MUJOCO_GL", "unset")
    command = [sys.executable, "-c", RENDER_PROBE]
    try:
        probe = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return Finding("rendering", None, f"MUJOCO_GL {chosen}: no image after 60 s")
    if probe.returncode == 0:
        return Finding("rendering", True, f"MUJOCO_GL {chosen}: an image was rendered")
    # The first exception is the cause; mujoco's destructor raises another one after it.
    errors = [line for line in probe.stderr.splitlines() if re.match(r"[\w.]+(Error|Exception): ", line)]
    reason = errors[0] if errors else f"the process ended with {probe.returncode}"
    advice = "only for images: set MUJOCO_GL=egl, or osmesa (Debian: libosmesa6), before starting Python"
    return Finding("rendering", None, f"MUJOCO_GL {chosen}: {reason}", advice)


def _solver() -> Finding:
    def probe() -> str:
        from mtrl_imgrad.combiners import make_combiner

        gradients = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, -1.0]])
        answer = make_combiner("imgrad")(gradients)
        return f"IMGrad: {answer.status.name.lower()}, residual {float(answer.residual):.0e}"

    return _attempt("combiners", probe)


def _attempt(subject: str, probe: Callable[[], str]) -> Finding:
    """A finding from a probe that may fail in any way: the failure is the finding."""
    try:
        return Finding(subject, True, probe())
    except MissingDependencyError as error:
        return Finding(subject, None, str(error))
    except Exception as error:
        return Finding(subject, False, f"{type(error).__name__}: {error}")
