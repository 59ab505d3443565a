"""Loading a forged checkpoint takes memory in proportion to its files, whatever sizes it speaks of."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.faults

FIXED = 40
"""MiB that loading may take beyond what the process has,"""
TIMES = 150
"""and times the bytes on the disk: of JSON, whose name of a task is few bytes and makes an agent keep a window."""


def _change(kind, place, value):
    """A case: the agent, where in its state, and what is put there."""
    return {"kind": kind, "place": place, "value": value}


def _argument(name, value, kind="MTSAC"):
    return _change(kind, ["arguments", "values", name], value)


def _policy(**kwargs):
    return _argument("policy_kwargs", {"net_arch": [8], **kwargs})


REFUSED = {
    "buffer": (_argument("buffer_size", 10**12), "buffer_size takes .* GiB"),
    "buffer beyond numbers": (_argument("buffer_size", 10**18), "buffer_size takes .* GiB"),
    "environments": (_change("MTSAC", ["tasks", "copies"], 10**12), "buffer_size must hold at least"),
    "rollout": (_argument("n_steps", 10**12, "MTPPO"), "does not fit"),
    "width": (_policy(net_arch=[10**9]), "policy_kwargs make actor"),
    "width beyond numbers": (_policy(net_arch=[10**12, 10**12]), "does not fit"),
    "a width that fits the machine": (_policy(net_arch=[20_000, 20_000]), "policy_kwargs make actor"),
    "depth": (_policy(net_arch=[8] * 30_000), "policy_kwargs ask for more than .* parameters"),
    "critics": (_policy(n_critics=10**9), "policy_kwargs ask for more than .* parameters"),
    "experts": (_policy(encoder="moore", encoder_kwargs={"num_experts": 10**9}), "num_experts"),
    "modules": (
        _policy(encoder="soft_modularization", encoder_kwargs={"num_module_layers": 10**9}),
        "policy_kwargs ask for more than .* parameters",
    ),
    "wide modules": (
        _policy(encoder="soft_modularization", encoder_kwargs={"num_modules": 10**4, "module_width": 10**4}),
        "policy_kwargs ask for more than .* parameters",
    ),
    "tasks": (_change("MTSAC", ["tasks", "names"], [str(i) for i in range(100_000)]), "batch_size"),
    "rows": ({"header": "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }"}, "replay_rows"),
    "a sparse file": ({"sparse": 2**40}, "tensors.*(memory|Memory|read)"),
    "a file that is not there": ({"declared": 2**50}, "tensors.* is damaged"),
    "a state that is too long": ({"state": 2**23 + 3}, "bytes; at most"),
    "a state of many parts": ({"state": 2**20}, "is not a state"),
}
LOADED = {
    "a buffer that is hardly filled": _argument("buffer_size", 8_000_000),
    "a batch": _argument("batch_size", 4 * 10**15),
    "a window": _argument("stats_window_size", 10**15),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """See `forged_sizes`."""
    cases = {name: case for name, (case, _) in REFUSED.items()} | LOADED
    command = [sys.executable, "-m", "tests.support.agents.forged_sizes", str(tmp_path_factory.mktemp("forged"))]
    done = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", REFUSED)
def test_sizes_that_no_file_holds_are_refused(name, found):
    error, growth, size = found[name]
    assert error is not None
    assert error.startswith("CheckpointError: ")
    assert re.search(REFUSED[name][1], error), error
    assert growth < FIXED + TIMES * size


@pytest.mark.parametrize("name", LOADED)
def test_sizes_that_are_never_reached_cost_nothing(name, found):
    error, growth, size = found[name]
    assert error is None
    assert growth < FIXED + TIMES * size
