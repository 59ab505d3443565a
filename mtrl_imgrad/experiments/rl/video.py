"""Film the agent of a run: an episode of a task, or of all tasks side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.markup import escape

from mtrl_imgrad.agents.registry import Agent
from mtrl_imgrad.envs.registry import find_backends, resolve_tasks
from mtrl_imgrad.envs.success import success_of
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.experiments.rl.evaluate import load_run
from mtrl_imgrad.experiments.rl.own_tasks import find_tasks
from mtrl_imgrad.experiments.rl.train import make_eval_env
from mtrl_imgrad.experiments.rl.views import View, prepare_rendering, view_of
from mtrl_imgrad.reporting.films import Frame, caption, check_film_path, save_film, tile
from mtrl_imgrad.reporting.progress import counting_bar
from mtrl_imgrad.validation import Count, Positive, checked

ALL = "all"
AFTERWARDS = 10
"""Frames that go on after a success with ``until_success``."""


@checked
def film_run(
    run: Path,
    out: Path,
    task: str = ALL,
    *,
    camera: str | None = None,
    model: str = "model",
    seed: int | None = None,
    size: Count = 240,
    every: Count = 4,
    fps: Positive = 20.0,
    until_success: bool = False,
    console: Console | None = None,
) -> Path:
    """Film an episode of a run's agent, with the goals of the run's evaluations, acting by the mean of its policy.

    Args:
        run: run folder of `train`.
        out: ends in ``.mp4`` or ``.gif``.
        task: a task of the run, or ``"all"`` for all side by side.
        camera: of Meta-World: ``"corner2"`` (default), ``"corner"``, ``"corner3"``, ``"corner4"``, ``"topview"``,
            ``"behindGripper"``, ``"gripperPOV"``.
        model: ``"model"`` or ``"best_model"``.
        seed: of the goals; None takes that of the run's evaluations.
        size: pixels of a task's picture, even.
        every: environment steps between two frames. Meta-World takes 80 steps a second, so 4 at 20 frames a second is
            its real time.
        fps: frames a second.
        until_success: a task's film ends soon after its success; else it goes on to the end of the episode.
        console: where to print.

    Returns:
        The path of the film.

    Raises:
        ArgumentError: if the folder holds no such run or model, or ``out`` ends otherwise.
        UnknownNameError: if the run has no such task, or the simulator no such camera.
        MissingDependencyError: if nothing renders here, or the encoder is missing; says what to install.
    """
    console = console or Console(highlight=False)
    check_film_path(out)
    if size % 2:
        raise ArgumentError(f"size must be even, as video encoders want, got {size}")
    config, load = load_run(run, model)
    given = find_tasks(config.env.env)
    own = isinstance(given, dict)
    tasks = list(given) if isinstance(given, dict) else resolve_tasks(given)
    if task not in (ALL, *tasks):
        raise UnknownNameError("task of this run", task, [ALL, *tasks])
    # The reference, which has pictures where another simulator trains without.
    backend = None if own else find_backends(tasks)[0].name
    if backend == "metaworld":
        prepare_rendering()
    with contextlib.closing(make_eval_env(config, seed, backend, "rgb_array" if own else None)) as env:
        rows = [env.task_names.index(name) * env.num_envs_per_task for name in (tasks if task == ALL else [task])]
        with contextlib.closing(view_of(env, camera, size)) as view:
            frames, done = film(load(), env, view, rows, every=every, until_success=until_success)
        console.print(escape(f"seed {env.initial_seed} on {env.backend}; success: {', '.join(done) or 'none'}"))
    path = save_film(out, frames, fps)
    console.print(escape(f"{len(frames)} frames in {path}"), soft_wrap=True)
    return path


@dataclass
class _Scene:
    """One task while it is filmed."""

    name: str
    frame: Frame | None = None
    step: int = 0
    success: bool = False
    ended: bool = False
    left: int = field(default=AFTERWARDS)


def film(
    agent: Agent, env: MultiTaskVecEnv, view: View, rows: Sequence[int], *, every: int, until_success: bool
) -> tuple[list[Frame], list[str]]:
    """An episode of each row, side by side; one that has ended stands still.

    Returns:
        Frames, and the names of the tasks that succeeded.
    """
    scenes = {row: _Scene(env.task_names[env.task_ids[row]]) for row in rows}
    observations: Any = env.reset()
    frames = [_draw(scenes, view, observations, 0)]
    step = 0
    with counting_bar("steps", env.horizon, True) as advance:
        while not all(scene.ended for scene in scenes.values()):
            actions, _ = agent.predict(observations, deterministic=True)
            observations, _, dones, infos = env.step(actions)
            step += 1
            advance(1)
            for row, scene in scenes.items():
                scene.success |= not scene.ended and bool(success_of(infos[row]))
                scene.ended |= bool(dones[row])  # what is seen now is the next episode
            if step % every == 0:
                frames.append(_draw(scenes, view, observations, step))
                for scene in scenes.values():
                    scene.left -= scene.success
                    scene.ended |= until_success and scene.left <= 0
    return frames, [scene.name for scene in scenes.values() if scene.success]


def _draw(scenes: dict[int, _Scene], view: View, observations: npt.NDArray[np.float32], step: int) -> Frame:
    running = [row for row, scene in scenes.items() if not scene.ended or scene.frame is None]
    for row, picture in zip(running, view.render(observations, running), strict=True):
        scenes[row].frame = picture
        scenes[row].step = step
    return tile([_captioned(scene) for scene in scenes.values()])


def _captioned(scene: _Scene) -> Frame:
    assert scene.frame is not None
    return caption(scene.frame, scene.name, "success" if scene.success else str(scene.step), done=scene.success)
