"""What a run of pytest says, in one place and last, of the services that its tests could not have."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.programs import ServiceFailed

HINT = "hint"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[Any]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a service that cannot be started by what to do, rather than by where that was found."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, ServiceFailed):
        report.longrepr = str(call.excinfo.value)
        report.user_properties.append((HINT, report.longrepr))
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Say once what to do, after all else: who shares the tests with other processes sees it as well."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    reports = [report for category in ("error", "failed") for report in reporter.stats.get(category, [])]
    properties = [each for report in reports for each in getattr(report, "user_properties", [])]
    for hint in sorted({value for name, value in properties if name == HINT}):
        reporter.write_line(f"\n{hint}", yellow=True)
