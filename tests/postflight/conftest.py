"""The archive's tests run over both engines of its recent documents."""

import pytest

from tests.postflight.harness import DSN
from tests.postgres import needs_postgres, postgres  # noqa: F401  (fixture)
from trunkline.storage.engines.postgres.recent import prepare


@pytest.fixture(autouse=True, params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which engine `archive_at` opens, also in children."""
    if request.param == "postgres":
        monkeypatch.setenv(DSN, request.getfixturevalue("postgres").database(prepare))
    return str(request.param)
