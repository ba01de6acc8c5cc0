"""The order of a whole run, and the servers that any test may share: one of each kind for a process of tests."""

from typing import Any

import pytest

from tests import real_time
from tests.objects import s3
from tests.postgres import postgres
from tests.redis import redis_server

__all__ = ["postgres", "redis_server", "s3"]

LONG = tuple(f"tests/e2e/test_{name}.py" for name in ("cluster", "takeover", "postgres", "kill"))
"""They go first: at the end of a run one worker would be left alone with them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long ones first; the others keep their order."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """See `tests.real_time`."""
    if not item.nodeid.startswith(real_time.REAL_TIME):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in real_time.run(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was run again."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, text in getattr(report, "user_properties", ()):
                if name == real_time.AGAIN:
                    terminalreporter.write_line(f"{report.nodeid} was run again: {text}")
