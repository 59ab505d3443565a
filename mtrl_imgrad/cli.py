"""The command line: ``mtrl-imgrad train | evaluate | supervised | toy | combiners | presets | doctor``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from mtrl_imgrad.errors import ArgumentError, LearningInterruptedError, MtrlImgradError
from mtrl_imgrad.experiments.torchrun import refuse_torchrun

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``mtrl-imgrad``; returns the exit status.

    An error of the library's own is printed as one line and exits with 1; anything else is a bug and keeps its
    traceback.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    summaries = (f"  {name:<10} {(run.__doc__ or '').splitlines()[0]}" for name, run in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="mtrl-imgrad",
        description="Train one agent on many tasks. `mtrl-imgrad COMMAND --help` lists a command's options.",
        epilog="\n".join(summaries),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    command = parser.parse_args(arguments[:1]).command
    try:
        if command != "supervised":
            refuse_torchrun(command)
        COMMANDS[command](arguments[1:])
    except LearningInterruptedError as error:
        print(error, file=sys.stderr)
        return 128 + error.number
    except MtrlImgradError as error:
        console = Console(stderr=True, highlight=False)
        console.print(f"[bold red]{type(error).__name__}:[/] {escape(str(error))}", soft_wrap=True)
        for note in getattr(error, "__notes__", []):
            console.print(escape(note), soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _train(arguments: list[str]) -> None:
    """Train an agent (--preset NAME or --config FILE set the defaults of all other options)."""
    from mtrl_imgrad.experiments.options import without_stale_kwargs
    from mtrl_imgrad.experiments.presets import list_presets, preset_path
    from mtrl_imgrad.experiments.rl.config import load_config, train_config_class
    from mtrl_imgrad.experiments.rl.train import resume, train

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--preset")
    source.add_argument("--config")
    source.add_argument("--resume", type=Path)
    parser.add_argument("--no-progress-bar", action="store_true")
    parser.add_argument("--agent")
    given, rest = parser.parse_known_args(arguments)
    if given.resume is not None:
        if rest or given.agent is not None:
            raise ArgumentError(f"a run goes on as it began: --resume RUN takes no other options, got {' '.join(rest)}")
        resume(given.resume, progress_bar=not given.no_progress_bar)
        return
    default = train_config_class(given.agent or "mtsac")()
    if given.preset is not None:
        default = load_config(preset_path("rl", given.preset))
    elif given.config is not None:
        default = load_config(given.config)
    if given.agent is not None:
        rest = [*rest, "--agent", given.agent]  # refused by tyro where the preset is another agent's
    config = tyro.cli(
        type(default),
        prog="mtrl-imgrad train",
        description=(
            f"Train an agent. --preset NAME ({', '.join(list_presets('rl'))}) or --config FILE (a run's config.yaml) "
            "sets the defaults of all options below; --resume RUN goes on with a run that was interrupted, from its "
            "latest checkpoint; --no-progress-bar prints no progress; "
            "--agent mtppo lists the options of the other agent."
        ),
        default=default,
        args=rest,
    )
    agent = without_stale_kwargs(config.agent, default.agent)
    train(dataclasses.replace(config, agent=agent), progress_bar=not given.no_progress_bar)


@dataclass(frozen=True)
class _Evaluate:
    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    episodes: int = 50
    """Episodes of each task."""
    model: Literal["model", "best_model"] = "model"
    """The model at the end, or the best by success while training."""
    seed: int | None = None
    """Seed of the evaluation's goals; None takes new ones for best_model, the run's own for model."""
    backend: Literal["metaworld", "envpool", "toy", "auto"] | None = None
    """Simulator back-end; None takes that of the run's own evaluations."""
    stochastic: bool = False
    """Sample actions in place of taking the mean."""


def _evaluate(arguments: list[str]) -> None:
    """Evaluate the agent of a run folder, per task, and keep the report there."""
    from mtrl_imgrad.experiments.rl.evaluate import evaluate_run

    options = tyro.cli(_Evaluate, prog="mtrl-imgrad evaluate", description=_evaluate.__doc__, args=arguments)
    evaluate_run(
        options.run,
        episodes=options.episodes,
        model=options.model,
        seed=options.seed,
        backend=options.backend,
        deterministic=not options.stochastic,
    )


def _supervised(arguments: list[str]) -> None:
    """Train on images, compare methods, draw analyses (mtrl-imgrad supervised --help)."""
    from mtrl_imgrad.experiments.supervised.commands import supervised

    supervised(arguments)


def _toy(arguments: list[str]) -> None:
    """Follow methods over the two-objective landscape of CAGrad, Nash-MTL and IMGrad; draw and count."""
    from mtrl_imgrad.experiments.synthetic import ToyConfig, run_toy

    run_toy(tyro.cli(ToyConfig, prog="mtrl-imgrad toy", description=_toy.__doc__, args=arguments))


def _combiners(arguments: list[str]) -> None:
    """List the combiners: what a step needs and keeps, and the paper; or say all of one (combiners NAME)."""
    from mtrl_imgrad.experiments.catalogue import print_combiner, print_combiners

    parser = argparse.ArgumentParser(prog="mtrl-imgrad combiners", description=_combiners.__doc__)
    parser.add_argument("name", nargs="?", help="a combiner, to be told all of it")
    name = parser.parse_args(arguments).name
    console = Console(highlight=False)
    if name is None:
        print_combiners(console)
    else:
        print_combiner(name, console)


def _presets(arguments: list[str]) -> None:
    """List the shipped configurations and where they lie."""
    from mtrl_imgrad.experiments.presets import list_presets, preset_path

    argparse.ArgumentParser(prog="mtrl-imgrad presets", description=_presets.__doc__).parse_args(arguments)
    console = Console(highlight=False)
    for name in list_presets("rl"):
        path = preset_path("rl", name)
        summary = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        console.print(f"[bold]{name}[/]  {summary}\n    {path}", soft_wrap=True)


def _doctor(arguments: list[str]) -> None:
    """Say what is installed, which simulator, device and renderer work, and what to do about the rest."""
    from mtrl_imgrad.experiments.doctor import print_diagnosis

    argparse.ArgumentParser(prog="mtrl-imgrad doctor", description=_doctor.__doc__).parse_args(arguments)
    print_diagnosis()


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": _train,
    "evaluate": _evaluate,
    "supervised": _supervised,
    "toy": _toy,
    "combiners": _combiners,
    "presets": _presets,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
