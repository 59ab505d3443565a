"""Log entries for every task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from stable_baselines3.common.logger import Logger


def record_per_task(
    logger: Logger,
    tag: str,
    task_names: Sequence[str],
    values: Iterable[float],
    *,
    on_screen: bool = True,
    exclude: tuple[str, ...] = (),
) -> None:
    """Record ``<tag>/<task>`` for every task.

    SB3's printed table cuts keys to 36 characters and raises ValueError where two become the same, as with
    Meta-World's button-press-topdown and button-press-topdown-wall. Such keys are kept off the table and go
    everywhere else.

    Args:
        logger: SB3's.
        tag: for instance ``"eval/success_rate"``.
        task_names: K names.
        values: K numbers.
        on_screen: False keeps all of them off the printed table.
        exclude: outputs that get none of them, by SB3's names.
    """
    keys = [f"{tag}/{name}" for name in task_names]
    shown = [key.partition("/")[2] for key in keys]
    shown = [name if len(name) <= 33 else name[:30] for name in shown]  # 36 less the indent, less an ellipsis
    times = Counter(shown)
    for key, cut, value in zip(keys, shown, values, strict=True):
        hidden = not on_screen or times[cut] > 1
        logger.record(key, float(value), exclude=exclude or (("stdout", "log") if hidden else None))


def task_names_of(model: Any, env: Any) -> list[str]:
    """The tasks of an agent or else of its environment; one called "task" where neither knows of any."""
    for source in (model, env):
        if hasattr(source, "task_names"):
            return list(source.task_names)
    return ["task"]
