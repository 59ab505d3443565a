"""Tune a method with Optuna: one study, as many workers as you start, unpromising trials cut short by their success.

    pip install optuna
    python examples/tune_optuna.py --out runs/tune &           # a worker; all that share the folder share the study
    python examples/tune_optuna.py --out runs/tune             # another one, here or on another machine
    python examples/tune_optuna.py --preset mt10_laptop --out runs/tune_mt10

Each trial is a run of `mtrl_imgrad.experiments.rl.train` in a folder of its own, all of one seed: confirm what wins
with `mtrl-imgrad compare` on other seeds. Without ``--preset`` the tasks are the toy set.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend
from stable_baselines3.common.callbacks import BaseCallback

from mtrl_imgrad.agents.callbacks.evaluation import MTEvalCallback
from mtrl_imgrad.experiments.presets import list_presets, preset_path
from mtrl_imgrad.experiments.rl.config import TrainConfig, load_config, train_config_class
from mtrl_imgrad.experiments.rl.methods import with_method
from mtrl_imgrad.experiments.rl.train import train


class Prune(BaseCallback):
    """Tells a trial its success after each evaluation, and ends it where it lies behind the others at that step."""

    parent: MTEvalCallback

    def __init__(self, trial: optuna.Trial) -> None:
        super().__init__()
        self.trial = trial

    def _on_step(self) -> bool:
        assert self.parent.last_report is not None
        self.trial.report(self.parent.last_report.mean_success, self.num_timesteps)
        if self.trial.should_prune():
            raise optuna.TrialPruned
        return True


def objective(trial: optuna.Trial, base: TrainConfig, folder: Path) -> float:
    """The mean success after training with the trial's settings."""
    radius = trial.suggest_float("c", 0.1, 0.9)
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    config = with_method(base, f"imgrad:c={radius}")
    agent = dataclasses.replace(config.agent, learning_rate=rate)
    config = dataclasses.replace(config, agent=agent, run_dir=folder / f"trial_{trial.number}")
    return train(config, progress_bar=False, after_evaluation=Prune(trial)).after.mean_success


def toy_config(steps: int) -> TrainConfig:
    """A short run, evaluated five times."""
    config = train_config_class("mtsac")()
    return dataclasses.replace(
        config,
        env=dataclasses.replace(config.env, env=("toy-reach",)),
        agent=dataclasses.replace(
            config.agent, gamma=0.9, learning_starts=1000, batch_size=4 * 32, reward_normalization="std"
        ),
        policy=dataclasses.replace(config.policy, net_arch=(64, 64)),
        evaluation=dataclasses.replace(config.evaluation, eval_freq=steps // 5, eval_episodes=10, final_episodes=20),
        total_timesteps=steps,
    )


def main() -> None:
    """Add trials to the study, and print the best of all workers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=list_presets("rl"), help="what to tune; else the toy set")
    parser.add_argument("--steps", type=int, default=8000, help="environment steps of a trial on the toy set")
    parser.add_argument("--trials", type=int, default=10, help="of this worker")
    parser.add_argument("--out", type=Path, default=Path("runs/tune"), help="folder of the study and its runs")
    arguments = parser.parse_args()
    base = toy_config(arguments.steps) if arguments.preset is None else load_config(preset_path("rl", arguments.preset))
    arguments.out.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="tune",
        direction="maximize",
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(arguments.out / "study.log"))),
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )
    study.optimize(lambda trial: objective(trial, base, arguments.out), n_trials=arguments.trials)
    print(f"best of {len(study.trials)} trials: success {study.best_value:.2f} with {study.best_params}")


if __name__ == "__main__":
    main()
