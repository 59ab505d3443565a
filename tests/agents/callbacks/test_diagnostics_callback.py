"""Numbers of gradients and combiners while training, by task."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import HumanOutputFormat, Logger

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.agents.callbacks.diagnostics import GradientDiagnosticsCallback
from mtrl_imgrad.agents.common.task_log import record_per_task
from mtrl_imgrad.combiners import Combination, Status
from mtrl_imgrad.envs import list_tasks, make_vec_env
from mtrl_imgrad.errors import TaskMismatchError
from tests.support.agents.recorded import NUM_ENVS, TASKS, Recorder, make_sac


class TestRecordPerTask:
    def test_meta_world_s_fifty_names_do_not_break_sb3_s_table(self):
        names = list_tasks("MT50")
        text, recorder = io.StringIO(), Recorder()
        logger = Logger(None, [HumanOutputFormat(text), recorder])
        record_per_task(logger, "eval/success_rate", names, np.arange(50) / 50)
        logger.dump(0)
        assert recorder.written[0][1] == {f"eval/success_rate/{n}": k / 50 for k, n in enumerate(names)}
        rows = [line for line in text.getvalue().splitlines() if "success_rate/" in line]
        assert len(rows) == 48  # all but button-press-topdown and its variant with a wall
        assert not any("button-press-topd" in row for row in rows)
        assert any("success_rate/reach-v3 " in row for row in rows)

    def test_off_the_screen(self):
        text, recorder = io.StringIO(), Recorder()
        logger = Logger(None, [HumanOutputFormat(text), recorder])
        record_per_task(logger, "a/b", ["x"], [1.0], on_screen=False)
        logger.record("other", 1)
        logger.dump(0)
        assert "b/x" not in text.getvalue()
        assert recorder.written[0][1]["a/b/x"] == 1.0


GRAMIAN = torch.tensor(
    [[4.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 9.0, 1.0], [0.0, 0.0, 1.0, 0.25]],
    dtype=torch.float64,
)


def combination(weights=True, gramian=True, **extras):
    return Combination(
        gradient=torch.zeros(3),
        weights=torch.tensor([0.1, 0.2, 0.3, 0.4]) if weights else None,
        residual=torch.tensor(1e-9),
        status_code=torch.tensor(int(Status.INACCURATE)),
        gramian=GRAMIAN if gramian else None,
        extras=extras,
    )


class TestDiagnostics:
    def logged(self, combinations, steps=4, **options):
        model, recorder = make_sac()
        model.last_combinations = combinations
        model.learn(steps * NUM_ENVS, GradientDiagnosticsCallback(**options))
        values = dict(model.logger.name_to_value)
        hidden = {key for key, excluded in model.logger.name_to_excluded.items() if "stdout" in excluded}
        return values, hidden, recorder

    def test_values_and_tags(self):
        values, hidden, _ = self.logged({"actor": combination(), "critic": combination()}, log_freq=4)
        for part in ("/actor", "/critic", ""):
            assert [values[f"grad{part}/norm/{name}"] for name in TASKS] == [2.0, 1.0, 3.0, 0.5]
            assert values[f"grad{part}/cos_min"] == -0.5
            assert values[f"grad{part}/conflict_fraction"] == pytest.approx(1 / 6)
            assert values[f"grad{part}/imbalance"] == 6.0
            assert values[f"grad{part}/c_min"] == 0.0
            weights = [values[f"combiner{part}/weight/{name}"] for name in TASKS]
            assert weights == pytest.approx([0.1, 0.2, 0.3, 0.4])
            assert values[f"combiner{part}/residual"] == pytest.approx(1e-9)
            assert values[f"combiner{part}/status"] == 2
            towards = [values[f"grad{part}/direction_cosine/{name}"] for name in TASKS]
            assert towards == pytest.approx(np.array([0.2 / 2, 0.1, 3.1 / 3, 0.4 / 0.5]) / np.sqrt(1.13))
            assert values[f"grad{part}/pareto_failure"] == 0.0
        per_task = {key for key in values if any(f"/{what}/" in key for what in ("norm", "weight", "direction_cosine"))}
        assert len(per_task) == 36
        pairs = {key for key in values if "/cosine/" in key}
        assert len(pairs) == 12, "of each network; not once more by the plain names"
        assert values[f"grad/critic/cosine/{TASKS[0]}|{TASKS[1]}"] == -0.5
        assert values[f"grad/actor/cosine/{TASKS[2]}|{TASKS[3]}"] == pytest.approx(1 / 1.5)
        twice = {f"grad/{name}" for name in ("cos_min", "conflict_fraction", "imbalance", "c_min", "pareto_failure")}
        assert hidden == per_task | pairs | twice | {"combiner/residual", "combiner/status"}

    def test_a_step_that_goes_uphill_for_a_task_is_a_pareto_failure(self):
        uphill = dataclasses.replace(combination(), weights=torch.tensor([0.1, 0.5, 0.0, 0.0]))
        values, _, _ = self.logged({"critic": uphill}, log_freq=1)
        assert values["grad/critic/pareto_failure"] == 1.0
        first, second, *_ = (values[f"grad/critic/direction_cosine/{name}"] for name in TASKS)
        assert first < 0 < second

    def test_a_method_s_own_numbers_do_not_replace_ours(self):
        mu, many = torch.tensor(0.7), torch.ones(4)
        values, _, _ = self.logged({"critic": combination(imbalance=mu, simplex_weights=many)}, log_freq=1)
        assert values["grad/critic/imbalance"] == 6.0
        assert values["combiner/critic/imbalance"] == pytest.approx(0.7)
        assert not any("simplex" in key for key in values)

    def test_main_chooses_what_has_the_plain_names(self):
        combinations = {"actor": combination(gramian=False), "critic": combination()}
        assert "grad/cos_min" not in self.logged(combinations, log_freq=1, main="actor")[0]
        assert "combiner/residual" in self.logged(combinations, log_freq=1, main="actor")[0]
        values = self.logged(combinations, log_freq=1, main=None)[0]
        plain = [key for key in values if key.split("/")[1] not in ("actor", "critic")]
        assert [key for key in plain if key.startswith(("grad", "combiner"))] == []

    def test_methods_without_gramian_or_weights(self):
        values, _, _ = self.logged({"critic": combination(weights=False, gramian=False)}, log_freq=1)
        found = sorted(key for key in values if key.startswith(("grad/", "combiner/critic")))
        assert found == ["combiner/critic/residual", "combiner/critic/status"]

    def test_nothing_before_the_first_update_nor_between_two_records(self):
        assert not any(key.startswith(("grad", "combiner")) for key in self.logged({}, log_freq=1)[0])
        assert not any(key.startswith("grad") for key in self.logged({"critic": combination()}, log_freq=5)[0])

    def test_another_number_of_tasks_is_refused(self):
        wrong = Combination(torch.zeros(3), torch.ones(3), torch.tensor(0.0), torch.tensor(0))
        with pytest.raises(TaskMismatchError, match="combiner/critic/weight has 3 values"):
            self.logged({"critic": wrong}, log_freq=1)


def test_a_combiner_that_needs_no_gradients_is_diagnosed_all_the_same():
    env = make_vec_env("toy-reach", seed=0)
    kwargs = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 0, "batch_size": 8, "seed": 0, "device": "cpu"}
    agent = MTSAC("MlpPolicy", env, combiner="linear_scalarization", **kwargs)
    agent.learn(11 * NUM_ENVS, GradientDiagnosticsCallback(log_freq=10), log_interval=None)
    values = agent.logger.name_to_value
    assert -1 <= values["grad/critic/cos_min"] <= 1
    assert values[f"grad/actor/norm/{TASKS[0]}"] > 0
    assert agent.last_combinations["critic"].gramian is None, "only the recorded update pays for it"
