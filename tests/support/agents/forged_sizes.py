"""Forges checkpoints that speak of large sizes, and loads them: a program of `test_bounded_memory`.

Cases come in as JSON; out go, of each, the error, the MiB by which the peak of the process's memory rose, and those
that the checkpoint takes on the disk.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from multiprocessing import get_context
from pathlib import Path

from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.checkpoints.format import read_checkpoint, write_checkpoint
from mtrl_imgrad.envs import make_vec_env
from tests.checkpoints.test_damaged_checkpoints import _forge, _npy, _sign

COMMON = {"policy_kwargs": {"net_arch": [8]}, "batch_size": 8, "seed": 0, "device": "cpu", "trace": False}
AGENTS = {
    "MTSAC": (MTSAC, {"buffer_size": 400, "learning_starts": 40}),
    "MTPPO": (MTPPO, {"n_steps": 10}),
}
ROOM = 3 * 2**30
"""Bytes of addresses beyond those in use: more than any case may take, so that what is refused is refused in time."""


def save_genuine(root):
    """A checkpoint of each agent, loaded once so that the process holds whatever loading needs."""
    for name, (kind, options) in AGENTS.items():
        agent = kind("MlpPolicy", make_vec_env("toy-reach", seed=0), **COMMON, **options)
        agent.learn(60).save_checkpoint(root / name)
        kind.load_checkpoint(root / name, device="cpu")


def forge(case, root, target):
    state = read_checkpoint(root / case.get("kind", "MTSAC"))
    if "place" in case:
        *outer, last = case["place"]
        inner = state
        for key in outer:
            inner = inner[key]
        inner[last] = case["value"]
    write_checkpoint(target, state)
    if "header" in case:
        _forge(target, "replay_rows", _npy(case["header"], b"0000"))
    if "state" in case:
        _forge(target, "state", b"[" + b"[]," * ((case["state"] - 2) // 3) + b"0]")
    if "sparse" in case or "declared" in case:
        manifest = json.loads((target / "manifest.json").read_bytes())
        entry = manifest["members"]["tensors"]
        entry["bytes"] = case.get("sparse") or case["declared"]
        if "sparse" in case:
            os.truncate(target / entry["file"], case["sparse"])
        _sign(target, manifest)


def load(work):
    """Of a process that does nothing else: see the module."""
    case, target = work
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        AGENTS[case.get("kind", "MTSAC")][0].load_checkpoint(target, device="cpu")
        error = None
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return error, growth, sum(path.stat().st_blocks * 512 for path in target.iterdir()) / 2**20


def main():
    root, cases = Path(sys.argv[1]), json.load(sys.stdin)
    save_genuine(root)
    targets = {name: root / str(number) for number, name in enumerate(cases)}
    for name, case in cases.items():
        forge(case, root, targets[name])
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    with get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        found = pool.map(load, [(case, targets[name]) for name, case in cases.items()], chunksize=1)
    print(json.dumps(dict(zip(cases, found, strict=True))))


if __name__ == "__main__":
    main()
