"""What ``pip install mtrl-imgrad`` alone can do, and what is said where an extra is missing."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest

from mtrl_imgrad.errors import MissingDependencyError
from mtrl_imgrad.extras import PACKAGES, install_command, require
from tests.support.core_only import CORE, run_core_only
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "mtrl_imgrad").rglob("*.py")
)

TRAIN = """
import torch, mtrl_imgrad
trunk = torch.nn.Linear(3, 4); heads = torch.nn.ModuleList(torch.nn.Linear(4, 1) for _ in range(2))
optimizer = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], 1e-3)
for name in mtrl_imgrad.list_combiners():
    if name == "cotbal": continue  # must be given tables
    losses = [head(trunk(torch.ones(5, 3))).square().mean() for head in heads]
    mtrl_imgrad.make_combiner(name).backward(losses, trunk.parameters(), heads.parameters())
    optimizer.step(); optimizer.zero_grad()
print("trained", float(losses[0]) >= 0)
"""
MISSING = {
    "from mtrl_imgrad import MTSAC": "gymnasium, stable-baselines3, rich, safetensors, which are not installed",
    "from mtrl_imgrad import make_vec_env; make_vec_env('MT10')": r"pip install 'mtrl-imgrad\[rl\]'",
    "from mtrl_imgrad import make_vec_env; make_vec_env('toy-reach')": r"pip install 'mtrl-imgrad\[rl\]'",
    "import mtrl_imgrad; mtrl_imgrad.make_combiner('imgrad', solver='cvxpy')": "pip install cvxpy",
    "from mtrl_imgrad.supervised.datasets import NYUv2": r"needs pillow, .*: pip install 'mtrl-imgrad\[vision\]'",
}
CALL_ALL = """
from mtrl_imgrad.errors import MissingDependencyError
for code in {codes}:
    try:
        exec(code, {{}})
        print("ran")
    except MissingDependencyError as error:
        print("missing", error)
"""
IMPORT_ALL = """
import importlib
for name in {names}:
    try:
        importlib.import_module(name)
        print("imported", name)
    except MissingDependencyError as error:
        print("refused", name, error)
"""


@pytest.fixture(scope="module")
def core_only():
    """What a process with the core alone prints: of a training loop, of `MISSING`, of all imports, in this order."""
    done = run_core_only(TRAIN + CALL_ALL.format(codes=list(MISSING)) + IMPORT_ALL.format(names=MODULES))
    assert done.returncode == 0, done.stderr
    trained, *lines = done.stdout.splitlines()
    return trained, lines[: len(MISSING)], lines[len(MISSING) :]


def _names(requirements):
    return {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}


def _brought_by(extra):
    """Distributions of an extra and of those that it contains."""
    found = set()
    for requirement in EXTRAS[extra]:
        inner = re.match(r"mtrl-imgrad\[(.*)\]", requirement)
        found |= set().union(*map(_brought_by, inner[1].split(","))) if inner else _names([requirement])
    return found


def test_a_training_loop_needs_the_core_only(core_only):
    assert core_only[0] == "trained True"


def test_every_module_imports_with_the_core_or_names_the_command(core_only):
    lines = [line.split(" ", 2) for line in core_only[2]]
    assert [line[1] for line in lines] == MODULES
    for what, name, *message in lines:
        if what == "refused":
            assert re.search(r"not installed: pip install 'mtrl-imgrad\[\w+(,\w+)*\]'$", message[0]), name
    imported = {name for what, name, *_ in lines if what == "imported"}
    for room in ("combiners", "gradients", "validation", "seeding", "supervised.trainer", "supervised.models"):
        below = {name for name in MODULES if name.startswith(f"mtrl_imgrad.{room}")}
        assert below - imported <= {"mtrl_imgrad.combiners.method_strings", "mtrl_imgrad.combiners.torchjd"}


@pytest.mark.parametrize("code", MISSING)
def test_what_is_missing_is_said(core_only, code):
    assert re.search(f"^missing .*{MISSING[code]}", core_only[1][list(MISSING).index(code)])


def test_the_command_line_says_in_a_line_what_it_needs():
    done = run_core_only("import sys; from mtrl_imgrad.__main__ import main; sys.exit(main())")
    expected = "needs tyro, rich, which are not installed: pip install 'mtrl-imgrad[cli]'\n"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(expected)


def test_the_package_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "mtrl_imgrad", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("mtrl-imgrad ")


def test_each_package_is_in_its_extra():
    assert _names(PROJECT["dependencies"]) == set(CORE)
    for module, (package, extra) in PACKAGES.items():
        assert not extra or package in _brought_by(extra) & _brought_by("all"), module
    for extra in EXTRAS:
        assert extra in ("cli", "torchjd") or _brought_by("cli") <= _brought_by(extra)


def test_every_package_that_is_imported_is_listed():
    allowed = {*sys.stdlib_module_names, "mtrl_imgrad", *PACKAGES, *(name.replace("-", "_") for name in CORE)}
    found = {}
    for path in (ROOT / "mtrl_imgrad").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            found |= {name.split(".")[0]: path.name for name in names}
    assert {name: file for name, file in found.items() if name not in allowed} == {}


def test_require_names_all_that_is_missing(monkeypatch):
    for module in ("rich", "gymnasium"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"^it needs rich, gymnasium, which are not installed: .*\[rl\]'$"):
        require("it", "rich", "yaml", "gymnasium")
    require("it", "yaml")
    assert install_command("yaml") == "pip install 'mtrl-imgrad[cli]'"
