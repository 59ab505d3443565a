"""The tests marked `portable`, again under other instruction sets and numbers of threads: a table of what failed where.

    python tests/portable.py            # every setting
    python tests/portable.py --quick    # the most telling tests under the two that differ most from an ordinary run
    python tests/portable.py --settings avx2/1 imitated-101/1 -- tests/agents/ppo/test_mtppo.py --seeds 10

After `--` come paths and options for pytest. What learning tests reached is listed below the table: smallest, median
and largest value. Exits with 1 if a test fails under any setting. A setting whose instructions the processor lacks is
skipped, and said so. `imitated` rounds as no processor does (support/rounding.py): for machines that are not at hand.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEVELS = ("DEFAULT", "AVX2", "AVX512")
"""As `torch.backends.cpu.get_cpu_capability` names them; each has all instructions of those before it."""
VARIABLES = {
    "DEFAULT": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Nehalem"},
    "AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"},
    "AVX512": {
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "OPENBLAS_CORETYPE": "SkylakeX",
    },
}
"""What holds each library to a level; ATEN_CPU_CAPABILITY and NumPy's variable are added to them."""
BEYOND = {
    "DEFAULT": ("X86_V3", "X86_V4", "AVX", "FMA", "F16C"),
    "AVX2": ("X86_V4", "AVX512"),
    "AVX512": ("AVX512_SPR", "AVX512_FP16"),
}
"""How the names of NumPy's features begin that a level does not have."""
PROBE = """
import json, torch
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
numpy = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
print(json.dumps([torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), numpy]))
"""


@dataclass(frozen=True)
class Setting:
    """How the tests are run: a level of `LEVELS`, or the processor's own (None), threads, options of pytest."""

    name: str
    level: str | None = None
    threads: int = 1
    options: tuple[str, ...] = field(default=())

    @property
    def label(self) -> str:
        """As the table and `--settings` name it."""
        return f"{self.name}/{self.threads}"

    def environment(self, numpy_features: list[str]) -> dict[str, str]:
        """The variables under which a process is this setting."""
        names = {"ATEN_CPU_CAPABILITY", "NPY_DISABLE_CPU_FEATURES", *VARIABLES["DEFAULT"]}
        found = {name: value for name, value in os.environ.items() if name not in names}
        found |= {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        if self.level is None:
            return found
        off = [name for name in numpy_features if name.startswith(BEYOND[self.level])]
        numpy = {"NPY_DISABLE_CPU_FEATURES": " ".join(off)} if off else {}
        return found | numpy | VARIABLES[self.level] | {"ATEN_CPU_CAPABILITY": self.level.lower()}


LEVELLED = [Setting(level.lower(), level, threads) for level in LEVELS for threads in (1, 2)]
IMITATED = [Setting(f"imitated-{seed}", None, 1, ("--rounding", str(seed))) for seed in (101, 102)]
SETTINGS = {setting.label: setting for setting in [Setting("native", None, 2), *LEVELLED, *IMITATED]}
QUICK = ["default/2", "imitated-101/1"]
TELLING = [
    "tests/snapshots",
    "tests/combiners/test_golden_vectors.py",
    "tests/combiners/families/test_gramian_methods.py",
    "tests/combiners/families/test_loss_methods.py",
    "tests/combiners/methods/test_igb_v2.py",
    "tests/agents/ppo/test_mtppo.py",
    "tests/agents/ppo/test_mtppo_equivalence.py",
    "tests/agents/checkpoints/test_release_checkpoints.py",
    "tests/agents/sac/test_sac_equivalence.py",
    "tests/envs/test_sb3_contract.py",
    "tests/supervised/test_training.py",
]
"""What `--quick` runs, of the tests marked `portable`."""


def probe(environment: dict[str, str]) -> tuple[str, int, list[str]]:
    """The level and number of threads that torch has in an environment, and the features that NumPy dispatches to."""
    done = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest said."""

    passed: int
    skipped: int
    failed: list[str]
    seconds: float
    reached: dict[str, list[float]]

    def row(self, setting: Setting) -> str:
        """A line of the table."""
        return _line(setting.label, *map(str, (self.passed, len(self.failed), self.skipped, round(self.seconds))))


def run(setting: Setting, environment: dict[str, str], arguments: list[str]) -> Outcome:
    """Run the tests under a setting.

    Raises:
        SystemExit: if pytest did not come to an end.
    """
    processes = max(1, (os.cpu_count() or 1) // setting.threads)  # threads wait for each other where cores are short
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "portable and not slow", "--junitxml", str(report)]
        command += ["-o", "junit_family=xunit1"]  # xunit2 has no place for properties
        command += ["-n", str(processes), "--dist", "loadfile", *setting.options, *arguments]
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        seconds = time.monotonic() - began
        if done.returncode not in (0, 1):
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    if failed:
        print(done.stdout)
    names = [f"{case.get('classname')}::{case.get('name')}" for case in failed]
    return Outcome(len(cases) - len(failed) - skipped, skipped, names, seconds, _reached(cases))


def _reached(cases: list[ElementTree.Element]) -> dict[str, list[float]]:
    """What learning tests recorded under this name, by the test without its seed."""
    found: dict[str, list[float]] = {}
    for case in cases:
        for each in case.iter("property"):
            name = re.sub(r"\[\d+-?", "[", case.get("name", "")).replace("[]", "")
            found.setdefault(name, []).append(float(each.get("value", "nan")))
    return found


def _line(*columns: str) -> str:
    return f"{columns[0]:16}" + "".join(f"{column:>9}" for column in columns[1:])


def run_all(labels: list[str], options: list[str]) -> list[tuple[str, Outcome]]:
    """Run the tests under each setting that the processor has, and print the table on the way.

    Raises:
        SystemExit: if torch does not follow the environment.
    """
    own_level, _, numpy_features = probe(Setting("").environment([]))
    lacking = LEVELS[LEVELS.index(own_level) + 1 :] if own_level in LEVELS else LEVELS[1:]
    print(_line("setting/threads", "passed", "failed", "skipped", "seconds"), flush=True)
    outcomes = []
    for label in labels:
        setting = SETTINGS[label]
        if setting.level in lacking:
            print(f"{label:16}  skipped: this processor has {own_level} at most", flush=True)
            continue
        environment = setting.environment(numpy_features)
        level, threads, _ = probe(environment)
        if (level, threads) != (setting.level or own_level, setting.threads):
            raise SystemExit(f"torch has {level} and {threads} threads, though the environment asks for {setting}")
        outcomes.append((label, run(setting, environment, options)))
        print(outcomes[-1][1].row(setting), flush=True)
    return outcomes


def main() -> int:
    """The command; its exit status."""
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK)}, some tests")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="LEVEL/THREADS")
    given = parser.parse_args(arguments[:end])
    failed: dict[str, list[str]] = {}
    reached: dict[str, list[float]] = {}
    tests = TELLING if given.quick else ["tests"]
    for label, outcome in run_all(QUICK if given.quick else given.settings, arguments[end + 1 :] or tests):
        for name in outcome.failed:
            failed.setdefault(name, []).append(label)
        for name, values in outcome.reached.items():
            reached.setdefault(name, []).extend(values)
    for name, values in sorted(reached.items()):
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"reached {low:.3f} {middle:.3f} {high:.3f} in {len(values)} runs of {name}")
    for name, where in failed.items():
        print(f"FAILED {name} under {', '.join(where)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
