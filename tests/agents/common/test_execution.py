"""The arguments ``compile`` and ``precision``: what is chosen, what is said, what a resumed run takes over."""

import pytest
import torch

from mtrl_imgrad import MTPPO, MTSAC, make_vec_env
from mtrl_imgrad.agents.checkpoints import parts
from mtrl_imgrad.agents.common import execution
from mtrl_imgrad.agents.encoders import list_encoders
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients import tracing

SMALL = {"policy_kwargs": {"net_arch": [8]}, "seed": 0, "device": "cpu"}
PPO = {"n_steps": 6, "n_epochs": 3}


def _ppo(**kwargs):
    env = make_vec_env("toy-reach", seed=0)
    return MTPPO("MlpPolicy", env, **{**SMALL, **PPO, "batch_size": 4 * env.num_tasks, **kwargs})


def _sac(**kwargs):
    env = make_vec_env("toy-reach", seed=0)
    return MTSAC("MlpPolicy", env, **{**SMALL, "learning_starts": 0, "batch_size": 4 * env.num_tasks, **kwargs})


@pytest.fixture
def replayed(monkeypatch):
    """A compiler that hands back what it is given."""
    monkeypatch.setattr(execution, "missing_compiler", lambda device: None)
    monkeypatch.setattr(parts, "missing_compiler", lambda device: None)
    monkeypatch.setattr(tracing, "compile_graph", lambda graph, inputs: graph.forward)


@pytest.mark.parametrize("make", [_ppo, _sac])
def test_auto_leaves_a_short_run_as_it_is_and_says_so(make, replayed, capsys):
    agent = make(verbose=1)
    agent.learn(6 * agent.n_envs, log_interval=None)
    assert not agent.execution.compile
    assert "updates: replayed (compile='auto'" in capsys.readouterr().out


@pytest.mark.parametrize("make", [_ppo, _sac])
def test_auto_compiles_from_the_number_of_updates_that_learn_will_make(make, replayed, monkeypatch):
    agent = make()
    steps = 12 * agent.n_envs
    updates = agent._updates_in(steps)
    monkeypatch.setattr(execution, "WORTHWHILE", updates + 1)
    assert not execution.plan_execution(agent, steps, anew=True)[0]
    monkeypatch.setattr(execution, "WORTHWHILE", updates)
    agent.learn(steps, log_interval=None)
    assert agent.execution.compile
    per_count = 2 if isinstance(agent, MTPPO) else 1  # minibatches an epoch, which SB3 counts
    assert agent._n_updates * per_count == updates


def test_a_resumed_run_stays_with_what_its_beginning_chose(replayed, monkeypatch, tmp_path):
    monkeypatch.setattr(execution, "WORTHWHILE", 1)
    agent = _ppo().learn(12)
    agent.save_checkpoint(tmp_path / "one")
    monkeypatch.setattr(execution, "WORTHWHILE", 10**9)
    resumed = MTPPO.load_checkpoint(tmp_path / "one", make_vec_env("toy-reach", seed=0), device="cpu")
    resumed.learn(12, reset_num_timesteps=False)
    assert resumed.execution.compile
    monkeypatch.setattr(parts, "missing_compiler", lambda device: "there is no compiler")
    with pytest.warns(UserWarning, match="compiled, but there is no compiler"):
        MTPPO.load_checkpoint(tmp_path / "one", make_vec_env("toy-reach", seed=0), device="cpu")


def test_a_missing_compiler_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ArgumentError, match=r"compile=True.*apt install g\+\+"):
        _ppo(compile=True)
    compiles, line = execution.plan_execution(_ppo(), 10**9, anew=True)
    assert not compiles
    assert "no C++ compiler" in line


@pytest.mark.parametrize("wrong", [{"compile": True}, {"precision": "bf16"}])
def test_both_need_recorded_operations(wrong):
    with pytest.raises(ArgumentError, match=rf"{next(iter(wrong))}.*needs trace=True"):
        _ppo(trace=False, **wrong)


@pytest.mark.parametrize("wrong", [{"compile": "yes"}, {"precision": "float16"}])
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        _sac(**wrong)


def test_a_processor_without_bfloat16_is_warned_of(monkeypatch):
    monkeypatch.setattr(execution, "has_fast_bfloat16", lambda device: False)
    with pytest.warns(UserWarning, match="precision='bf16' is slow"):
        _sac(precision="bf16")


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.timeout(900)
@pytest.mark.parametrize("combiner", ["imgrad", "pcgrad", "mgda"])
@pytest.mark.parametrize("encoder", list_encoders())
def test_compiled_agents_are_the_recorded_ones_to_rounding(encoder, combiner):
    policy = {"net_arch": [8, 8], "encoder": encoder}
    found = []
    for compiles in (False, True):
        agent = _ppo(combiner=combiner, policy_kwargs=policy, compile=compiles).learn(6)
        found.append(torch.cat([parameter.detach().flatten() for parameter in agent.policy.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)
