"""`Idempotency-Key` on every POST (ours: Twilio has none), so that a retried request acts once.

Theory: the row (account, method, path, key) is claimed before the handler runs and completed with the response,
for messages in the commit that accepts them. A scheduled message lies in another store: its SID is derived from the
request and its key, so that whoever takes the key over finds it. A second request with the key gets the stored response
byte for byte with `Idempotency-Replayed: true`; while the first still runs it waits briefly, then gets 409; with other
parameters it gets 422. A refusal (4xx, 5xx raised as `ApiError`) gives the key back, for it changed nothing.
A claim is a lease: when its holder died, the store hands the key to the next request with a higher epoch; at once when
another node has taken the key's home, for then the former owner can commit nothing more. What runs in this process is
known besides, for a partition may go and come back meanwhile.

The key is a quoted string as in draft-ietf-httpapi-idempotency-key-header, or bare; both name the same row.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Protocol

import orjson

from trunkline.api.limits import ApiLimits
from trunkline.api.request import Request
from trunkline.api.respond import Headers, Response
from trunkline.model.errors import ApiError
from trunkline.storage.queue import Replay

HEADER = b"idempotency-key"
REPLAYED = "Idempotency-Replayed"
RUNNING = "running"
DONE = "done"

_QUOTED = re.compile(rb'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"')
_BARE = re.compile(rb"[\x21\x23-\x7e][\x20-\x7e]*")
_ESCAPE = re.compile(rb"\\(.)")


class ReplayStore(Protocol):
    """The part of the `Queue` that keeps idempotency rows. A running row's `expires_ms` is its lease."""

    def claim_replay(self, row: Replay, now_ms: int) -> Awaitable[Replay | None]:
        """Claim the key; None when it is ours now (`row.epoch` says in which epoch), else the row that holds it."""

    def complete_replay(self, row: Replay) -> Awaitable[None]:
        """Store the response, if the row is still in our epoch."""

    def release_replay(self, row: Replay) -> Awaitable[None]:
        """Give the key back, if the row is still running in our epoch."""


def parse_key(raw: bytes, max_chars: int) -> str:
    """The key in an Idempotency-Key header; raises 400 for one that is empty, too long or malformed."""
    value = raw.strip(b" \t")
    quoted = _QUOTED.fullmatch(value)
    if quoted is not None:
        key = _ESCAPE.sub(rb"\1", quoted.group(1))
    elif _BARE.fullmatch(value) is not None:
        key = value
    else:
        raise ApiError.invalid("Idempotency-Key", "must be a quoted or bare string of printable ASCII")
    if len(key) > max_chars:
        raise ApiError.invalid("Idempotency-Key", f"longer than {max_chars} characters")
    return key.decode("ascii")


def fingerprint(request: Request) -> bytes:
    """SHA-256 over what makes two requests the same: account, method, path, format, query and form."""
    canonical = orjson.dumps(
        [
            request.account_sid,
            request.method,
            request.resource_path,
            request.format.value,
            request.query_string.decode("latin-1"),
            sorted(request.form.items()),
        ]
    )
    return hashlib.sha256(canonical).digest()


class Vault(Protocol):
    """Keeps stored responses unreadable at rest: they show tokens and secrets once (`trunkline.storage.secrets`)."""

    def seal(self, clear: str, context: str = "") -> str: ...

    def open(self, sealed: str, context: str = "") -> str: ...


SEALED = b"\0sealed:"
"""Marks a sealed body; no response begins with a NUL."""


class Claim:
    """A claimed key. A handler that commits the row with its resource takes `completed` into its write."""

    __slots__ = ("handed_over", "retention_ms", "row")

    def __init__(self, row: Replay, retention_ms: int) -> None:
        self.row = row
        self.retention_ms = retention_ms
        """How long the response is kept; after that the key is new."""
        self.handed_over = False
        """The handler stores the response itself."""

    def completed(self, response: Response, sid: str, now_ms: int) -> Replay:
        """The row to write in the resource's own commit (`Queue.accept(..., replay=row)`)."""
        self.fill(response, sid, now_ms)
        self.handed_over = True
        return self.row

    def fill(self, response: Response, sid: str, now_ms: int) -> None:
        """Put the response into the row."""
        row = self.row
        row.state = DONE
        row.status = response.status
        row.headers = orjson.dumps(
            [[name.decode("latin-1"), value.decode("latin-1")] for name, value in response.headers]
        )
        row.body = response.body
        row.sid = sid
        row.expires_ms = now_ms + self.retention_ms


class Idempotency:
    """Claims, replays and completes. `now_ms` is the wall clock; `sleep` takes seconds."""

    def __init__(
        self,
        store: ReplayStore,
        now_ms: Callable[[], int],
        limits: ApiLimits | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        vault: Vault | None = None,
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._limits = limits or ApiLimits()
        self._sleep = sleep
        self._vault = vault
        self._running: dict[tuple[str, str, str, str], bytes] = {}
        """Account, method, path and key of the claims that this process holds -> what the request is."""

    async def begin(self, request: Request, raw_key: bytes) -> Claim | Response:
        """Claim the request's key, or replay what it led to before. Raises 400, 409 or 422."""
        limits = self._limits
        key = parse_key(raw_key, limits.idempotency_key_chars)
        request.token = key
        mark = fingerprint(request)
        waited_ms = 0
        while True:
            now_ms = self._now_ms()
            row = Replay(
                account=request.account_sid,
                method=request.method,
                path=request.resource_path,
                key=key,
                fingerprint=mark,
                state=RUNNING,
                expires_ms=now_ms + limits.idempotency_lease_ms,
            )
            held = self._running.get(_name(row)) or await self._claimed(row, now_ms)
            if isinstance(held, Claim):
                request.idempotency = held
                return held
            if (held if isinstance(held, bytes) else held.fingerprint) != mark:
                raise ApiError.of(20422, status=422, message="This Idempotency-Key was used with different parameters")
            if not isinstance(held, bytes) and held.state == DONE:
                return replayed(self._unsealed(held))
            if waited_ms >= limits.idempotency_wait_ms:
                raise ApiError.of(
                    20409,
                    reason="a request with this Idempotency-Key is in progress",
                    headers=(("Retry-After", "1"),),
                )
            waited_ms += limits.idempotency_poll_ms
            await self._sleep(limits.idempotency_poll_ms / 1000)

    async def _claimed(self, row: Replay, now_ms: int) -> "Claim | Replay":
        """Our claim, or the row that holds the key."""
        self._running[_name(row)] = row.fingerprint
        held: Replay | None = row
        try:
            held = await self._store.claim_replay(row, now_ms)
        finally:
            if held is not None:
                self._running.pop(_name(row), None)
        return held or Claim(row, self._limits.idempotency_retention_ms)

    def over(self, claim: Claim) -> None:
        """Its request has been answered, whatever came of it."""
        self._running.pop(_name(claim.row), None)

    async def finish(self, claim: Claim, response: Response) -> None:
        """Store the response of a handler that returned; a refusal gives the key back."""
        if claim.handed_over:
            return
        if response.status >= 400:
            await self._store.release_replay(claim.row)
            return
        claim.fill(response, claim.row.sid, self._now_ms())
        if self._vault is not None and response.body:
            claim.row.body = SEALED + self._vault.seal(response.body.decode("latin-1"), claim.row.key).encode()
        await self._store.complete_replay(claim.row)

    def _unsealed(self, row: Replay) -> Replay:
        if self._vault is not None and row.body.startswith(SEALED):
            row.body = self._vault.open(row.body[len(SEALED) :].decode(), row.key).encode("latin-1")
        return row

    async def abandon(self, claim: Claim) -> None:
        """Give the key back after a handler raised, unless a commit may have taken it: then its lease decides."""
        if not claim.handed_over:
            await self._store.release_replay(claim.row)


def _name(row: Replay) -> tuple[str, str, str, str]:
    return row.account, row.method, row.path, row.key


def replayed(row: Replay) -> Response:
    """The stored response, marked."""
    headers: Headers = tuple(
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in orjson.loads(row.headers)
    )
    return Response(row.status, row.body, headers).with_header(REPLAYED, "true")
