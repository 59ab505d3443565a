"""The combiner of a supervised run, fitted to its data: seed, unit, steps per epoch, number of tasks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mtrl_imgrad.combiners import Combiner, combiner_class, make_combiner
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.seeding import Stream, stream_seed
from mtrl_imgrad.supervised.tasks import TaskSpec


def run_combiner(
    combiner: str | Combiner,
    kwargs: Mapping[str, Any],
    *,
    tasks: tuple[TaskSpec, ...],
    seed: int,
    steps_per_epoch: int,
) -> Combiner:
    """Make a combiner from its registry name, or take one as it is, and hold it against the tasks.

    It draws from a stream of the run's seed, unless it was given a ``seed``. One made from its name gets what
    its constructor takes of ``reduction="sum"`` (the papers' unit) and ``window``, the steps of an epoch, for methods
    whose papers count epochs (DWA, IGBv1, IGBv2, MoCo, STCH). ``kwargs`` go before both.

    Raises:
        ArgumentError: if an argument of the combiner is wrong, or holds a value for each of another number of tasks.
        UnknownNameError: for an unknown name.
    """
    if isinstance(combiner, Combiner):
        made = make_combiner(combiner, **kwargs)
    else:
        if combiner == "cotbal" and not {"mini", "single"} <= set(kwargs):
            raise ArgumentError(
                "combiner 'cotbal' needs the tables mini and single; mtrl-imgrad supervised cotbal makes them, and a "
                "config.yaml that holds them"
            )
        accepted = inspect.signature(combiner_class(combiner)).parameters
        of_the_run = {"reduction": "sum", "window": steps_per_epoch}
        taken = {name: value for name, value in of_the_run.items() if name in accepted}
        made = make_combiner(combiner, **{**taken, **kwargs})
    made.check_num_tasks(len(tasks))
    made.set_random_seed(stream_seed(seed, Stream.COMBINER))
    return made
