"""Whether an agent's updates are compiled: its arguments ``trace``, ``compile`` and ``precision``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients import Execution
from mtrl_imgrad.gradients.bfloat16 import has_fast_bfloat16
from mtrl_imgrad.gradients.compilation import missing_compiler

if TYPE_CHECKING:
    from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm


Compile = bool | Literal["auto"]
WORTHWHILE = 10_000
"""Updates from which on ``"auto"`` compiles: a start takes about a minute once, which they win back twice or more."""


def make_execution(agent: Any) -> Execution:
    """The execution of an agent's updates; ``"auto"`` is not compiled until a ``learn`` says so.

    Raises:
        ArgumentError: if the arguments contradict each other, or there is no compiler for ``compile=True``.
    """
    for name, asked in (("compile", agent.compile is True), ("precision", agent.precision != "float32")):
        if asked and not agent.trace:
            raise ArgumentError(f"{name}={getattr(agent, name)!r} needs trace=True, got False")
    if agent.compile is True and (missing := missing_compiler(agent.device)):
        raise ArgumentError(f"compile=True needs a compiler, but {missing}; or give compile=False")
    if agent.precision == "bf16" and not has_fast_bfloat16(agent.device):
        warnings.warn(
            f"precision='bf16' is slow on this {agent.device.type}, which is not known to multiply bfloat16 by itself",
            stacklevel=4,
        )
    return Execution(agent.trace, agent.precision, agent.compile is True, required=agent.compile is True)


def plan_execution(agent: MultiTaskAlgorithm, total_timesteps: int, anew: bool) -> tuple[bool, str]:
    """Whether the updates of a ``learn`` are compiled, and a line that says so and why.

    Args:
        agent: knows how many updates there will be.
        total_timesteps: of the ``learn``.
        anew: whether it begins a run; one that goes on stays with what its beginning chose.
    """
    compiles, precision = agent.execution.compile, agent.execution.precision
    products = "" if precision == "float32" else f", matrix products in {precision}"
    if agent.compile == "auto" and agent.trace and anew:
        updates, missing = agent._updates_in(total_timesteps), missing_compiler(agent.device)
        compiles = updates >= WORTHWHILE and missing is None
        why = f"compile='auto', {updates:,} updates" + (f", but {missing}" if missing else "")
    else:
        why = f"compile={agent.compile!r}" + (", as the run began" if agent.compile == "auto" and agent.trace else "")
    how = "compiled; the first take a minute or more" if compiles else "replayed" if agent.trace else "not recorded"
    return compiles, f"updates: {how} ({why}){products}"


def begin_execution(agent: MultiTaskAlgorithm, total_timesteps: int, anew: bool) -> None:
    """Choose the execution at the beginning of a ``learn``, and say so where the agent is verbose."""
    agent.execution.compile, line = plan_execution(agent, total_timesteps, anew)
    if agent.verbose >= 1:
        print(line)
