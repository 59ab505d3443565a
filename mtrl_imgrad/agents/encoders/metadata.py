"""Task metadata as vectors: sentence embeddings, or a table of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np
import torch
from torch import Tensor

from mtrl_imgrad.envs.task_sets import METAWORLD_TASKS
from mtrl_imgrad.errors import ArgumentError


def sentence_embeddings(task_names: Sequence[str]) -> Tensor:
    """Sentence embeddings of the descriptions of Meta-World tasks, ``[K, 384]``, scaled to a mean square of one.

    The descriptions are those of `mtrl_imgrad.agents.encoders.task_descriptions`; the model is all-MiniLM-L6-v2.
    ``tools/make_task_embeddings.py`` made the file. The scale is that of learned vectors: the model's own have unit
    length, beside which the biases of a linear layer would drown the difference between tasks.

    Raises:
        ArgumentError: if a task is not one of Meta-World's, naming it.
    """
    unknown = [name for name in task_names if name not in METAWORLD_TASKS]
    if unknown:
        raise ArgumentError(
            f"metadata='sentences' knows Meta-World's tasks only, not {', '.join(unknown)}; give a mapping of task "
            "names to vectors, or 'learned'"
        )
    with resources.files(__package__).joinpath("task_embeddings.npz").open("rb") as file, np.load(file) as saved:
        vectors = torch.from_numpy(saved["embeddings"].astype(np.float32))
    rows = vectors[[METAWORLD_TASKS.index(name) for name in task_names]]
    return rows * rows.shape[1] ** 0.5


def metadata_table(metadata: str | Mapping[str, Sequence[float]] | None, task_names: Sequence[str]) -> Tensor | None:
    """The tasks' vectors ``[K, F]``; None if they are to be learned.

    Args:
        metadata: as in `mtrl_imgrad.agents.encoders.care.CAREEncoder`.
        task_names: K names.

    Raises:
        ArgumentError: if metadata are something else, lack a task, or hold no finite vectors of one length.
    """
    if metadata is None:
        metadata = "sentences" if set(task_names) <= set(METAWORLD_TASKS) else "learned"
    if metadata == "learned":
        return None
    if metadata == "sentences":
        return sentence_embeddings(task_names)
    if not isinstance(metadata, Mapping):
        raise ArgumentError(
            f"metadata must be 'sentences', 'learned' or a mapping of task names to vectors, got {metadata!r}"
        )
    missing = [name for name in task_names if name not in metadata]
    if missing:
        raise ArgumentError(f"metadata lack the tasks {', '.join(missing)}")
    rows = [_vector(name, metadata[name]) for name in task_names]
    if len({len(row) for row in rows}) > 1:
        lengths = ", ".join(f"{name}: {len(row)}" for name, row in zip(task_names, rows, strict=True))
        raise ArgumentError(f"metadata must be vectors of one length, got {lengths}")
    return torch.stack(rows)


def _vector(name: str, values: Sequence[float]) -> Tensor:
    try:
        vector = torch.as_tensor(np.asarray(values, dtype=np.float32))
    except (TypeError, ValueError):
        raise ArgumentError(f"metadata of task {name} must be numbers, got {values!r}") from None
    if vector.ndim != 1 or not len(vector) or not torch.isfinite(vector).all():
        raise ArgumentError(f"metadata of task {name} must be a vector of finite numbers, got {values!r}")
    return vector
