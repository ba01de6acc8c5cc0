"""Notices of changed records, from whoever commits to whoever has copies: PostgreSQL's LISTEN and NOTIFY.

A notice is sent within the transaction that changes the records: who is listening gets it just after the commit, in the
order of the commits, and never for what was rolled back. Each names its writer and that writer's number for it, so that
somebody can be asked whether he has it. Whoever was not listening for a while is told that anything may have changed.

Source: https://www.postgresql.org/docs/15/sql-notify.html
"""

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
import psycopg

from trunkline.storage.engines.postgres.readers import NearConnection
from trunkline.storage.engines.postgres.session import Connection, Servers, cut
from trunkline.storage.unavailable import StoreUnavailable

CHANNEL: Final = "trunkline_records"
SEND: Final = f"select pg_notify('{CHANNEL}', %s)"
LISTEN: Final = f"listen {CHANNEL}"
MAX_BYTES: Final = 7900
"""Longest notice (PostgreSQL takes 7,999 bytes)."""
MOST: Final = 100
"""Records named in one notice."""
CHECK_S: Final = 1.0
"""The connection is tried after so long without a notice."""
SILENT_S: Final = 3.0
"""Longest answer to that."""
AGAIN_S: Final = 1.0
"""Before the next try to listen, or to read what a notice was about."""
MAX_WRITERS: Final = 1000
"""Writers whose last number is remembered; the longest unheard go first."""

log = logging.getLogger(__name__)


class Notice(msgspec.Struct, array_like=True, frozen=True):
    """What is sent."""

    writer: str
    number: int
    table: str
    sids: tuple[str, ...] = ()
    """Empty: any of the table's records."""
    more: bool = False
    """Whether others of the same number follow: only the last one says that all of it has been told."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Notice).decode


def texts(writer: str, number: int, touched: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The notices of records, by table, that one transaction changes."""
    parts = [
        (table, tuple(sids[at : at + MOST])) for table, sids in touched.items() for at in range(0, len(sids), MOST)
    ]
    for place, (table, sids) in enumerate(parts, 1):
        more = place < len(parts)
        text = _encode(Notice(writer, number, table, sids, more))
        yield (text if len(text) <= MAX_BYTES else _encode(Notice(writer, number, table, (), more))).decode()


class Notices:
    """Listens in a thread, and tells on the event loop, one after the other. Notices of `own`, a writer, are not told.

    `changed(changes)` is awaited for what has changed by table ((): any record of it; None: anything at all), and again
    until it does not raise; what comes meanwhile is told together.
    """

    def __init__(
        self, servers: Servers, own: str, changed: Callable[[dict[str, Sequence[str]] | None], Awaitable[None]]
    ) -> None:
        self._servers = servers
        self._own = own
        self._changed = changed
        self.listening = False
        """Whether notices come now."""
        self._heard: OrderedDict[str, int] = OrderedDict()
        self._waiting: list[tuple[str, int, asyncio.Future[None]]] = []
        self._news: list[Notice | None] = []
        self._new = asyncio.Event()
        self._closing = threading.Event()
        self._connection: Connection | None = None
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._tell())
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self._thread.start()

    # -- on the event loop -------------------------------------------------------------------------------------

    async def heard(self, writer: str, number: int) -> None:
        """Wait until a writer's notice, and all before it, has been told."""
        if self._heard.get(writer, -1) >= number:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((writer, number, future))
        try:
            await future
        finally:
            self._waiting = [one for one in self._waiting if one[2] is not future]

    async def close(self) -> None:
        """Hear no more."""
        self._closing.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            cut(self._connection)
        await asyncio.to_thread(self._thread.join)

    def _take(self, news: list[Notice | None]) -> None:
        self._news += news
        self._new.set()

    async def _tell(self) -> None:
        while True:
            await self._new.wait()
            self._new.clear()
            news, self._news = self._news, []
            try:
                await self._changed(_summary(news))
            except Exception as error:
                log.warning("what has changed cannot be read, and is tried again: %s: %s", type(error).__name__, error)
                self._news = news + self._news
                self._new.set()
                await asyncio.sleep(AGAIN_S)
                continue
            self._note(news)

    def _note(self, news: Sequence[Notice | None]) -> None:
        for one in news:
            if one is not None and not one.more:
                self._heard[one.writer] = max(one.number, self._heard.pop(one.writer, -1))
        while len(self._heard) > MAX_WRITERS:
            self._heard.popitem(last=False)
        for writer, number, future in self._waiting:
            if not future.done() and self._heard.get(writer, -1) >= number:
                future.set_result(None)

    # -- in the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen()
            except (StoreUnavailable, psycopg.Error, TimeoutError, OSError) as error:
                if self._closing.is_set():
                    return
                if self.listening:
                    log.warning("notices of changed records do not come, records are looked for instead: %s", error)
                self.listening = False
                self._closing.wait(AGAIN_S)

    def _listen(self) -> None:
        connection = self._servers.connect("trunkline records notices", kind=NearConnection)
        assert isinstance(connection, NearConnection)
        self._connection = connection
        try:
            connection.patience_s = SILENT_S
            connection.execute(LISTEN)
            connection.patience_s = 0.0
            self.listening = True
            self._hand_over([None])
            while not self._closing.is_set():
                for one in connection.notifies(timeout=CHECK_S):
                    notice = _read(one.payload)
                    if notice is None or notice.writer != self._own:
                        self._hand_over([notice])
                connection.patience_s = SILENT_S
                connection.execute("select 1")
                connection.patience_s = 0.0
        finally:
            self._connection = None
            connection.close()

    def _hand_over(self, news: list[Notice | None]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._take, news)
        except RuntimeError:
            self._closing.set()  # the loop has closed


def _read(text: str) -> Notice | None:
    """A notice; None for what says nothing to us: then anything may have changed."""
    try:
        return _decode(text)
    except msgspec.MsgspecError:
        return None


def _summary(news: Sequence[Notice | None]) -> dict[str, Sequence[str]] | None:
    changes: dict[str, dict[str, None] | None] = {}
    for one in news:
        if one is None:
            return None
        known = changes.setdefault(one.table, {})
        if not one.sids or known is None:
            changes[one.table] = None
        else:
            known.update(dict.fromkeys(one.sids))
    return {table: tuple(sids) if sids is not None else () for table, sids in changes.items()}
