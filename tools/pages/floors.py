"""The map of the rooms as a drawing: floors from top to bottom, and an arrow from each room to those that it imports.

A layered drawing (Sugiyama, Tagawa, Toda, IEEE Trans. SMC 11, 1981): an arrow over several floors has a point on each
floor between, every floor is ordered by the mean place of its neighbours, and boxes move towards them as far as the
order leaves room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

Arrow = tuple[str, str]
Node = str | tuple[str, str, int]
"""A room, or the point of an arrow (source, target) on a floor."""

HEIGHT, FLOOR, GAP = 28, 72, 14
"""Of a box, from floor to floor, and between two boxes, in pixels."""

SWEEPS = 12


def drawing(floors: Sequence[Sequence[str]], arrows: Iterable[Arrow], dashed: Iterable[Arrow]) -> str:
    """The SVG, in the colours of the page around it.

    Args:
        floors: names of the rooms by floor, the highest first.
        arrows: from a room to one on a lower floor.
        dashed: from a room to one on a higher floor.
    """
    chains = [_chain(floors, arrow) for arrow in arrows]
    floor_of = {room: number for number, rooms in enumerate(floors) for room in rooms}
    rows: list[list[Node]] = [list(rooms) for rooms in floors]
    for chain in chains:
        for place, point in enumerate(chain[1:-1], floor_of[str(chain[0])] + 1):
            rows[place].append(point)
    x = _places(rows, _neighbours(chains))
    left = min(x[node] - _width(node) / 2 for row in rows for node in row) - GAP
    right = max(x[node] + _width(node) / 2 for row in rows for node in row) + GAP
    height = FLOOR * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left:.0f} 0 {right - left:.0f} {height}" role="img" '
        'aria-label="which room imports which" font-family="sans-serif" font-size="13" text-anchor="middle">'
    ]
    parts += [_line([(x[node], floor_of[str(chain[0])] + step) for step, node in enumerate(chain)]) for chain in chains]
    parts += [_dashed((x[low], floor_of[low]), (x[high], floor_of[high])) for low, high in dashed]
    parts += [_box(room, x[room], number) for number, rooms in enumerate(floors) for room in rooms]
    return "\n".join([*parts, "</svg>"])


def _chain(floors: Sequence[Sequence[str]], arrow: Arrow) -> list[Node]:
    """Source, a point on every floor between, target."""
    first, last = (next(i for i, rooms in enumerate(floors) if room in rooms) for room in arrow)
    return [arrow[0], *((*arrow, floor) for floor in range(first + 1, last)), arrow[1]]


def _neighbours(chains: Sequence[Sequence[Node]]) -> dict[Node, list[Node]]:
    found: dict[Node, list[Node]] = {}
    for chain in chains:
        for upper, lower in pairwise(chain):
            found.setdefault(upper, []).append(lower)
            found.setdefault(lower, []).append(upper)
    return found


def _places(rows: Sequence[list[Node]], neighbours: Mapping[Node, Sequence[Node]]) -> dict[Node, float]:
    """The middle of each node; the rows are ordered by it."""
    x: dict[Node, float] = {}
    for row in rows:
        x |= dict(zip(row, _apart(row, [0.0] * len(row)), strict=True))
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 else reversed(rows):
            wanted = {node: _mean([x[other] for other in neighbours.get(node, ())], x[node]) for node in row}
            row.sort(key=wanted.__getitem__)
            x |= dict(zip(row, _apart(row, [wanted[node] for node in row]), strict=True))
    return x


def _apart(row: Sequence[Node], wanted: Sequence[float]) -> list[float]:
    """Near the wanted places, in their order, no two closer than their widths: the mean of pushing right and left."""
    gaps = [(_width(a) + _width(b)) / 2 + GAP for a, b in pairwise(row)]
    right, left = list(wanted), list(wanted)
    for i, gap in enumerate(gaps):
        right[i + 1] = max(right[i + 1], right[i] + gap)
    for i, gap in reversed(list(enumerate(gaps))):
        left[i] = min(left[i], left[i + 1] - gap)
    return [(a + b) / 2 for a, b in zip(right, left, strict=True)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _width(node: Node) -> float:
    return 7.6 * len(node) + 22 if isinstance(node, str) else 4.0


def _top(floor: float) -> float:
    return FLOOR * floor + (FLOOR - HEIGHT) / 2


def _line(points: Sequence[tuple[float, int]]) -> str:
    """From box to box: upright beside the boxes of the floors between, curved from floor to floor."""
    x, floor = points[0]
    path = f"M{x:.0f},{_top(floor) + HEIGHT:.0f}"
    for x_next, floor_next in points[1:]:
        end = _top(floor_next) - (6 if floor_next == points[-1][1] else 0)
        middle = (_top(floor) + HEIGHT + end) / 2
        path += f" C{x:.0f},{middle:.0f} {x_next:.0f},{middle:.0f} {x_next:.0f},{end:.0f}"
        if floor_next != points[-1][1]:
            path += f" V{_top(floor_next) + HEIGHT:.0f}"
        x, floor = x_next, floor_next
    tip = _top(floor)
    head = f"{x:.0f},{tip:.0f} {x - 3.5:.1f},{tip - 7:.0f} {x + 3.5:.1f},{tip - 7:.0f}"
    return (
        f'<path d="{path}" fill="none" stroke="currentColor" opacity="0.55"/>'
        f'<polygon points="{head}" fill="currentColor" opacity="0.55"/>'
    )


def _dashed(low: tuple[float, int], high: tuple[float, int]) -> str:
    """Upwards, from the side of one box to the other's."""
    start, end = _top(low[1]), _top(high[1]) + HEIGHT
    x_start, x_end = low[0] - 18, high[0] - 18
    middle = (start + end) / 2
    curve = f"M{x_start:.0f},{start:.0f} C{x_start:.0f},{middle:.0f} {x_end:.0f},{middle:.0f} {x_end:.0f},{end + 6:.0f}"
    head = f"{x_end:.0f},{end:.0f} {x_end - 3.5:.1f},{end + 7:.0f} {x_end + 3.5:.1f},{end + 7:.0f}"
    return (
        f'<path d="{curve}" fill="none" stroke="currentColor" stroke-dasharray="4 3"/>'
        f'<polygon points="{head}" fill="currentColor"/>'
    )


def _box(room: str, x: float, floor: int) -> str:
    width = _width(room)
    return (
        f'<rect x="{x - width / 2:.0f}" y="{_top(floor):.0f}" width="{width:.0f}" height="{HEIGHT}" rx="5" '
        f'fill="none" stroke="currentColor"/>'
        f'<text x="{x:.0f}" y="{_top(floor) + HEIGHT / 2 + 4.5:.0f}" fill="currentColor">{room}</text>'
    )
