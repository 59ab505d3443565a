import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from mtrl_imgrad.envs import list_tasks
from mtrl_imgrad.errors import ArgumentError, TaskMismatchError
from mtrl_imgrad.evaluation.bars import interval_bar, rate_grid
from mtrl_imgrad.evaluation.protocol import EvaluationProtocol
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.tables import markdown_table, print_success, success_table
from mtrl_imgrad.reporting.tables import render_text


def report_of(names, counts, n=50):
    """The first ``counts[k]`` episodes of task k succeed; they return k + 1 and last 100 (k + 1) steps."""
    successes = np.arange(n) < np.array(counts)[:, None]
    scale = np.arange(1, len(names) + 1)[:, None] * np.ones(n)
    return SuccessReport(tuple(names), successes, scale, 100 * scale)


BEFORE, AFTER = report_of(["reach", "push"], [5, 25]), report_of(["reach", "push"], [50, 24])


class TestBar:
    rates = st.tuples(*[st.floats(0, 1)] * 3).map(sorted)

    @given(rates, st.integers(1, 60), st.booleans())
    def test_shades_end_where_the_numbers_are(self, rates, width, ascii_only):
        low, rate, high = rates
        bar = interval_bar(rate, low, high, width, ascii_only=ascii_only)
        shades = "#=-." if ascii_only else "█▓░·"
        assert len(bar) == width
        assert bar == "".join(sorted(bar, key=shades.index))
        for characters, end in ((1, low), (2, rate), (3, high)):
            assert sum(map(bar.count, shades[:characters])) == pytest.approx(width * end, abs=0.5)

    def test_without_an_interval_it_is_plain(self):
        assert interval_bar(0.5, np.nan, np.nan, 8) == "████····"


class TestTable:
    def test_one_report(self):
        lines = render_text(success_table(AFTER)).splitlines()
        cells = [line.split() for line in lines]
        assert lines[0] == "success in %, 50 episodes a task, 95 % intervals"
        assert cells[1] == ["task", "success", "return", "length"]
        # 50 of 50 and 24 of 50: Wilson [92.9, 100] and [34.8, 61.5]; the mean: 74 of 100, less the spread of the two.
        assert cells[3][:-1] == ["reach", "100", "[", "93,", "100]", "1", "100"]
        assert cells[4][:-1] == ["push", "48", "[", "35,", "61]", "2", "200"]
        assert cells[6][:5] == ["mean", "74", "[", "66,", "80]"]
        assert cells[6][5:-1] == ["1.5", "150"]
        assert cells[3][-1] == interval_bar(1.0, 0.929, 1.0, len(cells[3][-1]))

    def test_before_and_after(self):
        cells = [line.split() for line in render_text(success_table(AFTER, BEFORE)).splitlines()]
        assert cells[1] == ["task", "before", "after", "change"]
        assert cells[3][:-1] == ["reach", "10", "[", "4,", "21]", "100", "[", "93,", "100]", "+90"]
        assert cells[4][-2] == "-2"
        assert cells[6][-2] == "+44"

    @pytest.mark.parametrize("width", [80, 120])
    @pytest.mark.parametrize("tasks", ["MT10", "MT50"])
    @pytest.mark.parametrize("compared", [False, True])
    def test_fits_and_cuts_no_number(self, width, tasks, compared):
        names = list_tasks(tasks)
        report = report_of(names, [50] * len(names))
        lines = render_text(success_table(report, report if compared else None, width=width), width).splitlines()
        assert max(map(len, lines)) <= width
        assert "…" not in "".join(lines)
        for name in names:
            assert sum(line.startswith(f"{name} ") for line in lines) == 1
        assert sum("100 [ 93, 100]" in line for line in lines) == len(names)

    def test_a_very_long_name_is_cut_not_a_number(self):
        lines = render_text(success_table(report_of(["x" * 200, "y"], [50, 0])), 80).splitlines()
        assert lines[3].startswith("xxxx")
        assert "x…  100 [ 93, 100]" in lines[3]
        assert max(map(len, lines)) <= 80

    def test_one_episode(self):
        lines = render_text(success_table(report_of(["a", "b"], [1, 0], n=1))).splitlines()
        assert lines[0].startswith("success in %, 1 episode a task")
        assert "50 [ 10,  90]" in lines[6]  # 1 of 2 is [9, 91]: single episodes say little of the spread

    @pytest.mark.parametrize("count", [0, 5])
    def test_the_mean_of_tasks_that_all_ended_alike_has_an_interval(self, count):
        cells = render_text(success_table(report_of(["a", "b"], [count] * 2, n=5))).splitlines()[6]
        assert ("0 [  0,  28]" if count == 0 else "100 [ 72, 100]") in cells  # Wilson: 0 of 10, 10 of 10

    @pytest.mark.parametrize("width", [80, 120])
    def test_columns_of_different_numbers_of_episodes_say_so(self, width):
        before, after = report_of(["a"], [1], n=5), report_of(["a"], [1], n=20)
        protocol = EvaluationProtocol(True, "metaworld", 10_000, 20_000_000)
        lines = render_text(success_table(replace(after, protocol=protocol), before, width=width), width).splitlines()
        assert lines[0] == "success before (5 episodes a task) and after (20) in %, 95 % intervals"
        assert lines[1] == "agent after 20,000,000 steps, deterministic, on metaworld, evaluation seed 10000"
        assert "before (5 episodes a task) and after (20) in %, 95 % intervals\n" in markdown_table(after, before)

    def test_the_change_is_the_difference_of_the_numbers_shown(self):
        before, after = report_of(["a"], [1], n=8), report_of(["a"], [3], n=8)  # 12.5 and 37.5
        row = render_text(success_table(after, before)).splitlines()[3].split()
        shown, changed = [int(cell) for cell in (row[1], row[5])], int(row[-2])
        assert changed == shown[1] - shown[0]

    @pytest.mark.parametrize("known", [[True, False], [False, False]])
    def test_a_task_without_a_notion_of_success_shows_none(self, known):
        report = report_of(["a", "b"], [25 if known[0] else 0, 0])
        report = replace(report, has_success=np.array(known))
        lines = render_text(success_table(report)).splitlines()
        assert lines[4].split() == ["b", "-", "2", "200"]
        assert lines[6].split()[1] == ("50" if known[0] else "-")
        assert "-: the environment says nothing of success" in lines[-1]
        assert ("mean of the others" in lines[-1]) == known[0]
        lines = render_text(success_table(report, report)).splitlines()
        assert lines[4].split() == ["b", "-", "-", "-", "2", "to", "2"]
        assert "\n| b | - | - | - | 2 to 2 |" in markdown_table(report, report)

    @pytest.mark.parametrize("render", [success_table, markdown_table])
    def test_other_tasks_are_refused(self, render):
        with pytest.raises(TaskMismatchError, match="push"):
            render(AFTER, report_of(["push", "reach"], [1, 1]))


class TestMarkdown:
    def test_same_cells_as_the_table(self):
        title, _, *rows = markdown_table(AFTER, BEFORE, bar=4).splitlines()
        assert title == "success before and after in %, 50 episodes a task, 95 % intervals"
        assert rows == [
            "| task | before | after | change |  |",
            "| :-- | --: | --: | --: | :-- |",
            "| reach | 10 [4, 21] | 100 [93, 100] | +90 | `████` |",
            "| push | 50 [37, 63] | 48 [35, 61] | -2 | `█▓··` |",
            "| **mean** | **30 [23, 39]** | **74 [66, 80]** | **+44** | `███·` |",
        ]

    def test_without_bars_and_with_a_pipe_in_a_name(self):
        rows = markdown_table(report_of(["a|b"], [50]), bar=0).splitlines()[2:]
        assert rows[0] == "| task | success | return | length |"
        assert rows[2] == "| a\\|b | 100 [93, 100] | 1 | 100 |"


class TestPrint:
    def printed(self, terminal, encoding="utf-8"):
        file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        colours = "truecolor" if terminal else None
        console = Console(file=file, width=80, force_terminal=terminal, color_system=colours)
        print_success(AFTER, BEFORE, console)
        file.flush()
        return file.buffer.getvalue().decode(encoding)

    def test_plain_where_there_is_no_terminal(self):
        text = self.printed(terminal=False)
        assert "\x1b" not in text
        assert "█" in text

    def test_colour_adds_nothing_but_colour(self):
        text = self.printed(terminal=True)
        assert "\x1b[36m" in text
        assert Text.from_ansi(text).plain.split() == self.printed(terminal=False).split()

    def test_a_terminal_without_unicode(self):
        assert "#" in self.printed(terminal=False, encoding="ascii")

    def test_standard_output_by_default(self, capsys):
        print_success(AFTER)
        assert "reach" in capsys.readouterr().out


class TestGrid:
    @pytest.mark.parametrize(("width", "columns"), [(40, 1), (80, 2), (120, 2)])
    def test_as_many_columns_as_fit_read_downwards(self, width, columns):
        names = list_tasks("MT10")
        rates = dict(zip(names, np.arange(10) / 10, strict=True))
        lines = render_text(rate_grid(rates, width), width).splitlines()
        assert len(lines) == 10 // columns
        assert max(map(len, lines)) <= width
        assert [line.split()[0] for line in lines] == names[: len(lines)]
        assert lines[3].split()[:3] == [names[3], interval_bar(0.3, np.nan, np.nan, 8), "0.30"]

    def test_fifty_tasks(self):
        names = list_tasks("MT50")
        lines = render_text(rate_grid(dict.fromkeys(names, 0.25), 132), 132).splitlines()
        assert len(lines) == 17
        assert sorted(word for line in lines for word in line.split()[::3]) == sorted(names)

    def test_a_task_without_a_rate(self):
        assert render_text(rate_grid({"a": None, "b": 0.0}, 40, ascii_only=True)).splitlines() == [
            "a ........    -",
            "b ........ 0.00",
        ]

    def test_no_task(self):
        with pytest.raises(ArgumentError, match="empty"):
            rate_grid({})
