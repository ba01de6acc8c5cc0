"""The partitions of a queue on PostgreSQL: each a schema (`p00` ... `p63`) of one of the queue databases, written by
one node, read by all. The tables of a single partition are the plain queue's, in the schema that the server chooses.

Ids of several partitions are Unix nanoseconds whose low 8 bits name the partition; they increase within it.

How many partitions and databases there are is fixed for the life of a cluster: each database has it in its table
`layout`, and a node that is set otherwise does not start.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import psycopg

from trunkline.storage.carrier_ids import CarrierIds
from trunkline.storage.engines.postgres import durability
from trunkline.storage.engines.postgres import queue_sql as sql
from trunkline.storage.engines.postgres.layout import LAYOUT_TABLE, WrongLayout, compare, wrong
from trunkline.storage.engines.postgres.layout import schema_of as schema_of
from trunkline.storage.engines.postgres.ownership import OWNER_TABLE, WRITER_TABLE, Fenced
from trunkline.storage.engines.postgres.queue import MIGRATION_LOCK, READER_THREADS, PostgresQueue, clean
from trunkline.storage.engines.postgres.readers import NEAR_S, Readers
from trunkline.storage.engines.postgres.session import Connection, Servers, within
from trunkline.storage.engines.postgres.shapes import SPEAKER_TABLE, Shapes, has_old_shape
from trunkline.storage.engines.postgres.writer import PREPARE_S, Cursor, Writer
from trunkline.storage.pivots import NEWEST
from trunkline.storage.queue import PARTITION_BITS
from trunkline.storage.survives import Survives
from trunkline.storage.unavailable import StoreUnavailable

_TABLES = (WRITER_TABLE, OWNER_TABLE, sql.SCHEMA, sql.FIELD, *sql.FENCED_FUNCTIONS)
_DDL = hashlib.sha256("".join((*_TABLES, SPEAKER_TABLE, sql.INDEX_OF_OLD)).encode()).hexdigest()[:16]
"""Names what `_TABLES` makes; where it is there already, nothing is locked."""
_OWNERS = "select {place}, epoch, node, at from {schema}owner"


def prepare(connection: Connection, partitions: int, databases: int = 1, place: int = 0) -> None:
    """Create what a queue database lacks: number `place` of `databases`. Raises WrongLayout."""
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        is_new = connection.execute(
            "select to_regclass('layout') is null, to_regclass('flight') is not null"
        ).fetchone()
        if is_new and is_new[0]:
            if is_new[1] and partitions > 1:
                raise WrongLayout(wrong("partitions", partitions, 1))
            connection.execute(LAYOUT_TABLE.encode())
            connection.execute("insert into layout values (true, %s, %s, %s, '')", (partitions, databases, place))
        (found,) = connection.execute("select partitions, databases, place, ddl from layout").fetchall()
    compare(found, partitions, databases, place)
    if found[3] == _DDL:
        return
    for partition in range(place, partitions, databases):
        schema = schema_of(partition, partitions)
        with connection.transaction():
            connection.execute("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
            if schema:
                connection.execute(f"create schema if not exists {schema}".encode())
                connection.execute(f"set local search_path to {schema}".encode())
            for statement in _TABLES:
                connection.execute(statement.encode())
            if has_old_shape(connection):
                connection.execute(sql.INDEX_OF_OLD.encode())
    with connection.transaction():  # two that are first at once would both make the table
        connection.execute("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        connection.execute(SPEAKER_TABLE.encode())
        connection.execute("update layout set ddl = %s", (_DDL,))


class PostgresPartition(PostgresQueue):
    """One partition; with a writer, as its owner."""

    _fenced = True

    def __init__(
        self, partition: int, partitions: int, readers: Readers, survives: Survives, carrier_ids: CarrierIds
    ) -> None:
        self.survives = survives
        self.partition = partition
        self._several = partitions > 1
        self._per_ms = 1_000_000 if self._several else 1000
        self._shape_with(schema_of(partition, partitions), self._per_ms)
        self._readers = readers
        self._writer = None
        self._fence: Fenced | None = None
        self._last_id = 0
        self._carrier_ids = carrier_ids

    async def begin(self, writer: Writer, fence: Fenced) -> None:
        """Write from now on. Raises StoreUnavailable."""
        self._writer, self._fence = writer, fence
        self.use_shape(self._shape)

        def newest(cursor: Cursor) -> int:
            row = cursor.execute(self._reads.newest.encode()).fetchone()
            return int(row[0]) if row else 0

        # A commit of its own: from here on it is known that this partition takes writes, and from us.
        self._last_id = await writer.submit(newest)

    @property
    def epoch(self) -> int:
        """Of this owner; each has a higher one than those before it. 0: it only reads."""
        return self._fence.epoch if self._fence else 0

    @property
    def failed(self) -> BaseException | None:
        """Why nothing can be written now."""
        return self.writer.failed

    @property
    def takes_writes(self) -> bool:
        """Whether what is handed in now is likely to be committed soon."""
        return self.writer.takes_writes

    def _next_id(self) -> int:
        if not self._several:
            return super()._next_id()
        number = max((self._last_id >> PARTITION_BITS) + 1, time.time_ns() >> PARTITION_BITS)
        self._last_id = number << PARTITION_BITS | self.partition
        return self._last_id

    async def release(self) -> None:
        """Commit what was handed in, then let go."""
        noted = self.writer.submit(self._fence.give_up) if self._fence else None
        await self.writer.close(in_a_hurry=False)
        if noted is not None:
            await asyncio.gather(noted, return_exceptions=True)

    async def close(self) -> None:
        """End the writer; what reads is shared."""
        if self._writer is not None:
            await self._writer.close()


class PostgresPartitions:
    """All partitions, of all queue databases, as one node sees them (`trunkline.storage.sharded.Partitions`)."""

    def __init__(
        self,
        dsns: Sequence[str],
        partitions: int,
        *,
        survives: Survives = Survives.POWER,
        zones: Mapping[str, str] | None = None,
        wait_s: float = 10.0,
        node: str = "",
        speaks: int = NEWEST,
    ) -> None:
        """Looks at each database; one that cannot be reached is looked at later. Raises CannotSurvive, and
        StoreUnavailable when none can."""
        self.survives = survives
        self.partitions = partitions
        self.databases = len(dsns)
        self._zones = zones or {}
        self._wait_s = wait_s
        self._node = node
        self.carrier_ids = CarrierIds()
        names = ["queue"] if len(dsns) == 1 else [f"queue[{place}]" for place in range(len(dsns))]
        self._servers = [Servers(dsn, name) for dsn, name in zip(dsns, names, strict=True)]
        for servers in self._servers:
            servers.speaks = min(speaks, NEWEST)
        self._readers = [Readers(servers, servers.name, READER_THREADS) for servers in self._servers]
        self._prepared = [False] * len(dsns)
        self._parts = [
            PostgresPartition(
                partition, partitions, self._readers[self.database_of(partition)], survives, self.carrier_ids
            )
            for partition in range(partitions)
        ]
        self._shapes = []
        for place, readers in enumerate(self._readers):
            own = [schema_of(partition, partitions) for partition in range(place, partitions, self.databases)]
            self._shapes.append(Shapes(readers, own, speaks, node))
        for part in self._parts:
            self._follow(part)
        self._finds = [self._find_statement(place) for place in range(len(dsns))]
        self._look()

    def _follow(self, part: PostgresPartition) -> None:
        schema = schema_of(part.partition, self.partitions)
        self._shapes[self.database_of(part.partition)].follow(schema, part)

    def _look(self) -> None:
        errors = []
        for place in range(self.databases):
            try:
                self._prepare(place)
                self._readers[place].near("select 1")
            except StoreUnavailable as error:
                errors.append(error)
                self._readers[place].seek()
        if len(errors) == self.databases:
            raise errors[0]
        for shapes in self._shapes:
            shapes.announce()

    def _prepare(self, place: int) -> None:
        if self._prepared[place]:
            return
        servers = self._servers[place]
        connection = servers.connect("trunkline preparing")
        try:
            with within(connection, PREPARE_S):
                prepare(connection, self.partitions, self.databases, place)
        except psycopg.Error as error:
            raise StoreUnavailable(f"{servers!r}: {error}") from error
        except WrongLayout as error:
            raise WrongLayout(f"{servers!r}: {error}") from None
        finally:
            connection.close()
        self._prepared[place] = True

    def name_of(self, place: int) -> str:
        """A database's name, for operators."""
        return repr(self._servers[place])

    def database_of(self, partition: int) -> int:
        """Number of the database that a partition lies in."""
        return partition % self.databases

    def reader(self, partition: int) -> PostgresPartition:
        """A partition to be read."""
        return self._parts[partition]

    async def own(
        self, partition: int, deposed: Callable[[], None], elsewhere: Callable[[], bool]
    ) -> PostgresPartition:
        """Take a partition, whoever has it now; `deposed` is called when another node has. `elsewhere`: whether work
        may go to another database. Raises StoreUnavailable, CannotSurvive."""
        place = self.database_of(partition)
        schema = schema_of(partition, self.partitions)
        fence = Fenced(schema or "queue", self._node, "" if schema else "queue")

        def check(connection: Connection) -> None:
            durability.check(durability.read(connection), self.survives, self._zones)
            self._shapes[place].look(connection)

        def make() -> Writer:
            self._prepare(place)
            return Writer(
                self._servers[place],
                f"queue {schema}".strip(),
                owner=fence,
                prepare=None,
                check=check,
                wait_s=self._wait_s,
                schema=schema,
            )

        writer = await asyncio.to_thread(make)
        writer.elsewhere = elsewhere
        writer.stale = self._shapes[place].look
        writer.on_deposed = deposed
        writer.start(asyncio.get_running_loop())
        part = PostgresPartition(partition, self.partitions, self._readers[place], self.survives, self.carrier_ids)
        self._follow(part)
        try:
            await part.begin(writer, fence)
        except BaseException:
            await writer.close()
            raise
        return part

    def _find_statement(self, place: int) -> str:
        finds = [
            f"select {partition}::bigint, found.* from ({self._parts[partition].find_carrier_sql}) found"
            for partition in range(place, self.partitions, self.databases)
        ]
        return " union all ".join(finds)

    def find_carrier_id(
        self, owned: Collection[int], connector: str, carrier_id: str, *, whole: bool = True
    ) -> tuple[int, str, str] | None:
        """See `Queue.find_carrier_id`; what is owned here counts first, then what is newest. One round trip for each
        database. Unless the `whole` queue must be asked, databases that cannot be reached are left out. Raises
        StoreUnavailable."""
        known = self.carrier_ids.find(connector, carrier_id)
        if known is not None:
            return known
        pair = (clean(connector), clean(carrier_id))
        homes = {self.database_of(partition) for partition in owned}
        lost: StoreUnavailable | None = None
        for place in sorted(range(self.databases), key=lambda place: place not in homes):
            parts = len(range(place, self.partitions, self.databases))
            if not parts:
                continue
            try:
                rows = self._readers[place].near(self._finds[place], pair * parts, NEAR_S)
            except StoreUnavailable as error:
                lost = error
                continue
            if rows:
                row = max(rows, key=lambda row: (row[0] in owned, row[1]))
                return int(row[1]), row[2], row[3]
        if lost is not None and whole:
            raise lost
        return None

    def problems(self) -> dict[str, str]:
        """What is wrong with reading, by database."""
        return {
            repr(servers): readers.failed
            for servers, readers in zip(self._servers, self._readers, strict=True)
            if readers.failed
        }

    async def owners(self) -> list[tuple[int, int, str]]:
        """(partition, epoch, node) of every partition that was taken and not let go, as the databases say. Raises
        StoreUnavailable."""
        found: list[tuple[int, int, str]] = []
        for place, readers in enumerate(self._readers):
            statements = [
                _OWNERS.format(place=partition, schema=f"{schema}." if schema else "")
                for partition in range(place, self.partitions, self.databases)
                for schema in [schema_of(partition, self.partitions)]
            ]
            for row in await readers.rows(" union all ".join(statements)) if statements else ():
                if row[2]:
                    found.append((int(row[0]), int(row[1]), row[2]))
        return sorted(found)

    async def close(self) -> None:
        """Finish the reads under way."""
        await asyncio.gather(*(asyncio.to_thread(shapes.close) for shapes in self._shapes))
        await asyncio.gather(*(readers.close() for readers in self._readers))
