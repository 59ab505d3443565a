"""SACs that never update, with a logger that keeps what is written: what callbacks are tested on."""

from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from mtrl_imgrad.envs import make_vec_env

TASKS = make_vec_env("toy-reach", seed=0).task_names
NUM_ENVS = len(TASKS)


class Recorder(KVWriter):
    """Keeps what is written, step by step."""

    def __init__(self):
        self.written = []

    def write(self, key_values, key_excluded, step=0):
        self.written.append((step, dict(key_values), dict(key_excluded)))

    def close(self):
        pass

    def steps_of(self, key):
        return {step: values[key] for step, values, _ in self.written if key in values}


def make_sac(env=None, **options):
    """An SAC that never updates, as it is the callbacks that are tested; with a recording logger."""
    env = env or make_vec_env("toy-reach", seed=0)
    model = SAC("MlpPolicy", env, **{"learning_starts": 10**6, "buffer_size": 1000, "seed": 0, **options})
    recorder = Recorder()
    model.set_logger(Logger(None, [recorder]))
    return model, recorder


def eval_env():
    return make_vec_env("toy-reach", seed=1)


class Child(BaseCallback):
    """Called by an evaluation: keeps when, and what it found."""

    def __init__(self, answer=True):
        super().__init__()
        self.answer, self.seen = answer, []

    def _on_step(self):
        self.seen.append((self.num_timesteps, self.parent.last_report.mean_success, "infos" in self.locals))
        return self.answer
