"""The archive's worker process: `python -m trunkline.postflight.worker`, started by `worker_client`.

It keeps pyarrow and DuckDB out of the serving process. One process per role, so that neither an operator's SQL nor a
roll-up stands in the way of a customer's read: `read` (fetches and pages, several threads), `analysis` (sums, SQL,
exports) and `roll` (roll-ups and compaction, niced). It ends when the other side of its socket does.
"""

import importlib
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from trunkline.postflight.files import open_files
from trunkline.postflight.wire import HEADER, MAX_FRAME, FrameTooLong, Reply, Request, Setup, decode_request, frame
from trunkline.storage.manifest import RecentReader, Segment
from trunkline.storage.unavailable import StoreUnavailable

READ_THREADS = 4
"""Fetches and pages that run at the same time."""
NICENESS = 15
"""Of the roll role: serving goes first."""


def receive(peer: socket.socket) -> bytes | None:
    """The next frame's body; None: the other side is gone, or does not speak as we do."""
    header = _exactly(peer, HEADER)
    if header is None:
        return None
    length = int.from_bytes(header, "big")
    return _exactly(peer, length) if length <= MAX_FRAME else None


def _exactly(peer: socket.socket, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        try:
            chunk = peer.recv(min(length - len(data), 1 << 20))
        except ConnectionResetError:  # the other side was killed with an answer unread
            return None
        if not chunk:
            return None
        data += chunk
    return bytes(data)


class Worker:
    """Serves requests from one socket."""

    def __init__(self, setup: Setup, peer: socket.socket) -> None:
        self.setup = setup
        self.files = open_files(Path(setup.folder), setup.objects, setup.cache_bytes)
        self._peer = peer
        self._sending = threading.Lock()
        self._local = threading.local()
        module, name = setup.reader.split(":")
        self._open_reader: Callable[[str], RecentReader] = getattr(importlib.import_module(module), name)
        self._operations = OPERATIONS[setup.role](self)

    @property
    def reader(self) -> RecentReader:
        """This thread's own reader."""
        reader: RecentReader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._open_reader(self.setup.location)
        return reader

    def run(self) -> None:
        """Serve until the peer closes."""
        threads = READ_THREADS if self.setup.role == "read" else 1
        with ThreadPoolExecutor(threads) as pool:
            while (body := receive(self._peer)) is not None:
                pool.submit(self._answer, decode_request(body))

    def _answer(self, request: Request) -> None:
        try:
            result = self._operations[request.op](**request.args)
            reply = Reply(request.id, result=msgspec.to_builtins(result, builtin_types=BUILTINS, enc_hook=str))
        except Exception as error:
            if not isinstance(error, EXPECTED):
                traceback.print_exc()
            reply = Reply(request.id, error=str(error) or type(error).__name__, kind=type(error).__name__)
        try:
            data = frame(reply)
        except FrameTooLong as error:
            data = frame(Reply(request.id, error=f"the answer is too big: {error}", kind="FrameTooLong"))
        with self._sending:
            try:
                self._peer.sendall(data)
            except OSError:
                return  # the other side is gone; `run` sees that too


BUILTINS = (bytes,)
EXPECTED = (ValueError, StoreUnavailable)
Operations = dict[str, Callable[..., Any]]


def _read_operations(worker: Worker) -> Operations:
    from trunkline.postflight.scan import Scanner, Want

    scanner = Scanner(worker.files)

    def page(**want: Any) -> Any:
        return scanner.page(worker.reader, Want(**want))

    return {"get": lambda account, sid: scanner.get(worker.reader, account, sid), "page": page}


def _analysis_operations(worker: Worker) -> Operations:
    from trunkline.postflight import analysis
    from trunkline.postflight.export import export

    bounds = analysis.Bounds(memory_bytes=worker.setup.memory_bytes, query_rows=worker.setup.query_rows)

    def export_to(target: str, **options: Any) -> Any:
        return export(worker.files, worker.reader, Path(target), **options, bounds=bounds)

    return {
        "usage": lambda **want: analysis.usage(worker.files, worker.reader, **want, bounds=bounds),
        "query": lambda sql: analysis.query(worker.files, worker.reader, sql, bounds),
        "export": export_to,
    }


def _roll_operations(worker: Worker) -> Operations:
    import pyarrow as pa

    from trunkline.postflight import compaction
    from trunkline.postflight.segments import read_identities

    os.nice(NICENESS)
    pa.set_cpu_count(1)
    files = worker.files

    def segment(value: Any) -> Segment:
        return msgspec.convert(value, Segment)

    def rewrite(old: Any, expired: dict[str, str], now_ms: int) -> Any:
        return compaction.rewrite(files, worker.reader, segment(old), expired, now_ms=now_ms)

    def merge(old: list[Any], now_ms: int) -> Any:
        return compaction.merge(files, worker.reader, [segment(value) for value in old], now_ms=now_ms)

    return {
        "cut": lambda rows, below: worker.reader.cut(rows, below),
        "roll": lambda **want: compaction.roll(files, worker.reader, **want),
        "identities": lambda path, first, count: read_identities(files.path(path), first, count),
        "rewrite": rewrite,
        "merge": merge,
        "needless_floors": lambda: compaction.needless_floors(files, worker.reader),
        "sweep": lambda: compaction.sweep(files, worker.reader),
        "remove": lambda paths: files.remove(paths),
        "orphans": lambda older_s: compaction.orphans(files, worker.reader, older_s),
    }


OPERATIONS: dict[str, Callable[[Worker], Operations]] = {
    "read": _read_operations,
    "analysis": _analysis_operations,
    "roll": _roll_operations,
}
"""The roles; each imports only what it needs."""


def main(arguments: list[str]) -> None:
    """Argument: the number of the inherited socket, by which a `Setup` comes first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: our parent ends us in order
    peer = socket.socket(fileno=int(arguments[0]))
    told = receive(peer)
    if told is not None:
        Worker(msgspec.json.decode(told, type=Setup), peer).run()
    peer.close()


if __name__ == "__main__":
    main(sys.argv[1:])
