"""The archive's own tests run over both engines of its recent documents; those of its parts over one."""

import pytest

from tests.postflight.harness import DSN
from tests.postgres import needs_postgres
from trunkline.storage.engines.postgres.recent import prepare

BOTH = ("test_archive", "test_compaction", "test_crash", "test_scan")
"""Modules that are run over both."""
LONG = {
    "test_pages_are_what_a_list_would_give",
    "test_a_crash_at_any_step_loses_and_doubles_nothing",
    "test_random_histories_read_like_a_dictionary",
}
"""Tests that run over PostgreSQL in `make test-all` alone; in the others, kills included, it always has its turn."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in BOTH:
        marks = [needs_postgres, *([pytest.mark.slow] if metafunc.function.__name__ in LONG else [])]
        engines = ["sqlite", pytest.param("postgres", marks=marks)]
        metafunc.parametrize("engine", engines, indirect=True)


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which engine `archive_at` opens, also in children."""
    name = str(getattr(request, "param", "sqlite"))
    if name == "postgres":
        monkeypatch.setenv(DSN, request.getfixturevalue("postgres").database(prepare))
    return name
