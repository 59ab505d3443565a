import itertools

import numpy as np
import pytest

from mtrl_imgrad.errors import ArgumentError, TaskMismatchError
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.plots import success_curves, task_curves
from mtrl_imgrad.evaluation.statistics import stratified_bootstrap, success_interval
from mtrl_imgrad.reporting.figures import save_figure
from tests.evaluation.test_plots import band_at, boxes, history_of, line_at, without_success


def two_seeds():
    return [
        history_of([[0.0, 0.2], [0.4, 0.8], [0.8, 1.0]], [0, 100, 200]),
        history_of([[0.2, 0.2], [0.6, 0.4]], [0, 100]),
    ]


def test_seeds_are_a_mean_a_band_and_thin_lines_to_their_own_ends():
    axes = success_curves({"imgrad": two_seeds()}, title="MT2").axes[0]
    mean = line_at(axes, [0, 100], [0.15, 0.55])
    assert len(mean) == 1
    assert line_at(axes, [0, 100, 200], [0.1, 0.6, 0.9])[0].get_linewidth() < mean[0].get_linewidth()
    assert line_at(axes, [0, 100], [0.2, 0.5])
    np.testing.assert_allclose(band_at(axes, 100), stratified_bootstrap([[0.4, 0.8], [0.6, 0.4]]))
    assert axes.get_xlim() == (0, 200)  # to the end of the longest seed
    assert {"0.55  imgrad (2 seeds)", "MT2"} <= {text.get_text() for text in axes.texts}
    assert "95 % interval over seeds" in axes.get_title("left")


def test_seeds_evaluated_at_different_steps_meet_on_straight_lines():
    seeds = [history_of([[0.0], [1.0]], [0, 100]), history_of([[0.0], [0.2], [0.2]], [0, 50, 100])]
    axes = success_curves({"a": seeds}).axes[0]
    assert line_at(axes, [0, 50, 100], [0.0, (0.5 + 0.2) / 2, 0.6])


def test_of_one_seed_the_band_is_over_its_episodes_and_the_caption_says_so():
    seed = history_of([[0.0, 0.5], [0.5, 0.9]], [0, 100])
    alone = success_curves({"a": [seed]}).axes[0]
    np.testing.assert_allclose(band_at(alone, 100), seed.mean_intervals[1])
    assert "95 % interval over episodes" in alone.get_title("left")
    narrower = success_curves({"a": [seed]}, confidence=0.8).axes[0]
    np.testing.assert_allclose(band_at(narrower, 100), success_interval(seed.reports[1].successes, 0.8))
    mixed = success_curves({"a": [seed], "b": two_seeds()}).axes[0]
    assert "over seeds" in mixed.get_title("left")
    assert len(mixed.collections) == 1, "no band over episodes beside one over seeds"


def test_every_task_has_a_panel_from_the_lowest_to_the_highest_seed():
    figure = task_curves({"imgrad": two_seeds(), "ls": [history_of([[0.1, 0.3]] * 2, [0, 200])]}, title="MT2")
    panels = figure.axes
    assert [axes.get_title("left") for axes in panels] == ["task-0", "task-1"]
    assert line_at(panels[1], [0, 100], [0.2, 0.6])
    np.testing.assert_allclose(band_at(panels[1], 100), [0.4, 0.8])
    assert line_at(panels[0], [0, 200], [0.1, 0.1])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["imgrad (2 seeds)", "ls (1 seed)"]
    assert "band: lowest to highest seed" in figure.get_supxlabel()
    assert all(len(axes.collections) == 1 for axes in panels), "the one of several seeds"
    alone = task_curves({"ls": [history_of([[0.1, 0.3]] * 2, [0, 200])]})
    assert "band: the interval over episodes" in alone.get_supxlabel()
    assert all(len(axes.collections) == 1 for axes in alone.axes)


def test_returns_are_drawn_where_no_task_knows_of_success():
    history = EvaluationHistory(["task-0", "task-1"])
    for when, returns in ((0, [-5.0, 10.0]), (100, [-3.0, 30.0])):
        history.append(when, without_success(np.zeros(2, bool), returns))
    for draw in (success_curves, task_curves):
        with pytest.raises(ArgumentError, match="a task with a notion of success"):
            draw({"a": [history]})
    panels = task_curves({"a": [history]}, measure="return").axes
    assert line_at(panels[0], [0, 100], [-5, -3])
    assert line_at(panels[1], [0, 100], [10, 30])


@pytest.mark.parametrize("final", [[0.5] * 12, np.linspace(0, 1, 12), [0.0] * 12])
def test_twelve_names_of_methods_do_not_overlap_nor_leave_the_picture(final):
    runs = {f"method-{k}": [history_of([[0.0], [value]], [0, 100])] for k, value in enumerate(final)}
    figure = success_curves(runs)
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].texts if "method" in text.get_text()]
    assert len(labels) == 12
    extents = boxes(figure, labels)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(extents, 2))
    assert all(box.x1 <= figure.bbox.width + 1 for box in extents)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_figures_are_saved_by_suffix(tmp_path, suffix):
    path = save_figure(task_curves({"a": two_seeds()}), tmp_path / f"tasks.{suffix}")
    begin = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(begin)


@pytest.mark.parametrize(
    ("runs", "error", "message"),
    [
        ({}, ArgumentError, "1 to 12 labels, got 0"),
        ({"a": []}, ArgumentError, r"runs\['a'\] must hold histories"),
        ({"a": [EvaluationHistory(["x"])]}, ArgumentError, r"runs\['a'\] must hold histories"),
        (
            {"a": [history_of([[0.0]], [0])], "b": [history_of([[0.0]], [0], names=["other"])]},
            TaskMismatchError,
            r"runs\['b'\] of \('other',\)",
        ),
        ({"a": [history_of([[0.0]], [0]), history_of([[0.0]], [9])]}, ArgumentError, "share a range of steps"),
    ],
)
def test_wrong_runs_are_refused(runs, error, message):
    for draw in (success_curves, task_curves):
        with pytest.raises(error, match=message):
            draw(runs)
