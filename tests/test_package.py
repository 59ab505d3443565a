"""What importing costs, and the errors' family."""

import subprocess
import sys

import pytest

import mtrl_imgrad
from mtrl_imgrad import errors

HEAVY = ("gymnasium", "stable_baselines3", "metaworld", "mujoco", "envpool", "matplotlib", "cvxpy", "scipy", "tyro")


def _modules_after(*statements):
    """Names of all modules after each of the statements, in one process."""
    code = "\n".join(f"{statement}; import sys; print(' '.join(sys.modules))" for statement in statements)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_neither_combiners_nor_agents_cost_a_simulator():
    combiners, agents = _modules_after(
        "import mtrl_imgrad; mtrl_imgrad.make_combiner('imgrad')",
        "from mtrl_imgrad import MTPPO, MTSAC, make_vec_env, evaluate_success",
    )
    assert not set(HEAVY) & combiners
    assert not {"metaworld", "mujoco", "envpool", "cvxpy", "tyro"} & agents


def test_a_worker_process_costs_no_torch():
    (loaded,) = _modules_after("import mtrl_imgrad.envs.workers.processes, mtrl_imgrad.envs.backends.metaworld_rows")
    assert "metaworld" in loaded
    assert not {"torch", "stable_baselines3"} & loaded


def test_public_names():
    for name in mtrl_imgrad.__all__:
        assert getattr(mtrl_imgrad, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'MTPPPO'"):
        mtrl_imgrad.MTPPPO  # noqa: B018


def test_errors_are_one_family_that_plain_code_catches_too():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.MtrlImgradError)
    assert issubclass(errors.UnknownNameError, ValueError)
    assert issubclass(errors.EnvironmentFaultError, RuntimeError)
    assert issubclass(errors.MissingDependencyError, ImportError)
    message = str(errors.UnknownNameError("combiner", "cagard", ["cagrad", "mgda"]))
    assert message == "unknown combiner 'cagard'. Did you mean 'cagrad'? Known: cagrad, mgda"
