"""Reports of episodes: numbers, checks, texts, files."""

import json
from contextlib import suppress

import numpy as np
import pytest

from mtrl_imgrad.errors import ArgumentError, CheckpointError
from mtrl_imgrad.evaluation import files as module
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.statistics import success_interval, wilson_interval
from tests.support.evaluation.reports import assert_same, make_report


class TestReport:
    def test_numbers(self):
        report = SuccessReport(("a", "b"), np.array([[1, 0, 0, 0], [1, 1, 1, 1]], bool), np.eye(2, 4), np.ones((2, 4)))
        assert report.num_episodes == 4
        assert report.success_rate.tolist() == [0.25, 1.0]
        assert report.mean_success == 0.625
        np.testing.assert_array_equal(report.intervals, wilson_interval([1, 4], 4))
        assert report.mean_interval == success_interval(report.successes)
        assert report.lengths.dtype == np.int64

    def test_cannot_be_changed(self):
        report = make_report()
        with pytest.raises(ValueError, match="read-only"):
            report.successes[0, 0] = True

    @pytest.mark.parametrize(
        ("field", "value", "match"),
        [
            ("successes", np.ones((2, 3)), "successes must be bool"),
            ("successes", np.ones(3, bool), "successes must be"),
            ("returns", np.ones((2, 4)), r"returns must be .* \(2, 3\) for these task_names, got \(2, 4\)"),
            ("lengths", np.ones((3, 3)), "lengths must be"),
            ("task_names", ("a",), "successes must be"),
        ],
    )
    def test_refuses_wrong_shapes(self, field, value, match):
        good = {
            "task_names": ("a", "b"),
            "successes": np.ones((2, 3), bool),
            "returns": np.ones((2, 3)),
            "lengths": np.ones((2, 3)),
        }
        with pytest.raises(ArgumentError, match=match):
            SuccessReport(**{**good, field: value})

    @pytest.mark.parametrize("name", ["run.1", "run.1.npz", "deep/er/run"])
    def test_saved_and_loaded_it_is_the_same(self, tmp_path, name):
        report = make_report()
        path = report.save(tmp_path / name)
        assert path == tmp_path / (name.removesuffix(".npz") + ".npz")
        assert_same(SuccessReport.load(tmp_path / name), report)
        with np.load(path, allow_pickle=False) as archive:
            assert all(archive[member].dtype != object for member in archive.files)
        summary = json.loads(path.with_name(path.name.replace(".npz", ".json")).read_text(encoding="utf-8"))
        assert summary == json.loads(report.to_json())

    def test_json(self):
        report = make_report()
        summary = json.loads(report.to_json())
        assert summary["mean_success"] == report.mean_success
        assert summary["mean_interval"] == list(report.mean_interval)
        assert summary["episodes_per_task"] == 20
        assert list(summary["tasks"]) == list(report.task_names)
        push = summary["tasks"]["push"]
        assert push["success_rate"] == report.success_rate[1]
        assert push["interval"] == report.intervals[1].tolist()
        assert push["mean_return"] == pytest.approx(report.returns[1].mean())
        assert push["mean_length"] == pytest.approx(report.lengths[1].mean())

    def test_a_mean_is_of_the_tasks_that_have_a_notion_of_success(self):
        successes = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], bool)
        report = SuccessReport(
            ("a", "b"), successes, np.eye(2, 4), np.ones((2, 4)), has_success=np.array([True, False])
        )
        assert report.mean_success == 0.25
        assert report.mean_interval == success_interval(successes[:1])
        assert np.isnan(report.intervals[1]).all()
        with pytest.raises(ArgumentError, match=r"has_success is False for task 'a', which has successes"):
            SuccessReport(("a", "b"), successes, np.eye(2, 4), np.ones((2, 4)), has_success=np.zeros(2, bool))
        with pytest.raises(ArgumentError, match=r"has_success must be bool"):
            SuccessReport(("a", "b"), successes, np.eye(2, 4), np.ones((2, 4)), has_success=np.zeros(3, bool))

    def test_prints_as_a_table(self):
        lines = str(make_report()).splitlines()
        assert [line.split()[0] for line in lines if "[" in line] == ["reach", "push", "näher", "mean"]


class TestFiles:
    def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch):
        report = make_report()
        path = report.save(tmp_path / "run")
        before = path.read_bytes()

        def fail(file, **arrays):
            file.write(b"half")
            raise OSError("no space left on device")

        monkeypatch.setattr(module.np, "savez_compressed", fail)
        with pytest.raises(CheckpointError, match=r"run\.npz cannot be written: no space"):
            make_report(seed=1).save(tmp_path / "run")
        assert path.read_bytes() == before
        assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json", "run.npz"]

    @pytest.mark.parametrize("keep", [0, 10, 0.5])
    def test_a_torn_file_is_named(self, tmp_path, keep):
        path = make_report().save(tmp_path / "run")
        content = path.read_bytes()
        path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
        with pytest.raises(CheckpointError, match=r"run\.npz"):
            SuccessReport.load(path)

    def test_no_flipped_bit_changes_what_is_read(self, tmp_path):
        report = make_report(n=3)
        path = report.save(tmp_path / "run")
        content = path.read_bytes()
        for i in range(0, len(content), 5):
            path.write_bytes(content[:i] + bytes([content[i] ^ 0x81]) + content[i + 1 :])
            with suppress(CheckpointError):
                assert_same(SuccessReport.load(path), report)

    def test_a_pickle_is_not_opened(self, tmp_path):
        path = tmp_path / "run.npz"
        members = {"successes": np.ones((1, 1), bool), "returns": np.ones((1, 1)), "lengths": np.ones((1, 1))}
        np.savez(path, task_names=np.array(["a"], dtype=object), confidence=0.9, **members)
        with pytest.raises(CheckpointError, match="pickle"):
            SuccessReport.load(path)

    def test_missing_members_are_named(self, tmp_path):
        path = make_report().save(tmp_path / "run")
        with pytest.raises(CheckpointError, match="lacks \\['timesteps'\\]"):
            EvaluationHistory.load(path)

    def test_no_file_is_no_damaged_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            SuccessReport.load(tmp_path / "none")
