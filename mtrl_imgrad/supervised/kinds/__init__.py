"""Kinds of supervised tasks as data: one `TaskKind` says all that the rest of the library asks of a kind.

::

    from mtrl_imgrad.supervised.kinds import TaskKind, register_kind

    register_kind(TaskKind("count", loss=..., metric=..., ...))
    TaskSpec("cars", "count", channels=1)  # known to networks, trainer, reports and panels
"""

from mtrl_imgrad.supervised.kinds.record import TaskKind
from mtrl_imgrad.supervised.kinds.registry import list_kinds, register_kind, task_kind

__all__ = ["TaskKind", "list_kinds", "register_kind", "task_kind"]
