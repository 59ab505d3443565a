"""What a comparison consists of: ``comparison.yaml`` in its folder, and a folder for each run.

The folder alone is enough to go on anywhere: its file holds the configuration, the methods and their seeds, and paths
within it are relative.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.comparisons.kinds import RunKind, kind_named, kind_of
from mtrl_imgrad.experiments.config_files import differences, plain, read_sections
from mtrl_imgrad.experiments.run_folder import in_shell
from mtrl_imgrad.experiments.versions import installed_versions
from mtrl_imgrad.reporting.atomic_files import make_folder, write_text
from mtrl_imgrad.validation import Seed, check

PLAN = "comparison.yaml"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison.

    Attributes:
        name: its folder within the comparison's, ``runs/METHOD/seed_N`` (``/PART`` below it for one of several parts).
        method: as the user wrote it.
        seed: of the run.
        part: of a method that needs several runs for a seed, such as one a task; else empty.
        config: of the run, its folder included.
    """

    name: str
    method: str
    seed: int
    part: str
    config: Any

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self.config.run_dir)

    @property
    def label(self) -> str:
        """Method, seed and part, for messages."""
        return f"{self.method} seed {self.seed}{f' {self.part}' if self.part else ''}"


@dataclass(frozen=True)
class Comparison:
    """Methods by seeds with one configuration.

    Attributes:
        folder: of the comparison.
        config: of every run, but for its combiners, seed and folder.
        methods: seeds by method, in the order of tables.
    """

    folder: Path
    config: Any
    methods: Mapping[str, Sequence[int]]

    @property
    def kind(self) -> RunKind:
        """Of its runs."""
        return kind_of(self.config)

    def runs(self) -> list[PlannedRun]:
        """All runs, the first seed of every method before the second: a table grows evenly."""
        seeds = dict.fromkeys(seed for own in self.methods.values() for seed in own)
        return [
            run
            for seed in seeds
            for method, own in self.methods.items()
            if seed in own
            for run in self._runs_of(method, seed)
        ]

    def _runs_of(self, method: str, seed: int) -> list[PlannedRun]:
        runs = []
        for part, config in self.kind.configs(self.config, method, seed).items():
            name = "/".join(("runs", slug(method), f"seed_{seed}", *([slug(part)] if part else [])))
            config = dataclasses.replace(config, run_dir=self.folder / name)
            runs.append(PlannedRun(name, method, seed, part, config))
        return runs

    def run_named(self, name: str) -> PlannedRun:
        """A run by its folder within the comparison's.

        Raises:
            ArgumentError: if there is none.
        """
        for run in self.runs():
            if run.name == name:
                return run
        raise ArgumentError(f"run {name!r} is not in {self.folder / PLAN}")

    def command(self) -> str:
        """That goes on with it."""
        return f"mtrl-imgrad {self.kind.command} --out {in_shell(self.folder)}"

    def save(self) -> None:
        """Write ``comparison.yaml``."""
        make_folder("out", self.folder)
        data = {
            "kind": self.kind.name,
            "methods": {method: list(seeds) for method, seeds in self.methods.items()},
            "config": _settings(self.config),
            "ran_with": {"versions": installed_versions()},
        }
        write_text(self.folder / PLAN, yaml.safe_dump(data, sort_keys=False, width=10**6))


def load_comparison(folder: Path) -> Comparison:
    """The comparison of a folder.

    Raises:
        ArgumentError: if the folder holds none, or its file cannot be read.
    """
    folder = folder.expanduser()
    path = folder / PLAN
    if not path.exists():
        raise ArgumentError(f"{folder} holds no comparison (no {PLAN})")
    data = read_sections(path)
    if not isinstance(data.get("methods"), dict) or not isinstance(data.get("config"), dict):
        raise ArgumentError(f"{path}: expected the sections kind, methods and config, got {sorted(data)}")
    for method, seeds in data["methods"].items():
        if not isinstance(seeds, list):
            raise ArgumentError(f"{path}: methods.{method} must be a list of seeds, got {seeds!r}")
        _check_seeds(f"{path}: methods.{method}", seeds)
    config = kind_named(str(data.get("kind"))).read(data["config"], path)
    return Comparison(folder, config, {str(method): tuple(seeds) for method, seeds in data["methods"].items()})


def plan_comparison(config: Any, methods: Sequence[str], seeds: Sequence[int], folder: Path) -> Comparison:
    """A comparison with what its folder holds already: methods and seeds are added, settings stay.

    A method that the folder has under another text (``ls`` for ``linear_scalarization``, a default said aloud) is that
    one.

    Args:
        config: of every run.
        methods: of this call; none for those of the folder.
        seeds: of these methods; none for those of the folder.
        folder: of the comparison.

    Raises:
        ArgumentError: if the folder holds a comparison with other settings, naming each difference, or a method or a
            seed is wrong.
    """
    for name, given in (("methods", methods), ("seeds", seeds)):
        if len(set(given)) != len(given):
            raise ArgumentError(f"{name} must be different ones, got {list(given)}")
    _check_seeds("seeds", seeds)
    earlier: dict[str, tuple[int, ...]] = {}
    if (folder / PLAN).exists():
        before = load_comparison(folder)
        earlier = {method: tuple(own) for method, own in before.methods.items()}
        changes = differences(_settings(before.config), _settings(config))
        if changes:
            raise ArgumentError(
                f"{folder} holds a comparison with other settings ({'; '.join(changes)}); take another folder (--out)"
            )
    methods = _as_named(kind_of(config), methods, tuple(earlier))
    known = tuple(dict.fromkeys(seed for own in earlier.values() for seed in own))
    if not (methods or earlier) or not (seeds or known):
        raise ArgumentError(f"{folder} holds no comparison yet: --methods and --seeds are needed")
    wanted = {method: tuple(seeds) or known for method in methods or earlier}
    merged = {
        method: tuple(dict.fromkeys((*earlier.get(method, ()), *wanted.get(method, ()))))
        for method in dict.fromkeys((*earlier, *wanted))
    }
    if not methods and not seeds:
        merged = earlier
    names: dict[str, str] = {}
    for method in merged:
        if names.setdefault(slug(method), method) != method:
            raise ArgumentError(f"methods {names[slug(method)]!r} and {method!r} would share a folder")
    return Comparison(folder, _base(config), merged)


def _as_named(kind: RunKind, methods: Sequence[str], earlier: Sequence[str]) -> list[str]:
    """Methods of a call by the names that the folder has for the same: ``ls`` may be its ``linear_scalarization``."""
    known = [(kind.identity(name), name) for name in earlier]
    names: list[str] = []
    for method in methods:
        identity = kind.identity(method)
        same = next((name for other, name in known if other == identity), method)
        name = method if method in earlier else same
        if name in names:
            raise ArgumentError(f"methods must be different ones: {method!r} is {name!r}")
        names.append(name)
        known.append((identity, name))
    return names


def _check_seeds(name: str, seeds: Sequence[int]) -> None:
    for seed in seeds:
        check(name, seed, Seed)


def slug(text: str) -> str:
    """Text as the name of a folder; a colon, which some systems refuse, becomes a hyphen."""
    return re.sub(r"[^\w.=+,-]+", "-", text)


def _base(config: Any) -> Any:
    return dataclasses.replace(config, seed=0, run_dir=None)


def _settings(config: Any) -> dict[str, Any]:
    """As YAML holds it, without what a run of the comparison sets itself."""
    data = plain(dataclasses.asdict(_base(config)))
    for section in ("agent", "method"):
        for key in [key for key in data.get(section, {}) if key.endswith(("combiner", "combiner_kwargs"))]:
            del data[section][key]
    return {key: value for key, value in data.items() if key not in ("seed", "run_dir")}
