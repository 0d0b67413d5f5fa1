"""Where everything is installed a skipped test is a failure: `pytest -p tests.no_skips`."""

import pytest

ALLOWED: tuple[str, ...] = ()  # how reasons begin that hold on any machine


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(NoSkips())


class NoSkips:
    """Collects what was skipped against the rule, says it, and fails the session for it."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not hasattr(report, "wasxfail"):
            self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.note(report)

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped:
            assert isinstance(report.longrepr, tuple)  # file, line, reason
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if not reason.startswith(ALLOWED):
                self.skipped.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.skipped:
            terminalreporter.write_line(f"skipped, which is a failure here: {line}", red=True)
