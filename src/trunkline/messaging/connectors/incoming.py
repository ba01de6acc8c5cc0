"""Carriers' own HTTP requests (receipts, inbound messages): read with bounds, kept, and only then acknowledged.

The API mounts `handle` of every connector that has one at `/connectors/NAME/receipt` and `/connectors/NAME/inbound`:

    status, headers, body = await connector.handle(kind, method, headers, query, body)

`kind` is the last segment of the path, `headers` has lower-case names, `query` is the raw query string.
"""

import asyncio
import logging
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import orjson

from trunkline.messaging.connectors.base import InboundPart, Receipt, Sink

MAX_BODY_BYTES: Final = 256 * 1024
MAX_FIELDS: Final = 200
MAX_RECORDS: Final = 1000
"""Receipts or messages in one request."""
MAX_UNDER_WAY: Final = 500
"""Requests of one connector waiting for their commit; more get 503."""
COMMIT_TIMEOUT_S: Final = 10.0
"""The commit is waited for so long; then the carrier gets 503 and sends it again."""

Headers = tuple[tuple[bytes, bytes], ...]
Answer = tuple[int, Headers, bytes]
Record = Receipt | InboundPart

TEXT: Final[Headers] = ((b"content-type", b"text/plain; charset=utf-8"),)
AGAIN: Final[Headers] = (*TEXT, (b"retry-after", b"5"))

log = logging.getLogger(__name__)


class Refused(Exception):
    """The request is not taken; `status` and text go back to whoever sent it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Mounted(Protocol):
    """A connector that carriers send requests to."""

    async def handle(self, kind: str, method: str, headers: Mapping[bytes, bytes], query: bytes, body: bytes) -> Answer:
        """Answer one request: 2xx only after the commit."""


class Door:
    """Where one connector's carrier comes in. `records(kind, method, headers, query, body)` reads a request or raises
    Refused; `thanks` is the answer to a request that was kept."""

    def __init__(
        self,
        name: str,
        records: Callable[[str, str, Mapping[bytes, bytes], bytes, bytes], Sequence[Record]],
        thanks: Callable[[str], Answer] = lambda kind: (200, TEXT, b"OK"),
    ) -> None:
        self._name = name
        self._records = records
        self._thanks = thanks
        self._under_way = 0
        self.sink: Sink | None = None
        """None: closed."""

    async def handle(self, kind: str, method: str, headers: Mapping[bytes, bytes], query: bytes, body: bytes) -> Answer:
        """See `Mounted.handle`. Never raises."""
        sink = self.sink
        if sink is None or self._under_way >= MAX_UNDER_WAY:
            return 503, AGAIN, b"not now"
        if method not in ("GET", "POST", "PUT"):
            return 405, (*TEXT, (b"allow", b"GET, POST, PUT")), b"GET or POST"
        if len(body) > MAX_BODY_BYTES:
            return 413, TEXT, f"at most {MAX_BODY_BYTES} bytes".encode()
        try:
            records = self._records(kind, method, headers, query, body)
        except Refused as refused:
            return refused.status, TEXT, str(refused).encode("utf-8", "replace")
        except Exception:
            log.exception("%s: a request to /%s could not be read", self._name, kind)
            return 400, TEXT, b"not understood"
        self._under_way += 1
        try:
            kept = await self._keep(sink, records)
        finally:
            self._under_way -= 1
        return self._thanks(kind) if kept else (503, AGAIN, b"not kept, send it again")

    async def _keep(self, sink: Sink, records: Sequence[Record]) -> bool:
        """Whether every record is committed. What was committed of a refused batch comes twice, which is harmless."""
        try:
            waiting = [
                asyncio.ensure_future(sink.receipt(r) if isinstance(r, Receipt) else sink.inbound(r)) for r in records
            ]
            if not waiting:
                return True
            done, late = await asyncio.wait(waiting, timeout=COMMIT_TIMEOUT_S)
        except Exception:
            log.exception("%s: not kept", self._name)
            return False
        for future in late:
            future.add_done_callback(_look)
        failed = [future for future in done if not _look(future)]
        return not failed and not late


def _look(future: "Future[Any]") -> bool:
    """Whether a commit went well; logs why not."""
    if future.cancelled():
        return False
    error = future.exception()
    if error is not None:
        log.warning("not kept: %s", error)
    return error is None


def fields_of(method: str, headers: Mapping[bytes, bytes], query: bytes, body: bytes) -> Any:
    """The fields of a request: a JSON document as it is, else the form's (and the query's) fields as a dict.

    Raises Refused.
    """
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    fields: dict[str, Any] = dict(pairs_of(query))
    if method == "GET" or not body:
        return fields
    if kind == b"application/json" or kind.endswith(b"+json") or body[:1] in (b"{", b"["):
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise Refused(400, "the body is not JSON") from None
        return {**fields, **document} if isinstance(document, dict) else document
    return {**fields, **dict(pairs_of(body))}


def pairs_of(text: bytes) -> list[tuple[str, str]]:
    """Decoded pairs of a query or a form, in order. Raises Refused when there are too many."""
    try:
        return parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="replace")
    except ValueError:
        raise Refused(400, f"at most {MAX_FIELDS} fields") from None
