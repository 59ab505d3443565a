"""The map of the package: which room imports which, read from the source, held against the floors below.

python tools/import_map.py          # checks, and says what is wrong
python tools/import_map.py --write  # writes the picture and the table into docs/architecture.md, too
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "mtrl_imgrad"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- map: python tools/import_map.py --write -->", "<!-- end of map -->"

FLOORS: tuple[dict[str, str], ...] = (
    {
        "errors": "one family of exceptions; a message names argument, task, environment, step",
    },
    {
        "validation": "the one vocabulary of argument checks: constraints in annotations, read by a decorator",
        "extras": "optional packages: what brings each, and the one message where one is missing",
        "seeding": "named streams of random numbers, NumPy and torch, from one seed",
    },
    {
        "reporting": "atomic files, figures, tables, progress bars",
        "combiners": "K gradients or losses to one update: a method a file, state, solvers, exchange between ranks",
        "envs": "task sets as SB3 `VecEnv`s: Meta-World, EnvPool, toy, any Gymnasium environments",
    },
    {
        "gradients": "how K gradients are taken and applied, for RL and vision alike",
        "checkpoints": "the checkpoint format of agents and supervised runs; reading one runs no code",
        "evaluation": "success by task: episodes, reports, statistics, tables, plots",
    },
    {
        "agents": "MTSAC, MTPPO and MTTD3: policies, replay and rollouts, updates, encoders, callbacks, checkpoints",
        "supervised": "readers of NYUv2, CelebA and others: kinds of tasks, networks, metrics, trainer",
        "synthetic": "the two-objective problem of the papers: descent, optima, plots",
    },
    {
        "scenes": "simulated scenes as data sets: renderer, rays, writers",
    },
    {
        "experiments": "a run from its configuration to its folder; the only application layer",
        "presets": "YAML presets, each value with its source",
    },
    {
        "cli": "the command line",
    },
    {
        "__main__": "the entry point: starts the command line, or says what it needs",
    },
)
"""The rooms by floor, the lowest first. A room imports rooms of lower floors only, never one beside it."""

EXCEPTIONS = {
    ("combiners", "gradients"): "`Combiner.backward` and `accumulate` call `gradients.per_loss`, when they are called",
}
"""Arrows that run up, each with its reason; such an import stands inside a function."""

Arrow = tuple[str, str]


def modules(root: Path = ROOT / PACKAGE) -> dict[str, Path]:
    """Every module of the package by its dotted name without the package's: ``""`` is the package itself."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(path: Path, known: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """What a file imports of the package, and whether only inside a function.

    Imports for the type checker (``if TYPE_CHECKING:``) are left out; ``from package import module`` is the module.
    """
    known = set(known)

    def walk(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.orelse:
                yield from walk(child, lazy)
            return
        if isinstance(node, ast.Import):
            yield from ((name, lazy) for alias in node.names for name in _inside(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for base in _inside(node.module):
                for alias in node.names:
                    name = f"{base}.{alias.name}".lstrip(".")
                    yield (name if name in known else base), lazy
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, lazy)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False)


def _inside(name: str) -> list[str]:
    """A dotted name without the package's, if it is of the package."""
    return [name.removeprefix(PACKAGE).lstrip(".")] if name.split(".")[0] == PACKAGE else []


def graph(root: Path = ROOT / PACKAGE) -> dict[str, dict[str, bool]]:
    """Module to modules that it imports; True where only inside functions."""
    names = modules(root)
    arrows: dict[str, dict[str, bool]] = {name: {} for name in names}
    for name, path in names.items():
        for target, lazy in imports(path, names):
            if target != name:
                arrows[name][target] = arrows[name].get(target, True) and lazy
    return arrows


def cycles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan's strongly connected components of two or more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in arrows.get(name, ()):
            if target not in index:
                visit(target)
            if target in stack:
                low[name] = min(low[name], low[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[-len(group) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for name in arrows:
        if name not in index:
            visit(name)
    return groups


def room_of(module: str) -> str:
    """The room of a module; ``""`` for the package's own ``__init__``."""
    return module.split(".")[0]


def room_arrows(arrows: Mapping[str, Mapping[str, bool]]) -> dict[Arrow, list[str]]:
    """Arrows between rooms, with the imports that make them."""
    found: dict[Arrow, list[str]] = {}
    for source, targets in arrows.items():
        for target in targets:
            pair = room_of(source), room_of(target)
            if "" not in pair and pair[0] != pair[1]:
                found.setdefault(pair, []).append(f"{source} -> {target}")
    return found


def faults(arrows: Mapping[str, Mapping[str, bool]] | None = None) -> list[str]:
    """Whatever breaks the map, a line each: cycles, arrows that run up or sideways, rooms without a floor."""
    arrows = graph() if arrows is None else arrows
    floor = _floors()
    inner = _without_exceptions(arrows)
    circles = cycles(inner)
    wrong = [f"cycle of modules: {', '.join(group)}" for group in circles]
    wrong += [f"cycle of folders: {', '.join(group)}" for group in cycles(_folders(inner)) if group not in circles]
    wrong += [f"room without a floor: {room}" for room in sorted({room_of(m) for m in arrows} - set(floor) - {""})]
    for (source, target), where in sorted(room_arrows(arrows).items()):
        if source not in floor or target not in floor or floor[target] < floor[source]:
            continue
        if (source, target) not in EXCEPTIONS:
            wrong += [f"arrow that runs up: {one}" for one in where]
        else:
            eager = [one for one in where if not arrows[one.split(" -> ")[0]][one.split(" -> ")[1]]]
            wrong += [f"an exception must be imported inside a function: {one}" for one in eager]
    return wrong


def _floors() -> dict[str, int]:
    return {room: i for i, rooms in enumerate(FLOORS) for room in rooms}


def _folders(arrows: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Arrows with each folder of a room as one: ``combiners.solvers`` to ``combiners.weights``, a file beside it."""
    folder = {name: ".".join(name.split(".")[:2]) for name in arrows}
    merged: dict[str, set[str]] = {}
    for source, targets in arrows.items():
        merged.setdefault(folder[source], set()).update({folder[target] for target in targets} - {folder[source]})
    return merged


def _without_exceptions(arrows: Mapping[str, Mapping[str, bool]]) -> dict[str, list[str]]:
    return {
        source: [target for target in targets if (room_of(source), room_of(target)) not in EXCEPTIONS]
        for source, targets in arrows.items()
    }


def drawn_arrows() -> list[Arrow]:
    """The arrows of the picture: those that run down and that no longer way replaces."""
    return sorted(_without_detours(_arrows_down()))


def _arrows_down() -> set[Arrow]:
    floor = _floors()
    return {(source, target) for source, target in room_arrows(graph()) if floor[target] < floor[source]}


def picture() -> str:
    """The map as the page shows it: a mermaid diagram and a table of rooms."""
    between = _arrows_down()
    lines = ["```mermaid", "flowchart TB"]
    for i, rooms in reversed(list(enumerate(FLOORS))):
        lines.append(f'  subgraph floor{i}[" "]')
        lines += [f'    {room}["{room}"]' for room in rooms]
        lines.append("  end")
    lines += [f"  {source} --> {target}" for source, target in drawn_arrows()]
    lines += [f"  {source} -. when called .-> {target}" for source, target in sorted(EXCEPTIONS)]
    lines += ["```", "", "| room | what it holds | imports |", "| :-- | :-- | :-- |"]
    for rooms in reversed(FLOORS):
        for room, holds in rooms.items():
            targets = sorted(
                target for source, target in between if source == room and (room, target) not in EXCEPTIONS
            )
            lines.append(f"| `{room}` | {holds} | {', '.join(f'`{target}`' for target in targets) or '-'} |")
    lines += ["", *(f"* {up[0]} to {up[1]}: {reason}." for up, reason in EXCEPTIONS.items())]
    return "\n".join(lines)


def _without_detours(arrows: set[Arrow]) -> set[Arrow]:
    """The arrows that no longer way replaces: the picture stays readable, and who reaches whom is the same."""

    def reaches(source: str, target: str, without: Arrow) -> bool:
        following = {b for a, b in arrows if a == source and (a, b) != without}
        return target in following or any(reaches(one, target, without) for one in following)

    return {arrow for arrow in arrows if not reaches(*arrow, arrow)}


def page(text: str) -> str:
    """The text of docs/architecture.md with the map of today between the markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{picture()}\n{END}{after}"


def main() -> int:
    """Say what breaks the map; 1 if something does."""
    wrong = faults()
    print("\n".join(wrong) or "no cycle, and every arrow runs down")
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
