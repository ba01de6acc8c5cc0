"""The heartbeat of the active region, in each of its databases: what a standby has of it says how far behind it is."""

import logging
import threading
import time
from collections.abc import Callable, Mapping

import psycopg

from trunkline.region.databases import APPLICATION, BEAT, STATEMENT_MS
from trunkline.storage.engines.postgres.session import Connection, Servers, reason
from trunkline.storage.unavailable import StoreUnavailable

EVERY_S = 1.0

log = logging.getLogger(__name__)


class Beats:
    """A thread for each database: one that hangs holds up no other."""

    def __init__(self, databases: Mapping[str, str], may_beat: Callable[[], bool], every_s: float = EVERY_S) -> None:
        self._may_beat = may_beat
        self._every_s = every_s
        self._closing = threading.Event()
        self.counted: dict[str, int] = dict.fromkeys(databases, 0)
        """Database -> beats that this node has counted."""
        for name, dsn in databases.items():
            threading.Thread(target=self._run, args=(name, dsn), name=f"beat-{name}", daemon=True).start()

    def _run(self, name: str, dsn: str) -> None:
        connection: Connection | None = None
        failed = False
        began = time.monotonic()
        while not self._closing.wait(max(0.0, began + self._every_s - time.monotonic())):
            began = time.monotonic()
            if not self._may_beat():
                continue
            try:
                if connection is None:
                    connection = Servers(dsn, name).connect(APPLICATION, statement_ms=STATEMENT_MS)
                self.counted[name] += connection.execute(BEAT.encode()).rowcount
                failed = False
            except (psycopg.Error, StoreUnavailable) as error:
                if connection is not None:
                    connection.close()
                    connection = None
                if not failed:
                    log.warning("the heartbeat of %s cannot be written: %s", name, reason(error))
                failed = True
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """No more beats."""
        self._closing.set()
