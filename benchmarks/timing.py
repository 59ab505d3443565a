"""Fair timing on a machine whose speed drifts: candidates in turn, CPU seconds, medians of ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call, one number a round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def ratio_to(self, other: Timing) -> float:
        """Median over the rounds of this one's time over the other's in the same round."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))


def in_turn(
    candidates: Mapping[str, Callable[[], object]],
    calls: int,
    rounds: int = 5,
    warm_up: int = 3,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Timing]:
    """Time the candidates A B C A B C ..., so that a slow moment of the machine meets all of them.

    The clock is CPU time, but for what threads or processes do side by side.
    """
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for function in candidates.values():
        for _ in range(warm_up):
            function()
    for _ in range(rounds):
        for name, function in candidates.items():
            began = clock()
            for _ in range(calls):
                function()
            found[name].append((clock() - began) / calls * 1e3)
    return {name: Timing(tuple(times)) for name, times in found.items()}


def table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table that also reads well as it is."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, tuple("-" * width for width in widths), *rows]
    body = "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in lines)
    return f"### {title}\n\n{body}\n"


def against(reference: str, timings: Mapping[str, Timing]) -> list[tuple[str, ...]]:
    """Rows of name, milliseconds, and the ratio to the reference."""
    return [
        (name, f"{timing.median:.3g}", f"{timing.ratio_to(timings[reference]):.2f}") for name, timing in timings.items()
    ]
