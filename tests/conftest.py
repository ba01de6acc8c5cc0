"""The order of a whole run."""

import pytest

LONG = tuple(f"tests/e2e/test_{name}.py" for name in ("cluster", "takeover", "postgres", "kill"))
"""They go first: at the end of a run one worker would be left alone with them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long ones first; the others keep their order."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
