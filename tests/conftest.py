"""The order of a whole run, and the servers that any test may share: one of each kind for a process of tests."""

import pytest

from tests.objects import s3
from tests.postgres import postgres
from tests.redis import redis_server

__all__ = ["postgres", "redis_server", "s3"]

LONG = tuple(f"tests/e2e/test_{name}.py" for name in ("cluster", "takeover", "postgres", "kill"))
"""They go first: at the end of a run one worker would be left alone with them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long ones first; the others keep their order."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
