"""The command ``mtrl-imgrad supervised`` and what is below it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.options import without_stale_kwargs
from mtrl_imgrad.experiments.presets import list_presets, preset_path
from mtrl_imgrad.experiments.supervised.config import SupervisedConfig, load_config
from mtrl_imgrad.experiments.torchrun import is_first, refuse_torchrun, torchrun_group

__all__ = ["supervised"]


def supervised(arguments: list[str]) -> None:
    """Train on images: NYUv2, CityScapes, CelebA, simulated scenes (also: compare, cotbal, analyse, make-data)."""
    if arguments and arguments[0] in SUBCOMMANDS:
        refuse_torchrun(f"supervised {arguments[0]}")
        SUBCOMMANDS[arguments[0]](arguments[1:])
    elif arguments and not arguments[0].startswith("-"):
        raise ArgumentError(f"supervised has no command {arguments[0]!r}; commands: {', '.join(SUBCOMMANDS)}")
    else:
        _train(arguments)


def _train(arguments: list[str]) -> None:
    from mtrl_imgrad.experiments.supervised.run import resume, train

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--no-progress-bar", action="store_true")
    given, rest = parser.parse_known_args(arguments)
    if given.resume is not None:
        if rest:
            raise ArgumentError(f"--resume takes everything from the run's config.yaml; got {' '.join(rest)} as well")
        with torchrun_group() as group:
            result = resume(given.resume, group=group, progress=not given.no_progress_bar)
    else:
        config = _config(
            rest,
            "mtrl-imgrad supervised",
            "Train one network; commands below this one: compare, cotbal, analyse, make-data.",
        )
        with torchrun_group() as group:
            result = train(config, group=group, progress=not given.no_progress_bar)
    if not is_first():
        return
    console = Console(file=sys.stdout, highlight=False)
    console.print(escape(f"result: {result.how}"), style="bold")
    for task, metrics in list(result.results.items())[:8]:
        console.print(f"  {task}: " + ", ".join(f"{metric} {value:.4g}" for metric, value in metrics.items()))


def _config(arguments: list[str], prog: str, summary: str) -> SupervisedConfig:
    """A configuration from ``--data NAME`` or ``--config FILE`` and the options that change it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data")
    source.add_argument("--config", type=Path)
    given, rest = parser.parse_known_args(arguments)
    asks_for_help = "-h" in rest or "--help" in rest
    if given.data is None and given.config is None and not asks_for_help:
        raise ArgumentError(f"--data NAME ({', '.join(list_presets('supervised'))}) or --config FILE is needed")
    default = SupervisedConfig()
    if given.data is not None or given.config is not None:
        default = load_config(preset_path("supervised", given.data) if given.data is not None else given.config)
    config = tyro.cli(
        SupervisedConfig,
        prog=prog,
        description=(
            f"{summary} --data NAME ({', '.join(list_presets('supervised'))}) takes the data set and its paper's "
            "settings, --config FILE those of a run; both set the defaults of all options below. --no-progress-bar "
            "prints no progress."
        ),
        default=default,
        args=rest,
    )
    return dataclasses.replace(config, method=without_stale_kwargs(config.method, default.method))


def _compare(arguments: list[str]) -> None:
    """Run methods by seeds and print a table with standard errors, beside the published rows."""
    from mtrl_imgrad.experiments.supervised.compare import compare

    parser = argparse.ArgumentParser(prog="mtrl-imgrad supervised compare", add_help=False, allow_abbrev=False)
    parser.add_argument("--methods", nargs="+", default=["stl", "ls", "cagrad", "imgrad"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--no-progress-bar", action="store_true")
    given, rest = parser.parse_known_args(arguments)
    summary = (
        "Run methods by seeds, each run only once. --methods stl ls cagrad imgrad:measure=lm,update_every=4 (a "
        "combiner with its arguments; stl is one network a task), --seeds 0 1 2, --out FOLDER (default: "
        "comparisons/DATA)."
    )
    config = _config(rest, "mtrl-imgrad supervised compare", summary)
    out = given.out or Path("comparisons") / (config.data.simulate or config.data.format)
    compare(config, given.methods, given.seeds, out, progress=not given.no_progress_bar)


def _cotbal(arguments: list[str]) -> None:
    """Make CoTBal's K + 1 runs and its tables, for the combiner cotbal."""
    from mtrl_imgrad.experiments.supervised.cotbal import measure_cotbal

    parser = argparse.ArgumentParser(prog="mtrl-imgrad supervised cotbal", add_help=False, allow_abbrev=False)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--mini", type=float, default=1 / 32)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--no-progress-bar", action="store_true")
    given, rest = parser.parse_known_args(arguments)
    summary = (
        "Make CoTBal's K + 1 runs (mini, and each task + mini), each only once, and its tables. --mini SHARE of the "
        "training images (1/32), --temperature T (1), --out FOLDER (default: cotbal/DATA)."
    )
    config = _config(rest, "mtrl-imgrad supervised cotbal", summary)
    out = given.out or Path("cotbal") / (config.data.simulate or config.data.format)
    progress = not given.no_progress_bar
    measure_cotbal(config, out, mini=given.mini, temperature=given.temperature, progress=progress)


def _analyse(arguments: list[str]) -> None:
    """Draw imbalance, cos theta, Pareto failures and the tasks' progress of finished runs."""
    from mtrl_imgrad.experiments.supervised.analysis import analyse

    parser = argparse.ArgumentParser(prog="mtrl-imgrad supervised analyse", description=_analyse.__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or folders of comparisons")
    parser.add_argument("--out", type=Path, default=Path("analysis"), help="folder for the pictures")
    given = parser.parse_args(arguments)
    analyse(given.runs, given.out)


def _make_data(arguments: list[str]) -> None:
    """Make a folder of simulated scenes with true labels."""
    from mtrl_imgrad.scenes import SCENE_KINDS, make_scenes

    kinds = "; ".join(f"{name}: {words}" for name, words in SCENE_KINDS.items())
    parser = argparse.ArgumentParser(
        prog="mtrl-imgrad supervised make-data", description=_make_data.__doc__, epilog=kinds
    )
    parser.add_argument("kind", choices=SCENE_KINDS)
    parser.add_argument("--root", type=Path, help="folder to make (default: data/KIND)")
    parser.add_argument("--train", type=int, help="scenes for training")
    parser.add_argument("--val", type=int, help="scenes for validation")
    parser.add_argument("--test", type=int, help="scenes for test")
    parser.add_argument("--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--colour", choices=("auto", "gl", "rays"), default="auto")
    given = parser.parse_args(arguments)
    counts = {split: getattr(given, split) for split in ("train", "val", "test") if getattr(given, split) is not None}
    height, width = given.size or (None, None)
    root = make_scenes(
        given.kind,
        given.root or Path("data") / given.kind,
        counts=counts or None,
        height=height,
        width=width,
        seed=given.seed,
        colour=given.colour,
    )
    Console(file=sys.stdout, highlight=False).print(f"{given.kind} scenes are in {escape(str(root))}", soft_wrap=True)


SUBCOMMANDS: dict[str, Callable[[list[str]], None]] = {
    "compare": _compare,
    "cotbal": _cotbal,
    "analyse": _analyse,
    "make-data": _make_data,
}
