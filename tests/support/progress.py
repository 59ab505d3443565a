"""`pytest --by-file`: a line for each file of tests when its last test is done, in place of a dot for each test."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest


class ProgressByFile:
    """Says how much is done, which file was finished, and its seconds; with or without xdist."""

    def __init__(self, terminal: Any) -> None:
        self.terminal = terminal
        self.waiting: Counter[str] = Counter()
        self.tests: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Without xdist."""
        self._expect([item.nodeid for item in session.items])

    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """With xdist: every process has collected the same."""
        self._expect(ids)

    def _expect(self, ids: list[str]) -> None:
        if ids and not self.tests:
            self.tests.update(_file(test) for test in ids)
            self.waiting.update(self.tests)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """No dot."""
        return ("passed", "", "") if report.passed and report.when == "call" else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count, and write the line after a file's last test."""
        file = _file(report.nodeid)
        self.seconds[file] += report.duration
        if report.when != "teardown":
            return
        self.waiting[file] -= 1
        if not self.waiting[file]:
            done = 1 - self.waiting.total() / max(self.tests.total(), 1)
            line = f"{done:4.0%} {self.seconds[file]:6.1f} s {self.tests[file]:5} tests of {file}"
            self.terminal.ensure_newline()
            self.terminal.write_line(line, flush=True)


def _file(test: str) -> str:
    return test.split("::")[0]
