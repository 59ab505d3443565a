"""The command line, ``mtrl-imgrad COMMAND``: a dataclass of options for each command, read by tyro.

A command's module is imported when the command is called, so that help costs neither torch nor a simulator.
"""

from __future__ import annotations

from mtrl_imgrad.extras import require

require("mtrl-imgrad on the command line", "tyro", "rich")

import importlib
import os
import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, make_dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from mtrl_imgrad import __version__
from mtrl_imgrad.errors import (
    ArgumentError,
    LearningInterruptedError,
    MissingDependencyError,
    MtrlImgradError,
    UnknownNameError,
)
from mtrl_imgrad.experiments.torchrun import refuse_torchrun


@dataclass(frozen=True)
class Completion:
    """Print a script that completes this command line, to be read by the shell."""

    shell: Annotated[Literal["bash", "zsh"], tyro.conf.Positional]
    """Which shell."""

    def __call__(self) -> None:
        """Let tyro print the script for all commands with all their options, but those that an extra would bring."""
        kinds = {name: kind for name in COMMANDS if (kind := _options_to_complete(name)) is not None}
        commands = [_subcommand(name, name, kind) for name, kind in kinds.items() if name.split()[0] != "supervised"]
        if "supervised" in kinds:
            below = [_subcommand(name.split()[1], name, kind) for name, kind in kinds.items() if " " in name]
            flat = tyro.conf.arg(name="")
            supervised = make_dataclass(
                "Supervised",
                [
                    ("training", Annotated[kinds["supervised"], flat]),
                    ("command", Annotated[reduce(or_, [*below, None]), flat], None),
                ],
            )
            commands.append(Annotated[supervised, tyro.conf.subcommand("supervised")])
        tyro.cli(
            reduce(or_, commands),
            prog="mtrl-imgrad",
            args=["--tyro-print-completion", self.shell],
            config=(tyro.conf.OmitSubcommandPrefixes,),
            registry=NUMBERS,
        )


@dataclass(frozen=True)
class Command:
    """A command's module and class, and its help in a line.

    Attributes:
        options: module within `mtrl_imgrad.experiments`, and the class of options, which is called to run. Its
            ``defaults(arguments)``, where it has one, gives the values that options start from.
        summary: for help.
    """

    options: str
    summary: str


COMMANDS = {
    "train": Command(
        "rl.commands:Train",
        "Train an agent. --preset or --config sets the defaults of all other options; --resume goes on with a run that "
        "was interrupted, from its latest checkpoint.",
    ),
    "evaluate": Command("rl.commands:Evaluate", "Evaluate the agent of a run folder, per task; keep the report there."),
    "compare": Command(
        "comparisons.commands:Compare",
        "Run methods by seeds, several at a time, each run only once; go on with a folder. --preset or --config sets "
        "the defaults of all other options, which are those of train.",
    ),
    "status": Command(
        "comparisons.commands:Status",
        "Show how far a comparison is, whatever runs it: in the background, on a cluster.",
    ),
    "video": Command("rl.commands:Video", "Film the agent of a run folder: a task, or all of them side by side."),
    "plot": Command(
        "comparisons.commands:Plot",
        "Draw finished runs: success against steps, wall clock and CPU time, tasks, profiles, imbalance, weights.",
    ),
    "report": Command(
        "comparisons.commands:Report",
        "Write the report of finished runs: one HTML page, Markdown, LaTeX, CSV; statistics over seeds.",
    ),
    "supervised": Command(
        "supervised.commands:Train",
        "Train on images: NYUv2, CityScapes, CelebA, simulated scenes. --data or --config sets the defaults of all "
        "other options; --resume goes on with a run. Commands below it: compare, cotbal, analyse, make-data.",
    ),
    "supervised compare": Command(
        "comparisons.supervised:Compare",
        "Run methods by seeds, each run only once, and print a table with standard errors beside the published rows.",
    ),
    "supervised cotbal": Command(
        "supervised.commands:CoTBal",
        "Make CoTBal's K + 1 runs (mini, and each task + mini), each only once, and its tables for the combiner.",
    ),
    "supervised analyse": Command(
        "supervised.commands:Analyse",
        "Draw imbalance, cos theta, Pareto failures and the tasks' progress of finished runs.",
    ),
    "supervised make-data": Command(
        "supervised.commands:MakeData", "Make a folder of simulated scenes with true labels."
    ),
    "toy": Command(
        "synthetic:ToyConfig",
        "Follow methods over the two-objective landscape of CAGrad, Nash-MTL and IMGrad; draw and count.",
    ),
    "combiners": Command(
        "catalogue:Combiners", "List the combiners: what a step needs and keeps, and the paper; or say all of one."
    ),
    "presets": Command("presets:Presets", "List the presets and where they lie."),
    "doctor": Command(
        "doctor:Doctor",
        "Say what is installed, which simulator, device and renderer work, and what to do about the rest.",
    ),
    "completion": Command(
        "", 'Print a completion script for a shell: eval "$(mtrl-imgrad completion bash)", for instance in ~/.bashrc.'
    ),
}

NUMBERS = tyro.constructors.ConstructorRegistry()
"""Integers may be written as 1e6."""


@NUMBERS.primitive_rule
def _integer(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda texts: _read_integer(texts[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


def _read_integer(text: str) -> int:
    if "e" not in text.lower():
        return int(text)
    number = float(text)
    if not number.is_integer() or abs(number) > 2**53:  # beyond it floats skip integers
        raise ValueError(f"expected an integer, got {text}")
    return int(number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``mtrl-imgrad``; returns the exit status.

    An error of the library's own is printed as one line: 2 for a wrong argument, as of options that do not exist, and
    1 for all others. Any other exception is a bug and keeps its traceback.
    """
    try:
        arguments = [_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
        if arguments[:1] == ["--version"]:
            print(f"mtrl-imgrad {__version__}")
        else:
            try:
                read(arguments)()
            except SystemExit:  # after help, whose reader may have left
                sys.stdout.flush()
                raise
        sys.stdout.flush()
    except LearningInterruptedError as error:
        print(error, file=sys.stderr)
        return 128 + error.number
    except MtrlImgradError as error:
        console = Console(stderr=True, highlight=False)
        console.print(f"[bold red]{type(error).__name__}:[/] {escape(str(error))}", soft_wrap=True)
        for note in getattr(error, "__notes__", []):
            console.print(escape(note), soft_wrap=True)
        return 2 if isinstance(error, ArgumentError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        if not _reader_left():
            raise
        return 1  # as rich
    return 0


def _home(word: str) -> str:
    """``~`` as a shell expands it, also behind ``--option=``, where a shell does not."""
    option, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + sign + os.path.expanduser(value)


def read(arguments: list[str]) -> Callable[[], None]:
    """The options of the command that ``arguments`` name, ready to be called.

    Raises:
        ArgumentError: if a name does not exist.
        SystemExit: after help (0), or a message about other wrong arguments (2).
    """
    words = next((count for count in (2, 1) if " ".join(arguments[:count]) in COMMANDS), 0)
    if not words:
        _help_of_all(arguments or ["--help"])
    name, rest = " ".join(arguments[:words]), arguments[words:]
    if name == "supervised" and rest and not rest[0].startswith("-"):
        below = [known.split()[1] for known in COMMANDS if " " in known]
        raise UnknownNameError("command below supervised", rest[0], below)
    if name != "supervised":
        refuse_torchrun(name)
    options = _options(name)
    default = options.defaults(rest) if hasattr(options, "defaults") else None
    return tyro.cli(
        options if default is None else type(default),
        prog=f"mtrl-imgrad {name}",
        description=COMMANDS[name].summary,
        args=rest,
        default=tyro.MISSING_NONPROP if default is None else default,
        registry=NUMBERS,
    )


def _help_of_all(arguments: list[str]) -> None:
    """Exit with the list of commands, or with what is wrong with ``arguments``, which name none."""
    if arguments[0] and not arguments[0].startswith("-"):
        raise UnknownNameError("command", arguments[0], [name for name in COMMANDS if " " not in name])
    commands: list[Any] = [
        Annotated[make_dataclass(name, []), tyro.conf.subcommand(name, description=command.summary)]
        for name, command in COMMANDS.items()
        if " " not in name
    ]
    tyro.cli(
        reduce(or_, commands),
        prog="mtrl-imgrad",
        description="Train one agent on many tasks. `mtrl-imgrad COMMAND --help` lists a command's options, "
        "`mtrl-imgrad --version` the version.",
        args=arguments,
    )


def _options(name: str) -> Any:
    """The class of a command's options."""
    module, _, kind = COMMANDS[name].options.partition(":")
    return getattr(importlib.import_module(f"mtrl_imgrad.experiments.{module}"), kind) if module else Completion


def _options_to_complete(name: str) -> Any:
    """As `_options`, those of all agents for ``train``; None where a package is missing."""
    try:
        if name == "train":
            return importlib.import_module("mtrl_imgrad.experiments.rl.all_agents").train_of_all_agents()
        return _options(name)
    except MissingDependencyError:
        return None


def _subcommand(name: str, command: str, options: Any) -> Any:
    return Annotated[options, tyro.conf.subcommand(name, description=COMMANDS[command].summary)]


def _reader_left() -> bool:
    """Whether the other end of standard output is closed, as by ``| head``."""
    poll = select.poll()
    poll.register(sys.stdout, 0)  # errors are always reported
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at exit
    return True


if __name__ == "__main__":
    sys.exit(main())
