"""The progress bar: lines, the live view, speed, success by task."""

import io
import re
from collections import deque

import numpy as np
from rich.console import Console
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import CallbackList

from mtrl_imgrad.agents.callbacks.progress import MTProgressBarCallback
from mtrl_imgrad.envs import make_vec_env
from tests.support.agents.recorded import NUM_ENVS, TASKS, Child, make_sac


class Clock:
    """Advances by ``tick`` seconds whenever it is read."""

    def __init__(self, tick):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


class TestProgress:
    def run(self, terminal, steps=60, tick=1.0, env=None, fail=False, **options):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, color_system=None, width=100)
        model, _ = make_sac(env)
        callback = MTProgressBarCallback(console=console, **options)
        callback._clock = Clock(tick)
        stop = Child() if fail else None
        try:
            model.learn(steps * NUM_ENVS, CallbackList([callback, stop] if stop else [callback]))
        except AttributeError:
            assert fail
        return callback, file.getvalue()

    def test_lines_where_there_is_no_terminal(self):
        callback, text = self.run(terminal=False, line_every=20.0)
        lines = text.splitlines()
        # One clock reading a step: drawn after 20, 40 and 60 of them, and at the end.
        assert [line.split()[0] for line in lines] == ["80/240", "160/240", "240/240", "240/240"]
        assert "(33%)  4 steps/s  0:00:20 gone, 0:00:40 left  success -  (right -" not in lines[0]
        assert "(33%)  4 steps/s  0:00:20 gone, 0:00:40 left" in lines[0]
        assert "\x1b" not in text
        assert lines[0].endswith("(" + ", ".join(f"{name} -" for name in TASKS) + ")")
        rates = {name: np.mean(found) for name, found in callback.successes.items()}
        assert lines[-1].endswith("(" + ", ".join(f"{n} {rate:.2f}" for n, rate in rates.items()) + ")")
        assert f"success {np.mean(list(rates.values())):.2f}" in lines[-1]

    def test_success_is_that_of_the_latest_episodes_of_each_task(self):
        env = make_vec_env("toy-reach", seed=0, num_envs_per_task=2, horizon=5)
        finished, rng = {name: [] for name in TASKS}, np.random.default_rng(0)
        step_wait = env.step_wait

        def watched():
            result = step_wait()
            for i in np.flatnonzero(result[2]):
                result[3][i]["is_success"] = bool(rng.random() < 0.5)
                finished[TASKS[i // 2]].append(result[3][i]["is_success"])
            return result

        env.step_wait = watched
        callback, _ = self.run(terminal=False, steps=100, env=env, window=7)
        assert {name: list(found) for name, found in callback.successes.items()} == {
            name: found[-7:] for name, found in finished.items()
        }
        assert all(len(found) == 20 and len(set(found)) == 2 for found in finished.values())

    def test_live_view_on_a_terminal(self):
        callback, text = self.run(terminal=True, refresh=30.0)
        assert "\x1b[?25l" in text  # cursor hidden
        assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # and shown again
        assert text.count("120/240 (50%)") == 1
        assert "240/240 (100%)" in text
        last = text[text.rindex("240/240") :]
        for name, found in callback.successes.items():
            assert f"{np.mean(found):4.2f}" in last[last.index(name) :][:40]
        assert callback._live is None

    def test_a_training_that_breaks_gives_the_terminal_back_on_close(self):
        callback, text = self.run(terminal=True, fail=True)
        assert "\x1b[?25h" not in text
        callback.close()
        assert "\x1b[?25h" in callback.console.file.getvalue()
        callback.close()

    def test_speed_is_that_of_the_last_minute(self):
        callback, _ = self.run(terminal=False, line_every=1.0, steps=100)
        callback._clock.tick = 10.0  # slower now
        for _ in range(12):
            callback._draw(callback._clock())
        assert "  0 steps/s" in callback.console.file.getvalue().splitlines()[-1]

    def test_no_time_is_left_beyond_the_end(self):
        callback, _ = self.run(terminal=False, line_every=1.0, steps=20)
        callback._total = 60  # of 80: the last rollout was a whole one
        assert "80/60 (133%)" in callback._line(callback._clock())
        assert "0:00:00 left" in callback._line(callback._clock())

    def test_many_tasks_take_no_more_than_a_line(self):
        callback, _ = self.run(terminal=False)
        callback.successes = {f"task-{k}": deque([float(k < 20)]) for k in range(50)}
        callback.successes["task-49"].clear()
        callback._draw(callback._clock())
        line = callback.console.file.getvalue().splitlines()[-1]
        assert line.endswith("(20 of 50 tasks at 0.9 or more, 29 at 0)")

    def test_the_live_view_fits_a_narrow_terminal(self):
        file = io.StringIO()
        model, _ = make_sac()
        callback = MTProgressBarCallback(console=Console(file=file, force_terminal=True, color_system=None, width=80))
        callback._clock = Clock(30_000.0)
        model.learn(NUM_ENVS, callback)
        callback._total, callback.num_timesteps = 20_000_000, 12_345_678
        callback._began, callback._marks = 0.0, deque([(0.0, 12_000_000)])
        headline = callback._headline(60.0)
        assert headline == "12.35M/20.00M (62%)  5,761 steps/s  0:01:00 gone, 0:22:09 left  success -"
        assert len(headline) < 80
        lines = [re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", line) for line in file.getvalue().splitlines()]
        assert max(map(len, lines)) <= 80
        assert "4/4 (100%)  0 steps/s" in lines[-6]
        assert [line.split()[0] for line in lines[-5:-1]] == TASKS

    def test_any_environment(self):
        file = io.StringIO()
        model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=100, buffer_size=100)
        model.learn(3, MTProgressBarCallback(console=Console(file=file, width=80)))
        assert file.getvalue().startswith("3/3 (100%)")
        assert file.getvalue().endswith("success -  (task -)\n")
