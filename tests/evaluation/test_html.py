"""Tables as notebooks show them."""

from xml.etree import ElementTree

from mtrl_imgrad.reporting.tables import TextTable
from tests.evaluation.test_plots import report_of


def cells(table):
    """The rows of an HTML table, and its caption."""
    root = ElementTree.fromstring(table.replace("<br>", "<br/>"))
    rows = [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]
    return rows, " ".join(root.find("caption").itertext())


def test_a_report_is_the_table_of_the_terminal():
    rows, caption = cells(report_of([1.0, 0.2])._repr_html_())
    assert [row[0] for row in rows] == ["task", "task-0", "task-1", "mean"]
    assert [row[1].split()[0] for row in rows[1:]] == ["100", "20", "60"]
    assert "10 episodes a task, 95 % intervals" in caption
    assert rows[1][-1].startswith("█")


def test_texts_are_escaped():
    table = TextTable("a < b", ("<b>", "x"), (("<script>", "1\n2"),))._repr_html_()
    assert "<script>" not in table
    assert cells(table) == ([["<b>", "x"], ["<script>", "12"]], "a < b")
