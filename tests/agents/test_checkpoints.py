"""Agents that go on from a checkpoint, in another process, as if nothing had happened."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.agents.checkpoint import read_checkpoint
from mtrl_imgrad.envs import make_vec_env

SMALL = {"net_arch": [16, 16]}
SAC = {"policy_kwargs": SMALL, "learning_starts": 80, "batch_size": 32, "buffer_size": 240, "seed": 3, "device": "cpu"}
PPO = {"policy_kwargs": SMALL, "n_steps": 20, "batch_size": 32, "n_epochs": 2, "seed": 3, "device": "cpu"}
PAIRS = {
    "gradvac-famo": ({"actor": "gradvac", "critic": "famo"}, {}),
    "imgrad-moco": ({"actor": "imgrad", "critic": "moco"}, {"actor": {"update_every": 3}, "critic": {}}),
}
"""Combiners with tables, counters, logits, frozen weights and generators."""


def _flat(value, place="", found=None):
    """Every leaf of a state by its place."""
    found = {} if found is None else found
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else None
    )
    if entries is None:
        found[place] = value
    else:
        for key, entry in entries:
            _flat(entry, f"{place}/{key}", found)
    return found


def _bits(value):
    """Equal for equal values only, NaN among them."""
    is_array = isinstance(value, (torch.Tensor, np.ndarray))
    return (str(value.dtype), value.shape, np.asarray(value).tobytes()) if is_array else repr(value)


def _assert_equal_states(ours, theirs):
    """All that a checkpoint holds is equal bit for bit, but for the seconds that episodes took."""
    (a, arrays), (b, other) = read_checkpoint(ours), read_checkpoint(theirs)
    a, b = _flat(a), _flat(b)
    assert a.keys() == b.keys()
    for place, value in a.items():
        if place.startswith("/progress/episodes/") and place.endswith("/t"):
            continue
        assert type(value) is type(b[place]), place
        assert _bits(value) == _bits(b[place]), place
    assert arrays.keys() == other.keys()
    for name, array in arrays.items():
        assert np.array_equal(array, other[name]), name


def _whole_run(kind, folder, steps, rest, env, **arguments):
    """Learn, save as ``half``, go on, save as ``whole``; the line of a program that does the second part anew."""
    agent = kind("MlpPolicy", env, **arguments)
    agent.learn(steps)
    agent.save_checkpoint(folder / "half")
    agent.learn(rest, reset_num_timesteps=False)
    agent.save_checkpoint(folder / "whole")
    return f"go_on({kind.__name__}, {str(folder)!r}, {rest}, {env.num_envs_per_task})"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every run in two ways: in one go, and with a break after which another process goes on."""
    root = tmp_path_factory.mktemp("runs")
    lines = []
    for name, (combiner, kwargs) in PAIRS.items():
        chosen = {"combiner": combiner, "combiner_kwargs": kwargs}
        # The break lies within episodes of 25 steps, and the rings of 60 rows are filled after it.
        env = make_vec_env("toy-reach", seed=0)
        lines.append(_whole_run(MTSAC, root / f"mtsac-{name}", 40 * 4, 70 * 4, env, **chosen, **SAC))
        env = make_vec_env("toy-reach", seed=0, num_envs_per_task=2)
        chosen["value_normalization"] = "popart"
        lines.append(_whole_run(MTPPO, root / f"mtppo-{name}", 320, 320, env, **chosen, **PPO))
    program = """
        import torch
        from mtrl_imgrad.agents import MTPPO, MTSAC
        from mtrl_imgrad.envs import make_vec_env

        def go_on(kind, folder, steps, copies):
            env = make_vec_env("toy-reach", seed=0, num_envs_per_task=copies)
            agent = kind.load_checkpoint(folder + "/half", env, device="cpu")
            agent.learn(steps, reset_num_timesteps=False)
            agent.save_checkpoint(folder + "/resumed")
    """
    code = "\n".join([textwrap.dedent(program), f"torch.set_num_threads({torch.get_num_threads()})", *lines])
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("agent", ["mtsac", "mtppo"])
def test_another_process_goes_on_bit_for_bit(agent, pair, folders):
    folder = folders / f"{agent}-{pair}"
    (state, arrays), (half, _) = read_checkpoint(folder / "whole"), read_checkpoint(folder / "half")
    assert state["progress"]["counters"]["num_timesteps"] > half["progress"]["counters"]["num_timesteps"]
    assert ("replay_rows" in arrays) == (agent == "mtsac")
    _assert_equal_states(folder / "whole", folder / "resumed")


def test_the_test_above_can_fail(folders):
    with pytest.raises(AssertionError):
        _assert_equal_states(folders / "mtsac-gradvac-famo" / "whole", folders / "mtsac-gradvac-famo" / "half")
