from mtrl_imgrad.reporting.tables import TextTable, markdown_rows, render_text

TABLE = TextTable("a title", ("method", "two\nlines"), (("cagrad:c=0.4", "1"), ("ls", "23")))


def test_numbers_are_aligned_to_the_right():
    lines = render_text(TABLE.rich()).splitlines()
    assert [line.rstrip() for line in lines] == [
        "                two",
        "method        lines",
        "───────────────────",
        "cagrad:c=0.4      1",
        "ls               23",
    ]


def test_markdown():
    assert TABLE.markdown().splitlines() == [
        "**a title**",
        "",
        "| method | two lines |",
        "| :-- | --: |",
        "| cagrad:c=0.4 | 1 |",
        "| ls | 23 |",
    ]
    assert markdown_rows(["a|b"], [["c"]]) == "| a\\|b |\n| :-- |\n| c |"
