"""Tables of logs: one order of columns, whatever the process, also over a break."""

import csv

from mtrl_imgrad.experiments.rl.logs import run_logger


def write(logger, rows):
    for step, row in enumerate(rows):
        for name, value in row.items():
            logger.record(name, value)
        logger.dump(step)
    logger.close()


def read(path):
    with path.open() as file:
        header = next(csv.reader(file))
        file.seek(0)
        return header, [{name: text for name, text in row.items() if text} for row in csv.DictReader(file)]


NAMES = [f"train/{name}" for name in "hcgaebfd"]


def test_new_columns_come_in_alphabetical_order_and_rows_keep_their_values(tmp_path):
    rows = [dict.fromkeys(NAMES[:5], 1), {"eval/z": 0.5, "eval/b": 0}, dict.fromkeys(NAMES, 3)]
    write(run_logger(tmp_path, 0), rows)
    header, found = read(tmp_path / "progress.csv")
    assert header == [*sorted(NAMES[:5]), "eval/b", "eval/z", *sorted(NAMES[5:])]
    assert found == [{name: str(value) for name, value in row.items()} for row in rows]


def test_a_run_that_goes_on_keeps_the_columns_of_the_table_before(tmp_path):
    write(run_logger(tmp_path, 0), [{"b": 1, "d": 2}, {"a": 3}])
    write(run_logger(tmp_path, 800), [{"a": 1}, {"c": 2}])
    write(run_logger(tmp_path, 1200), [{"c": 1}])
    assert read(tmp_path / "progress_800.csv") == (["b", "d", "a", "c"], [{"a": "1"}, {"c": "2"}])
    assert read(tmp_path / "progress_1200.csv") == (["b", "d", "a", "c"], [{"c": "1"}])
    write(run_logger(tmp_path, 800), [{"b": 4}])  # broken off again before its next checkpoint
    assert read(tmp_path / "progress_800.csv") == (["b", "d", "a"], [{"b": "4"}])
