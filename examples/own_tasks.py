"""One agent on tasks of your own: pendulums in four gravities, which only the one-hot tells apart.

    python examples/own_tasks.py --steps 40000

Any Gymnasium environments will do, see docs/environments.md. Pendulum knows no success, so returns are compared: after
these 40,000 steps, three minutes of one core, they were -63, -88, -141 and -117 (one seed, ten episodes a task).
"""

from __future__ import annotations

import argparse

import gymnasium as gym

from mtrl_imgrad import MTSAC, evaluate_success, make_vec_env

GRAVITIES = {"moon": 1.6, "mars": 3.7, "earth": 9.8, "uranus": 11.2}


def make_tasks() -> dict[str, object]:
    """By name what builds the task's environment."""
    return {name: lambda g=g: gym.make("Pendulum-v1", g=g) for name, g in GRAVITIES.items()}


def main() -> None:
    """Train, and print the table of tasks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40_000, help="environment steps over all tasks")
    parser.add_argument("--episodes", type=int, default=10, help="a task, to evaluate")
    arguments = parser.parse_args()
    agent = MTSAC(
        "MlpPolicy",
        make_vec_env(make_tasks(), seed=0),
        learning_rate=1e-3,
        learning_starts=1000,
        batch_size=4 * 64,
        combiner="imgrad",
        policy_kwargs={"net_arch": [128, 128], "encoder": "multi_head"},
        seed=0,
    )
    agent.learn(arguments.steps, progress_bar=True)
    print(evaluate_success(agent, make_vec_env(make_tasks(), seed=1), n_episodes=arguments.episodes))


if __name__ == "__main__":
    main()
