import dataclasses
import itertools

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from mtrl_imgrad.envs import list_tasks
from mtrl_imgrad.errors import ArgumentError, TaskMismatchError
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.plots import bars, curve, plot_per_task_bars, plot_success_curve, task_curves
from mtrl_imgrad.evaluation.plots.titles import spread
from mtrl_imgrad.evaluation.protocol import EvaluationProtocol
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.reporting.figures import PALETTE, save_figure

# What is left of linear RGB without one kind of cone (Machado, Oliveira, Fernandes, IEEE TVCG 15, 2009).
VISION = {
    "full": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def report_of(rates, n=10, names=None):
    names = names or [f"task-{k}" for k in range(len(rates))]
    successes = np.arange(n) < np.round(n * np.array(rates))[:, None]
    return SuccessReport(tuple(names), successes, np.zeros(successes.shape), np.ones(successes.shape))


def history_of(rates, timesteps, n=10, names=None):
    """Rates ``[E, K]``."""
    reports = [report_of(row, n, names) for row in rates]
    history = EvaluationHistory(reports[0].task_names)
    for when, report in zip(timesteps, reports, strict=True):
        history.append(when, report)
    return history


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved."""
    kept = []

    def keep(figure, path):
        kept.append(figure)
        return save_figure(figure, path)

    for module in (curve, bars):
        monkeypatch.setattr(module, "save_figure", keep)
    return kept


def line_at(axes, steps, values):
    """The lines that go through exactly these points."""
    return [
        line
        for line in axes.lines
        if len(line.get_xdata()) == len(steps)
        and np.allclose(line.get_xdata(), steps)
        and np.allclose(line.get_ydata(), values)
    ]


def band_at(axes, step):
    """Lower and upper end of the first band at a step."""
    vertices = axes.collections[0].get_paths()[0].vertices
    return sorted(set(vertices[vertices[:, 0] == step][:, 1]))


def boxes(figure, texts):
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [text.get_window_extent(renderer) for text in texts]


def test_curve_shows_the_numbers(tmp_path, figures):
    rates = np.array([[0.0, 0.3], [0.5, 0.9], [1.0, 0.6]])
    history = history_of(rates, [20_000, 40_000, 60_000])
    path = plot_success_curve(history, tmp_path / "new" / "curve.png", env="MT2", combiner="imgrad", seed=7)
    axes, *panels = figures[0].axes
    steps = [20, 40, 60]
    assert len(line_at(axes, steps, rates.mean(axis=1))) == 1
    np.testing.assert_allclose(band_at(axes, 40), history.mean_intervals[1])
    assert axes.get_ylim() == (-0.02, 1.02)
    assert axes.get_xlim() == (0, 60)
    assert axes.get_xlabel() == "environment steps, all tasks together (thousands)"
    assert {text.get_text() for text in axes.texts} == {"0.80  mean of 2 tasks", "MT2  ·  imgrad  ·  seed 7"}
    assert "10 episodes a task, bands: 95 % intervals" in axes.get_title("left")
    assert [panel.get_title("left") for panel in panels] == ["task-0   1.00", "task-1   0.60"]
    for k, panel in enumerate(panels):
        assert len(line_at(panel, steps, rates[:, k])) == 1
        np.testing.assert_allclose(band_at(panel, 40), history.reports[1].intervals[k])
    assert np.ptp(matplotlib.image.imread(path)) > 0.9


@pytest.mark.parametrize(
    ("last", "ticks", "unit"),
    [(9_000, 9_000, ""), (10_000, 10, " (thousands)"), (2_000_000, 2, " (millions)")],
)
def test_steps_come_in_a_readable_unit(tmp_path, figures, last, ticks, unit):
    plot_success_curve(history_of([[0.1], [0.2]], [last // 2, last]), tmp_path / "c.png")
    axes = figures[0].axes[0]
    assert axes.get_xlabel().endswith(f"together{unit}")
    assert axes.get_xlim() == (0, ticks)


@pytest.mark.parametrize("task_set", ["MT10", "MT50"])
def test_names_of_panels_do_not_overlap_nor_leave_the_picture(tmp_path, figures, task_set):
    names = list_tasks(task_set)
    history = history_of([np.zeros(len(names)), np.ones(len(names))], [1_000_000, 2_000_000], names=names)
    figure = task_curves({"imgrad": [history]}, title=task_set)
    if task_set == "MT10":
        plot_success_curve(history, tmp_path / "c.png")
        figures.append(figure)
    else:
        figures.append(figure)
    for figure in figures:
        figure.draw_without_rendering()
        titles = [axes._left_title for axes in figure.axes if axes.get_title("left").endswith(("v3", "1.00"))]
        assert len(titles) == len(names)
        extents = boxes(figure, titles)
        assert not any(a.overlaps(b) for a, b in itertools.combinations(extents, 2))
        assert all(box.x1 <= figure.bbox.width and box.x0 >= 0 for box in extents)


def test_fifty_tasks_are_a_map(tmp_path, figures):
    names = list_tasks("MT50")
    rates = np.random.default_rng(0).integers(0, 11, (4, 50)) / 10
    plot_success_curve(history_of(rates, [100, 200, 300, 400], names=names), tmp_path / "c.png")
    curve, tasks = figures[0].axes[:2]
    assert len(line_at(curve, [100, 200, 300, 400], rates.mean(axis=1))) == 1
    assert len(curve.lines) == 2  # with that to its name
    shown = [label.get_text() for label in tasks.get_yticklabels()]
    order = [names.index(name) for name in shown]
    assert sorted(order) == list(range(50))
    assert (np.diff(rates[-1, order]) <= 0).all()
    mesh = tasks.collections[0]
    np.testing.assert_allclose(mesh.get_array(), rates[:, order].T)
    assert mesh.get_clim() == (0, 1)
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes(figures[0], tasks.get_yticklabels())))


@pytest.mark.parametrize(("num_tasks", "n"), [(1, 1), (3, 5), (50, 1)])
def test_a_single_evaluation_can_be_seen(tmp_path, figures, num_tasks, n):
    plot_success_curve(history_of(np.full((1, num_tasks), 0.0), [0], n=n), tmp_path / "c.png")
    assert figures[0].axes[0].lines[0].get_marker() == "o"


def test_curve_of_a_file(tmp_path, figures):
    path = history_of([[0.2], [0.4], [0.6]], [1, 2, 3]).save(tmp_path / "evaluations")
    plot_success_curve(path, tmp_path / "c.png")
    assert line_at(figures[0].axes[0], [1, 2, 3], [0.2, 0.4, 0.6])


def test_no_evaluation_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="at least one evaluation"):
        plot_success_curve(EvaluationHistory(["a"]), tmp_path / "c.png")


@pytest.mark.parametrize("num_tasks", [2, 50])
def test_bars_show_the_numbers_best_on_top(tmp_path, figures, num_tasks):
    rates = np.random.default_rng(1).integers(0, 11, num_tasks) / 10
    report, before = report_of(rates), report_of(rates[::-1])
    plot_per_task_bars(report, tmp_path / "b.png", before=before, env="MT2")
    axes = figures[0].axes[0]
    lengths = [bar.get_width() for bar in axes.patches]
    assert lengths == [*sorted(rates, reverse=True), pytest.approx(rates.mean())]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[-1] == "mean"
    assert [rates[int(name.partition("-")[2])] for name in names[:-1]] == lengths[:-1]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_xlim() == (0, 1)
    now, old = axes.containers[1:]
    k = int(names[0].partition("-")[2])
    np.testing.assert_allclose(now[2][0].get_segments()[0][:, 0], report.intervals[k])
    np.testing.assert_allclose(old[2][0].get_segments()[0][:, 0], before.intervals[k], atol=1e-12)
    assert old[0].get_xdata()[0] == before.success_rate[k]


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_mean_has_an_interval_where_all_episodes_ended_alike(tmp_path, figures, rate):
    plot_per_task_bars(report_of([rate] * 3, n=1), tmp_path / "b.png")
    segments = figures[0].axes[0].containers[1][2][0].get_segments()
    assert np.ptp(segments[-1][:, 0]) > 0.3


def test_captions_say_how_many_episodes_each_evaluation_had_and_how_they_were_run(tmp_path, figures):
    protocol = EvaluationProtocol(True, "toy", 10_000, 900)
    history = EvaluationHistory(["task-0"])
    for when, n in ((0, 5), (300, 5), (900, 20)):
        history.append(when, dataclasses.replace(report_of([0.6], n), protocol=protocol))
    plot_success_curve(history, tmp_path / "c.png")
    caption = figures[0].axes[0].get_title("left")
    assert "5 episodes a task (20 in the last evaluation)" in caption
    assert "deterministic, on toy, evaluation seed 10000" in caption
    plot_per_task_bars(history.reports[-1], tmp_path / "b.png", before=history.reports[0])
    caption = figures[1].axes[0].get_title("left")
    assert "20 episodes a task (before: 5)" in caption
    assert "agent after 900 steps, deterministic" in caption


def test_of_two_evaluations_at_one_step_the_last_is_drawn(tmp_path, figures):
    history = history_of([[0.0], [0.2], [0.8]], [0, 100, 100])
    plot_success_curve(history, tmp_path / "c.png")
    assert line_at(figures[0].axes[0], [0, 100], [0.0, 0.8])


def without_success(known, returns):
    """A report whose tasks know of success or not."""
    shape = (len(known), 4)
    successes = np.array(known)[:, None] & np.array([True, False, False, False])
    names = [f"task-{k}" for k in range(len(known))]
    lengths = np.ones(shape)
    return SuccessReport(tuple(names), successes, np.array(returns)[:, None] + np.zeros(shape), lengths, 0.95, known)


def test_a_task_without_a_notion_of_success_is_left_out_and_the_caption_says_so(tmp_path, figures):
    history = EvaluationHistory(["task-0", "task-1"])
    for when in (0, 100):
        history.append(when, without_success(np.array([True, False]), [when, when]))
    plot_success_curve(history, tmp_path / "c.png")
    axes = figures[0].axes[0]
    assert len(figures[0].axes) == 1  # one task needs no panel beside the mean
    assert [text.get_text() for text in axes.texts if text.get_text()] == ["0.25  mean of 1 task"]
    assert "without 1 task whose environment says nothing of success" in axes.get_title("left")
    plot_per_task_bars(history.reports[0], tmp_path / "b.png")
    assert [text.get_text() for text in figures[1].axes[0].texts][:3] == ["0.25", "-", "0.25"]


def test_where_no_task_knows_of_success_returns_are_drawn(tmp_path, figures):
    history = EvaluationHistory(["task-0", "task-1"])
    for when, returns in ((0, [-5, 10]), (100, [-3, 30]), (200, [-4, 50])):
        history.append(when, without_success(np.zeros(2, bool), returns))
    plot_success_curve(history, tmp_path / "c.png")
    axes, *panels = figures[0].axes
    assert axes.get_ylabel() == "normalized return"
    assert line_at(panels[0], [0, 100, 200], [0, 1, 0.5])
    assert line_at(panels[1], [0, 100, 200], [0, 0.5, 1])
    with pytest.raises(ArgumentError, match="a task with a notion of success"):
        plot_per_task_bars(history.reports[0], tmp_path / "b.png")


def test_bars_of_other_tasks_are_refused(tmp_path):
    with pytest.raises(TaskMismatchError, match="before is of"):
        plot_per_task_bars(report_of([1.0]), tmp_path / "b.png", before=report_of([1.0], names=["other"]))


def test_pyplot_keeps_nothing(tmp_path):
    import matplotlib.pyplot as plt

    plot_per_task_bars(report_of([1.0]), tmp_path / "b.png")
    assert plt.get_fignums() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=13), st.floats(0.01, 0.06))
def test_spread_names_keep_distance_and_order(heights, gap):
    placed = spread(heights, gap)
    order = np.argsort(placed)
    assert (np.diff(placed[order]) >= gap - 1e-9).all()
    assert (np.diff(np.array(heights)[order]) >= 0).all()
    assert placed.min() >= -0.02 - 1e-9
    assert placed.max() <= 1.02 + 1e-9
    if len(heights) > 1 and np.diff(np.sort(heights)).min() >= gap:
        np.testing.assert_allclose(placed, heights, atol=1e-12)


def lab(colour):
    """CIE Lab of linear RGB, D65."""
    rgb_to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    x, y, z = (np.array(rgb_to_xyz) @ np.clip(colour, 0, 1)) / [0.95047, 1.0, 1.08883]
    f = [np.cbrt(t) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_palette_can_be_told_apart(vision):
    gamma = np.array([to_rgb(colour) for colour in PALETTE])
    linear = np.where(gamma <= 0.04045, gamma / 12.92, ((gamma + 0.055) / 1.055) ** 2.4)
    seen = np.array([lab(np.array(VISION[vision]) @ colour) for colour in linear])
    apart = np.linalg.norm(seen[:, None] - seen, axis=-1) + 100 * np.eye(len(PALETTE))
    assert apart.min() > 12
    assert min(apart[:6, :6].min(), apart[6:, 6:].min()) > 24
    assert seen[:, 0].max() < 75  # dark enough for a thin line on white
