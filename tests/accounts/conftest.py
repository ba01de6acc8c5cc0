"""Fixtures that the accounts tests share with the messaging tests."""

from tests.messaging.conftest import clock, database, secrets  # noqa: F401
