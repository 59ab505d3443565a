"""A process that has no package but those of ``pip install mtrl-imgrad``, whatever is installed."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from importlib import metadata

from tests.support.paths import ROOT

CORE = ("torch", "numpy", "annotated-types")
SEEN_BY_TORCH = ("optree",)
"""torch asks for their metadata and then imports them."""

HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
import importlib.util
seen = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in HIDDEN else seen(name, package)
"""


def run_core_only(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code where the modules of all other distributions cannot be found."""
    hide = f"HIDDEN = {sorted(_others())!r}{HIDE}"
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, check=False, cwd=ROOT)


@functools.cache
def _others() -> frozenset[str]:
    """Modules that no distribution of the core brings."""
    core = _with_requirements((*CORE, *SEEN_BY_TORCH))
    homes = metadata.packages_distributions()
    return frozenset(
        module
        for module, names in homes.items()
        if module != "mtrl_imgrad" and not core & {_canonical(name) for name in names}
    )


def _with_requirements(names: tuple[str, ...]) -> set[str]:
    """Distributions with all that they need, directly or not; extras and other platforms' needs do not count."""
    found: set[str] = set()
    waiting = [_canonical(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another platform
            continue
        found.add(name)
        waiting += [_canonical(re.split(r"[^\w.-]", need)[0]) for need in needs if "extra ==" not in need]
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
