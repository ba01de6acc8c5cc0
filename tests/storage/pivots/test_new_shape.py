"""The contract of the `Queue` holds in the new shape, too: every test of it, on queues that have been contracted."""

import itertools

import pytest

from tests.postgres import needs_postgres
from tests.storage.partitions import owning_all
from tests.storage.pivots.shapes import prepare_new, prepare_new_partition, to_new
from tests.storage.test_queue_contract import *  # noqa: F403
from trunkline.model.sid import SHARDS, use_shards
from trunkline.storage.engines.postgres.partitions import PostgresPartitions
from trunkline.storage.engines.postgres.queue import PostgresQueue
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.storage.sharded import ShardedQueue


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgres", marks=[needs_postgres, pytest.mark.slow]),
        pytest.param("partition", marks=[needs_postgres, pytest.mark.slow]),
    ]
)
def open_queue(request, tmp_path):
    turn = itertools.count()
    use_shards(lambda *_: next(turn) % SHARDS)
    yield _opener(request, tmp_path)
    use_shards(None)


def _opener(request, tmp_path):
    path = tmp_path / "queue.db"

    async def sqlite():
        if not path.exists():
            await SqliteQueue(path).close()
            to_new(path)
        return SqliteQueue(path)

    if request.param == "sqlite":
        return sqlite
    server = request.getfixturevalue("postgres")
    dsn = server.database(prepare_new if request.param == "postgres" else prepare_new_partition)

    async def postgres():
        return PostgresQueue(dsn)

    async def partition():
        return await owning_all(ShardedQueue(PostgresPartitions([dsn], 1)))

    return postgres if request.param == "postgres" else partition
