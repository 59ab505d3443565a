"""Checkpoints of every release load, act as they did, and learn on. `tools/make_release_checkpoint.py` makes them."""

from __future__ import annotations

import contextlib
import json
import shutil

import numpy as np
import pytest

import mtrl_imgrad
from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.envs import make_vec_env
from tests.support.paths import DATA

pytestmark = [pytest.mark.faults, pytest.mark.portable]

FOLDER = DATA / "checkpoints"
RECORDS = sorted(FOLDER.glob("*/*.json"))
AGENTS = {"MTSAC": MTSAC, "MTPPO": MTPPO}


def test_this_version_has_its_checkpoints():
    found = {path.stem for path in RECORDS if path.parent.name == mtrl_imgrad.__version__}
    assert found == {"mtsac", "mtsac_without_replay", "mtppo"}, "run tools/make_release_checkpoint.py"


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_it_acts_as_it_did_and_learns_on(record, tmp_path):
    behaviour = json.loads(record.read_text())
    kind, folder = AGENTS[behaviour["agent"]], tmp_path / "copy"
    shutil.copytree(record.with_suffix(""), folder)
    warning = contextlib.nullcontext() if behaviour["replay"] else pytest.warns(UserWarning, match="without its replay")
    with warning:
        agent = kind.load_checkpoint(folder, make_vec_env("toy-reach", seed=0), device="cpu")
    observations, actions = (np.array(behaviour[key], np.float32) for key in ("observations", "actions"))
    found, _ = agent.predict(observations, deterministic=True)
    np.testing.assert_allclose(found, actions, atol=1e-5)
    assert np.abs(actions).max() > 1e-3
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    agent.learn(4 * 16, reset_num_timesteps=False)
    assert agent.num_timesteps == behaviour["num_timesteps"] + 4 * 16
    assert any(not value.equal(before[name]) for name, value in agent.policy.state_dict().items())
