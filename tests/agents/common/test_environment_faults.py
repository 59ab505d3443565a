"""A NaN or an infinity from an environment in which an agent learns: what is said, what stays clean, what goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from mtrl_imgrad.agents import MTPPO, MTSAC, MTCheckpointCallback, MTEvalCallback, latest_checkpoint
from mtrl_imgrad.agents.callbacks.checkpoints import list_checkpoints
from mtrl_imgrad.checkpoints.format import delete_checkpoint
from mtrl_imgrad.cli import main
from mtrl_imgrad.envs import MultiTaskVecEnv
from mtrl_imgrad.envs.backends.envpool import EnvPoolVecEnv
from mtrl_imgrad.envs.backends.toy import ToyReachVecEnv
from mtrl_imgrad.errors import EnvironmentFaultError
from mtrl_imgrad.experiments.rl import train
from tests.support.envs.poisoned_rows import COLUMN, ORDER, WHERE, order, poisonable

pytestmark = pytest.mark.faults

HORIZON = 8
BAD = {"reward": np.inf, "observation": np.nan, "terminal observation": -np.inf, "first observation": np.nan}
METAWORLD = ["reach-v3", "push-v3"]


@pytest.fixture(autouse=True)
def order_file(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("poison") / "order"
    monkeypatch.setenv(ORDER, str(path))
    return path


def make_toy(**options: Any) -> ToyReachVecEnv:
    return ToyReachVecEnv(horizon=HORIZON, **options)


def make_envpool() -> MultiTaskVecEnv:
    pytest.importorskip("envpool")
    return EnvPoolVecEnv(METAWORLD, horizon=HORIZON)


def make_metaworld(**options: Any) -> MultiTaskVecEnv:
    from mtrl_imgrad.envs.backends.metaworld import MetaWorldVecEnv
    from tests.support.envs.poisoned_metaworld import PoisonedMetaWorldRows

    class PoisonedMetaWorldVecEnv(MetaWorldVecEnv):
        rows_factory = PoisonedMetaWorldRows

    return PoisonedMetaWorldVecEnv(METAWORLD, horizon=HORIZON, num_goals=3, **options)


def sac(env: Any, **options: Any) -> MTSAC:
    settings = {"learning_starts": 10, "batch_size": 12, "buffer_size": 400, "policy_kwargs": {"net_arch": [8]}}
    return MTSAC("MlpPolicy", env, seed=0, device="cpu", **{**settings, "trace": False, **options})


def ppo(env: Any) -> MTPPO:
    options = {"n_steps": 6, "batch_size": 12, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}}
    return MTPPO("MlpPolicy", env, seed=0, device="cpu", trace=False, **options)


AGENTS: dict[str, Callable[[Any], MTSAC | MTPPO]] = {"mtsac": partial(sac, train_freq=3), "mtppo": ppo}
BACKENDS: dict[str, tuple[Callable[[], MultiTaskVecEnv], type[MultiTaskVecEnv] | None]] = {
    "toy": (make_toy, ToyReachVecEnv),
    "envpool": (make_envpool, EnvPoolVecEnv),
    "metaworld": (make_metaworld, None),
    "async": (lambda: make_metaworld(vector_strategy="async", num_workers=2), None),
}
"""How each is made, and the class to poison where its rows do not do it themselves."""


class Poisoner(BaseCallback):
    """Orders the poison for the step after one in the midst of learning: for row 1, in the midst or at an end."""

    def __init__(self, where: str, after: int = 9) -> None:
        super().__init__()
        self.where, self.after = where, after
        self.length = self.ordered_at = 0

    def _on_step(self) -> bool:
        self.length = 0 if self.locals["dones"][1] else self.length + 1
        ends = self.length == HORIZON - 1
        wanted = ends if self.where.partition(" ")[0] in ("terminal", "first") else 0 < self.length < HORIZON - 2
        if not self.ordered_at and self.n_calls >= self.after and wanted:
            self.ordered_at = self.model.num_timesteps
            self.act()
        return True

    def act(self) -> None:
        order(self.where, 1, BAD[self.where])


def numbers(agent: MTSAC | MTPPO) -> dict[str, torch.Tensor]:
    """All that learning changes: parameters, moments of the optimizers, temperatures, and what the replay holds."""
    found = {f"policy.{name}": value for name, value in agent.policy.state_dict().items()}
    optimizers = {"actor": agent.actor.optimizer, "critic": agent.critic.optimizer}
    if isinstance(agent, MTSAC):
        assert agent.ent_coef_optimizer is not None
        optimizers["temperature"] = agent.ent_coef_optimizer
        found |= {"temperature": agent.log_ent_coef, "mean": agent.replay_buffer._moments.mean}
        found |= {"replay": agent.replay_buffer._rows, "squares": agent.replay_buffer._moments.sum_of_squares}
    for name, optimizer in optimizers.items():
        for number, moments in enumerate(optimizer.state.values()):
            found |= {f"{name}.{number}.{key}": value for key, value in moments.items()}
    return {name: value.detach().clone() for name, value in found.items()}


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def assert_refused(agent: MTSAC | MTPPO, poisoner: Poisoner, pattern: str) -> None:
    """Learning ends in the poisoned step with that error, and nothing that is kept has taken it in."""
    with pytest.raises(EnvironmentFaultError, match=pattern):
        agent.learn(400, poisoner, reset_num_timesteps=False)
    assert poisoner.ordered_at > 0
    assert agent.num_timesteps - poisoner.ordered_at <= agent.n_envs
    for name, value in numbers(agent).items():
        assert torch.isfinite(value).all(), name
    assert agent.ep_info_buffer is not None
    assert all(np.isfinite(info["r"]) for info in agent.ep_info_buffer)


def field_of(where: str) -> str:
    return "the reward" if where == "reward" else rf"observation\[{COLUMN}\]"


def step_of(where: str) -> str:
    return {"terminal observation": str(HORIZON), "first observation": "0"}.get(where, r"\d")


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        *(("mtsac", backend) for backend in BACKENDS),
        ("mtppo", "toy"),
        *(pytest.param("mtppo", backend, marks=pytest.mark.slow) for backend in BACKENDS if backend != "toy"),
    ],
)
def test_every_back_end_names_what_it_was_in_the_step_in_which_it_comes(kind: str, backend: str) -> None:
    make, patched = BACKENDS[backend]
    with nullcontext() if patched is None else poisonable(patched):
        # Workers start anew after each fault, and slowly: two places show that what they hand over is looked at.
        _poison(AGENTS[kind], make(), WHERE[::3] if backend == "async" else WHERE)


def _poison(make_agent: Any, env: MultiTaskVecEnv, places: tuple[str, ...]) -> None:
    agent = make_agent(env).learn(env.num_envs * 8)
    for where in places:
        pattern = (
            rf"{field_of(where)} is {BAD[where]} in task '{env.task_names[1]}', environment 1, "
            f"step {step_of(where)} of its episode"
        )
        before = agent.num_timesteps
        poisoner = Poisoner(where, after=5)
        assert_refused(agent, poisoner, pattern)
        assert agent.num_timesteps == poisoner.ordered_at, "a step that failed does not count"
        learned = numbers(agent)
        agent.learn(env.num_envs * 8, reset_num_timesteps=False)  # the same agent goes on, in new episodes
        assert agent.num_timesteps >= before + env.num_envs * 8
        assert any(not torch.equal(value, learned[name]) for name, value in numbers(agent).items() if "policy" in name)
    env.close()


def test_no_transition_leads_from_one_episode_into_another() -> None:
    with poisonable(ToyReachVecEnv):
        agent = sac(make_toy())
        for _ in range(3):
            assert_refused(agent, Poisoner("reward"), "the reward is inf")
            agent.env.reset()  # which one may do, but need not
    rows = agent.replay_buffer._rows[: agent.replay_buffer.pos]
    width = agent.replay_buffer._widths[0]
    assert len(rows) >= 27
    assert torch.equal(rows[..., 2:4], rows[..., width + 2 : width + 4]), "a goal stays through its episode"


# ---------------------------------------------------------------------- environments that are not ours


class Line(gym.Env):
    """A point on a line; its next step returns what it is told to."""

    observation_space = gym.spaces.Box(-10, 10, (3,), dtype=np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), dtype=np.float32)

    def __init__(self) -> None:
        self.bad: dict[str, float] = {}

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(**options)
        self.steps, self.position = 0, self.np_random.uniform(-1, 1)
        return self._observe("first observation"), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.position = float(np.clip(self.position + 0.1 * action[0], -1, 1))
        ends = self.steps == HORIZON
        observation = self._observe("terminal observation" if ends else "observation")
        return observation, self.bad.pop("reward", self.position), False, ends, {}

    def _observe(self, where: str) -> np.ndarray:
        return np.array([self.position, 0, self.bad.pop(where, 0)], dtype=np.float32)


class Reddened(VecEnvWrapper):
    """Somebody's wrapper of a multi-task environment, with a mistake in it."""

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self.bad: dict[str, float] = {}

    def reset(self) -> np.ndarray:
        observations = self.venv.reset()
        observations[1, COLUMN] = self.bad.pop("first observation", observations[1, COLUMN])
        return observations

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        rewards[1] = self.bad.pop("reward", rewards[1])
        if dones[1]:
            last = infos[1]["terminal_observation"]
            last[COLUMN] = self.bad.pop("terminal observation", last[COLUMN])
        where = "first observation" if dones[1] else "observation"
        observations[1, COLUMN] = self.bad.pop(where, observations[1, COLUMN])
        return observations, rewards, dones, infos


class ForeignPoisoner(Poisoner):
    def __init__(self, where: str, bad: dict[str, float]) -> None:
        super().__init__(where)
        self.bad = bad

    def act(self) -> None:
        self.bad[self.where] = BAD[self.where]


def make_foreign(kind: str) -> tuple[Any, dict[str, float], str]:
    """An environment, what poisons its row 1, and that row's task."""
    if kind == "wrapper":
        env = Reddened(make_toy())
        return env, env.bad, "toy-reach/up"
    lines = [Line() for _ in range(3)]
    return DummyVecEnv([lambda line=line: line for line in lines]), lines[1].bad, "task"


@pytest.mark.parametrize(
    ("kind", "foreign"),
    [
        ("mtsac", "VecEnv"),
        ("mtppo", "wrapper"),
        pytest.param("mtsac", "wrapper", marks=pytest.mark.slow),
        pytest.param("mtppo", "VecEnv", marks=pytest.mark.slow),
    ],
)
def test_environments_of_others_are_checked_before_anything_sees_their_numbers(kind: str, foreign: str) -> None:
    env, bad, task = make_foreign(foreign)
    agent = AGENTS[kind](env).learn(env.num_envs * 12)
    for where in WHERE:
        field = "reward" if where == "reward" else rf"{where.removeprefix('first ')}\[{COLUMN}\]"
        poisoner = ForeignPoisoner(where, bad)
        step = r"step (\d+) of learning"
        assert_refused(agent, poisoner, rf"the {field} is {BAD[where]} in task '{task}', environment 1, {step}")
        agent.learn(env.num_envs * 12, reset_num_timesteps=False)


def test_a_gymnasium_environment_that_begins_with_a_nan() -> None:
    env = Line()
    agent = sac(env)
    env.bad["first observation"] = np.nan
    with pytest.raises(EnvironmentFaultError, match=r"observation\[2\] is nan in task 'task', environment 0, step 0 "):
        agent.learn(20)
    agent.learn(20, reset_num_timesteps=False)
    assert agent.num_timesteps == 20


# ---------------------------------------------------------------------- evaluations


def test_a_nan_in_an_evaluation_is_named_and_learning_can_go_on() -> None:
    with poisonable(ToyReachVecEnv):
        agent, other = sac(make_toy()), make_toy(seed=1)
        evaluation = MTEvalCallback(other, n_eval_episodes=1, eval_freq=10, verbose=0)
        order("terminal observation", 2, np.nan)
        agent.env._reset_rows = lambda rows: np.zeros((len(rows), 4))  # the poison is for the other one
        agent.env._recv = lambda: (np.zeros((4, 4)), np.zeros(4), np.zeros(4, bool))
        with pytest.raises(EnvironmentFaultError, match=r"observation\[2\] is nan in task 'toy-reach/left', env"):
            agent.learn(80, evaluation)
        agent.learn(80, evaluation, reset_num_timesteps=False)
    assert agent.num_timesteps == 40 + 80


# ---------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("kind", AGENTS)
def test_a_checkpoint_from_before_the_step_is_saved_and_named(kind: str, tmp_path: Path) -> None:
    with poisonable(ToyReachVecEnv):
        agent = AGENTS[kind](make_toy())
        with pytest.raises(EnvironmentFaultError) as caught:
            agent.learn(4000, [Poisoner("reward", after=40), MTCheckpointCallback(1000, tmp_path)])
    saved = latest_checkpoint(tmp_path)
    assert any(str(saved) in note for note in caught.value.__notes__)
    at_fault = agent.num_timesteps, numbers(agent)
    agent.learn(100, reset_num_timesteps=False)
    resumed = type(agent).load_checkpoint(saved, make_toy(), device="cpu")
    assert resumed.num_timesteps == at_fault[0]
    assert_same(numbers(resumed), at_fault[1])
    resumed.learn(100, reset_num_timesteps=False)
    assert_same(numbers(resumed), numbers(agent))  # with the same next episodes and random numbers


@pytest.mark.parametrize("make", [make_toy, make_envpool, make_metaworld])
def test_the_next_goals_are_those_that_would_have_come(make: Any) -> None:
    env, other = make(), make()
    env.reset()
    for _ in range(HORIZON + 3):
        env.step(np.zeros((env.num_envs, *env.action_space.shape)))
    other.set_state(env.get_state(episodes=False))
    np.testing.assert_array_equal(other.reset(), env.reset())


def test_nothing_is_saved_where_nothing_was_learned(tmp_path: Path) -> None:
    with poisonable(ToyReachVecEnv):
        agent = sac(make_toy())
        order("first observation", 1, np.nan)
        with pytest.raises(EnvironmentFaultError):
            agent.learn(400, MTCheckpointCallback(1000, tmp_path))
    assert list_checkpoints(tmp_path) == []


# ---------------------------------------------------------------------- the command line


RUN = (
    "--env toy-reach --total-timesteps 800 --net-arch 8 --batch-size 12 --eval-freq 400 --eval-episodes 1 "
    "--final-episodes 1 --checkpoint-every 200 --no-progress-bar --no-trace"
).split()
GOOD_STEPS = 189


@pytest.fixture
def ill(monkeypatch: pytest.MonkeyPatch) -> None:
    """toy-reach returns an infinite reward in its 190th step of training, and is well thereafter."""
    receive, steps = ToyReachVecEnv._recv, 0

    def recv(self: ToyReachVecEnv) -> Any:
        nonlocal steps
        observations, rewards, success = receive(self)
        if self.initial_seed == 0:  # evaluations have another
            steps += 1
            rewards[3] = np.inf if steps == GOOD_STEPS + 1 else rewards[3]
        return observations, rewards, success

    monkeypatch.setattr(ToyReachVecEnv, "_recv", recv)
    monkeypatch.setattr(train, "_draw", lambda *_: None)  # figures, which say nothing here and take a third of the time


@pytest.mark.usefixtures("ill")
@pytest.mark.parametrize(
    "options",
    ["--learning-starts 700", pytest.param("--agent mtppo --n-steps 25 --n-epochs 1", marks=pytest.mark.slow)],
    ids=["mtsac", "mtppo"],
)
def test_a_run_that_an_environment_broke_off_says_how_to_go_on_and_does(
    options: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["train", *RUN, *options.split(), "--run-dir", str(folder)]) == 1
    error = capsys.readouterr().err
    assert "EnvironmentFaultError: the reward is inf in task 'toy-reach/down', environment 3, step 15 of its" in error
    assert f"To go on from step_000000000756: mtrl-imgrad train --resume {folder}" in error
    periodic, last = list_checkpoints(folder / "checkpoints")
    assert (periodic.name, last.name) == ("step_000000000600", f"step_{GOOD_STEPS * 4:012d}")
    older = tmp_path / "older"
    shutil.copytree(folder, older)
    delete_checkpoint(older / "checkpoints" / last.name)
    for run in (folder, older):  # from the checkpoint of that moment, and from the periodic one before
        assert main(["train", "--resume", str(run), "--no-progress-bar"]) == 0
        assert (run / "evaluation_after.npz").exists()
        steps = int(latest_checkpoint(run / "checkpoints").name.removeprefix("step_"))
        assert 800 <= steps < 900, "MTPPO collects whole rollouts"
