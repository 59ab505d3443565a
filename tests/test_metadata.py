"""What surrounds the package: one version, a workflow that runs CI's script, a sdist with the package's files."""

import tomllib
from importlib import metadata

import yaml

from mtrl_imgrad import __version__
from tests.support.paths import ROOT
from tools import dist_check


def test_the_version_is_written_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "mtrl_imgrad.__version__"}
    assert metadata.version("mtrl-imgrad") == __version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == __version__


def test_the_workflow_runs_the_script():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert [step["run"] for step in jobs["tests"]["steps"] if "run" in step] == [".ci/run"]


def test_every_file_of_the_package_is_package_data():
    kinds = {path.suffix or path.name for path in (ROOT / "mtrl_imgrad").rglob("*") if path.is_file()}
    checked = {pattern.removeprefix("*") for pattern in dist_check.CONTENTS} | {".py", ".json", ".typed"}
    assert kinds - {".pyc"} <= checked
