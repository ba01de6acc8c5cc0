"""The engines under test."""

from tests.postgres import postgres  # noqa: F401  (fixture)
from tests.redis import redis_server  # noqa: F401  (fixture)
