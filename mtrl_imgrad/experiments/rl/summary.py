"""Lines that a run prints at its start and at its end."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from mtrl_imgrad.agents.registry import Agent
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.experiments.rl.config import TrainConfig
from mtrl_imgrad.experiments.rl.csv_table import PROGRESS
from mtrl_imgrad.experiments.rl.result import CHECKPOINTS
from mtrl_imgrad.experiments.run_folder import CONFIG, RESULT, in_shell


def print_start(
    console: Console,
    config: TrainConfig,
    folder: Path,
    agent: Agent,
    env: MultiTaskVecEnv,
    eval_env: MultiTaskVecEnv,
) -> None:
    """Print what is about to run."""
    count = sum(parameter.numel() for parameter in agent.policy.parameters())
    tasks = ", ".join(config.env.env)
    console.print(escape(f"{tasks}: {env.num_tasks} tasks, seed {config.seed}, in {folder}"), style="bold")
    console.print(f"simulator: {env.backend} to train, {eval_env.backend} to evaluate")
    console.print(f"agent: {type(agent).__name__}")
    console.print(escape(f"critic: {agent.critic_combiner}\nactor:  {agent.actor_combiner}"), soft_wrap=True)
    console.print(
        escape(
            f"encoder {config.policy.encoder!r} {list(config.policy.net_arch)}, {count:,} parameters, "
            f"batch {agent.batch_size}, on {agent.device}"
        )
    )


def print_end(console: Console, folder: Path, agent: Agent) -> None:
    """Print what the run left behind, and commands that go on from there."""
    contents = {
        "success_curve.png": "look at these first",
        "success_per_task.png": "",
        "evaluation_after.json": "the table above, as numbers",
        "model.zip": f"the agent at the end: {type(agent).__name__}.load(...)",
        "best_model.zip": "the best evaluation while training",
        PROGRESS: "all logs; TensorBoard's are beside it",
        RESULT: "all of this run's numbers, small",
        CONFIG: "repeats this run",
        CHECKPOINTS: f"with the replay; {type(agent).__name__}.load_checkpoint(...) learns on. Else remove them",
    }
    console.print(f"\nEverything is in {escape(str(folder))}", style="bold")
    for name, what in contents.items():
        if (folder / name).exists():
            console.print(f"  {name:<22}{what}")
    commands = (
        f"mtrl-imgrad evaluate {in_shell(folder)} --episodes 50",
        f"tensorboard --logdir {in_shell(folder)}",
        f"mtrl-imgrad train --config {in_shell(folder / CONFIG)} --seed 1",
    )
    console.print("What next:", style="bold")
    for command in commands:
        console.print(f"  {escape(command)}", soft_wrap=True)
