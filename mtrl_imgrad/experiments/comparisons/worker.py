"""One run of a comparison: ``python -m mtrl_imgrad.experiments.comparisons.worker FOLDER RUN``.

Every launcher calls this: a process of its own for each run, or `execute` in this one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from mtrl_imgrad.errors import LearningInterruptedError, MtrlImgradError
from mtrl_imgrad.experiments.comparisons.plan import load_comparison
from mtrl_imgrad.experiments.comparisons.processes import INTERRUPTED
from mtrl_imgrad.experiments.comparisons.state import A_LOOK, ERROR, locked, write_error
from mtrl_imgrad.experiments.run_folder import RESULT

PATIENCE = 60.0
"""Seconds that a run is given to end whose parent has gone, before another process takes it up."""


def execute(folder: Path, name: str, console: Console | None = None, patience: float = A_LOOK) -> None:
    """Train a run, or go on with it; nothing is done for one that is finished.

    Args:
        folder: of the comparison.
        name: of the run, as in `PlannedRun`.
        console: where to print.
        patience: seconds to wait for another process that has the run.
    """
    comparison = load_comparison(folder)
    run = comparison.run_named(name)
    with locked(run.folder, patience):
        if (run.folder / RESULT).exists():
            return
        (run.folder / ERROR).unlink(missing_ok=True)
        try:
            comparison.kind.run(run.config, console or Console(highlight=False, width=120))
        except LearningInterruptedError:
            raise  # no failure: such a run goes on
        except Exception as error:
            notes = [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])]
            write_error(run.folder, "\n".join(notes))
            raise


def main(arguments: list[str]) -> int:
    """The process of a run; returns its exit status."""
    *flags, folder, name = arguments
    with_parent = "--with-parent" in flags
    if with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        execute(Path(folder), name, patience=PATIENCE if with_parent else A_LOOK)
    except (LearningInterruptedError, KeyboardInterrupt) as error:
        print(error, file=sys.stderr)
        return INTERRUPTED
    except MtrlImgradError as error:
        traceback.print_exception(error)
        return 1
    return 0


def _end_with_parent() -> None:
    """Stop as by SIGTERM where the other end of standard input is gone: no run outlives its comparison."""
    with suppress(OSError):
        while os.read(0, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
