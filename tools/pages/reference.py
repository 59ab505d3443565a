"""The reference of public names: a page for each package that users import from."""

from __future__ import annotations

import importlib
import inspect

from mtrl_imgrad.agents.encoders import ENCODERS
from mtrl_imgrad.agents.registry import AGENTS
from mtrl_imgrad.combiners import combiner_class, list_combiners

PACKAGES = (
    "mtrl_imgrad",
    "mtrl_imgrad.combiners",
    "mtrl_imgrad.combiners.torchjd",
    "mtrl_imgrad.gradients",
    "mtrl_imgrad.envs",
    "mtrl_imgrad.agents",
    "mtrl_imgrad.agents.encoders",
    "mtrl_imgrad.evaluation",
    "mtrl_imgrad.evaluation.plots",
    "mtrl_imgrad.supervised.tasks",
    "mtrl_imgrad.supervised.datasets",
    "mtrl_imgrad.supervised.models",
    "mtrl_imgrad.supervised.trainer",
    "mtrl_imgrad.scenes",
    "mtrl_imgrad.synthetic",
    "mtrl_imgrad.errors",
)


def reference_page(package: str) -> str:
    """Names of ``__all__`` with their documentation; those that have a page of their own by a link."""
    module = importlib.import_module(package)
    summary = (inspect.getdoc(module) or "").split("\n\n")[0]
    lines, links, elsewhere = [f"# {package}", "", summary], [], _pages()
    for name in module.__all__:
        found = getattr(module, name)
        if not (inspect.isclass(found) or inspect.isfunction(found)):
            continue
        if found in elsewhere:
            links.append(f"[`{name}`](../{elsewhere[found]})")
        else:
            lines += ["", f"::: {found.__module__}.{found.__qualname__}"]
    if links:
        lines += ["", "## On pages of their own", "", ", ".join(links)]
    return "\n".join(lines)


def _pages() -> dict[object, str]:
    """Pages by the class that they are about."""
    found: dict[object, str] = {combiner_class(name): f"combiners/{name}.md" for name in list_combiners()}
    found |= {kind: f"encoders/{name}.md" for name, kind in ENCODERS.items()}
    return found | {kind: f"{name}.md" for name, kind in AGENTS.items()}
