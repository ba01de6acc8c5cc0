"""The engines under test."""

from tests.postgres import postgres  # noqa: F401  (fixture)
