"""An encoder of your own: every task scales and shifts the features of one shared trunk.

    python examples/own_encoder.py --steps 20000

The class goes to the agent as it is; a line in ``mtrl_imgrad/agents/encoders/__init__.py`` would give it a name.
"""

from __future__ import annotations

import argparse

from torch import Tensor, nn

from mtrl_imgrad import MTSAC, evaluate_success, make_vec_env
from mtrl_imgrad.agents.encoders import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.layers import TaskEmbedding, mlp


class ScaleAndShift(Encoder):
    """``out(scale_k * trunk(inputs) + shift_k)``.

    Layers of ``encoders.layers`` hold what is a task's own: the combiner sees the trunk's gradients only. There is no
    loop over tasks; ``task`` tells of each row whose it is.
    """

    name = "scale_and_shift"

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        width = spec.net_arch[-1]
        self.trunk = mlp(spec.in_features, spec)
        self.scale = TaskEmbedding(spec.num_tasks, width)
        self.shift = TaskEmbedding(spec.num_tasks, width)
        self.out = nn.Linear(width, spec.out_features)

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """``[N, in_features]`` and one-hot ``[N, K]`` to ``[N, out_features]``."""
        return self.out(self.scale(task) * self.trunk(inputs) + self.shift(task))


def main() -> None:
    """Train on the toy set, and print the table of tasks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000, help="environment steps over all tasks")
    steps = parser.parse_args().steps
    agent = MTSAC(
        "MlpPolicy",
        make_vec_env("toy-reach", seed=0),
        learning_rate=3e-3,
        gamma=0.9,
        learning_starts=1000,
        batch_size=4 * 32,
        reward_normalization="std",
        policy_kwargs={"net_arch": [64, 64], "encoder": ScaleAndShift},
        seed=0,
    )
    agent.learn(steps, progress_bar=True)
    print(evaluate_success(agent, make_vec_env("toy-reach", seed=1), n_episodes=20))


if __name__ == "__main__":
    main()
