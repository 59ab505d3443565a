"""MTSAC beside Stable-Baselines3's SAC: the same VecEnv, network, batch and update frequency."""

from __future__ import annotations

from collections.abc import Callable

from stable_baselines3 import SAC

from benchmarks.timing import in_turn, table
from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.envs import make_vec_env

ENVS = 10


def _learner(name: str, net_arch: list[int], rows: int) -> Callable[[], object]:
    """A function that makes ten vector steps with an update after each, as ``learn`` does them."""
    env = make_vec_env("MT10", seed=0)
    common = {"learning_starts": 0, "batch_size": rows * ENVS, "buffer_size": 200_000, "seed": 0, "device": "cpu"}
    if name == "SB3 SAC":
        agent = SAC("MlpPolicy", env, policy_kwargs={"net_arch": net_arch}, **common)
    else:
        kwargs = {"net_arch": net_arch, "encoder": "one_hot"}
        agent = MTSAC("MlpPolicy", env, combiner=name, policy_kwargs=kwargs, **common)
    agent.learn(20 * ENVS)
    return lambda: agent.learn(10 * ENVS, reset_num_timesteps=False, log_interval=None)


def run() -> str:
    """SB3's SAC does one plain backward; ours, but for linear_scalarization, has all K gradients."""
    parts = []
    for net_arch, rows in (([400, 400, 400], 128), ([256, 256], 32)):
        names = ("SB3 SAC", "linear_scalarization", "cagrad", "imgrad")
        timings = in_turn({name: _learner(name, net_arch, rows) for name in names}, calls=1, rounds=5, warm_up=1)
        steps = [
            (
                name,
                f"{timing.median / 10:.3g}",
                f"{1e4 / timing.median:.3g}",
                f"{timing.ratio_to(timings['SB3 SAC']):.2f}",
            )
            for name, timing in timings.items()
        ]
        parts.append(
            table(
                f"Training on MT10, {net_arch}, {rows} rows a task: vector step and update",
                ("agent", "CPU ms", "updates/s", "time / SB3"),
                steps,
            )
        )
    return "\n".join(parts)
