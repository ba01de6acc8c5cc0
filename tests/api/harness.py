"""The API called in process: accounts, an idempotency store in memory, and one exchange per call."""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import orjson

from trunkline.api.asgi import Api
from trunkline.api.auth import Authenticator
from trunkline.api.idempotency import Idempotency
from trunkline.api.limits import ApiLimits
from trunkline.api.route import Route
from trunkline.model.account import Account, ApiKey
from trunkline.storage.queue import Replay

PARENT = "AC" + "1" * 32
CHILD = "AC" + "2" * 32
OTHER = "AC" + "3" * 32
TEST = "AC" + "4" * 32
TOKEN, SECONDARY, CHILD_TOKEN, TEST_TOKEN = "a" * 32, "b" * 32, "c" * 32, "d" * 32
MAIN_KEY, STANDARD_KEY = "SK" + "1" * 32, "SK" + "2" * 32
SECRET = "s3cret:with:colons"
PEPPER = b"pepper"
CREDENTIALS = (PARENT, TOKEN)
MESSAGES = f"/2010-04-01/Accounts/{PARENT}/Messages"


def hash_secret(pepper: bytes, secret: str) -> str:
    return hmac.new(pepper, secret.encode(), hashlib.sha256).hexdigest()


class FakeDirectory:
    """A parent with a subaccount and two keys, and a stranger."""

    def __init__(self) -> None:
        self.generation = 1
        self.accounts = {
            PARENT: Account(
                sid=PARENT,
                owner_account_sid=PARENT,
                auth_token=TOKEN,
                secondary_auth_token=SECONDARY,
                test_account_sid=TEST,
                test_auth_token=TEST_TOKEN,
            ),
            CHILD: Account(sid=CHILD, owner_account_sid=PARENT, auth_token=CHILD_TOKEN),
            OTHER: Account(sid=OTHER, owner_account_sid=OTHER, auth_token=""),
        }
        self.keys = {
            MAIN_KEY: ApiKey(sid=MAIN_KEY, account_sid=PARENT, secret_hash=hash_secret(PEPPER, SECRET), main=True),
            STANDARD_KEY: ApiKey(sid=STANDARD_KEY, account_sid=PARENT, secret_hash=hash_secret(PEPPER, SECRET)),
        }

    def account(self, sid: str) -> Account | None:
        return self.accounts.get(sid)

    def test_account(self, test_sid: str) -> Account | None:
        return next((a for a in self.accounts.values() if a.test_account_sid == test_sid), None)

    def api_key(self, sid: str) -> ApiKey | None:
        return self.keys.get(sid)

    def set_status(self, sid: str, status: str) -> None:
        self.accounts[sid].status = status
        self.generation += 1


class Clock:
    """Moved by hand; `sleep` moves it too, and runs `on_sleep` first."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000
        self.on_sleep: list[Any] = []

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)
        if self.on_sleep:
            await self.on_sleep.pop(0)()


class MemoryReplays:
    """Idempotency rows as the queue engines keep them."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str, str], Replay] = {}
        self.completions = 0

    @staticmethod
    def _key(row: Replay) -> tuple[str, str, str, str]:
        return row.account, row.method, row.path, row.key

    async def claim_replay(self, row: Replay, now_ms: int) -> Replay | None:
        held = self.rows.get(self._key(row))
        if held is not None and held.expires_ms > now_ms:
            return msgspec.structs.replace(held)
        row.epoch = 0 if held is None else held.epoch + 1
        self.rows[self._key(row)] = msgspec.structs.replace(row)
        return None

    def store(self, row: Replay) -> None:
        held = self.rows.get(self._key(row))
        if held is not None and held.epoch == row.epoch:
            self.rows[self._key(row)] = msgspec.structs.replace(row)

    async def complete_replay(self, row: Replay) -> None:
        self.completions += 1
        self.store(row)

    async def release_replay(self, row: Replay) -> None:
        held = self.rows.get(self._key(row))
        if held is not None and held.epoch == row.epoch and held.state == "running":
            del self.rows[self._key(row)]


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self
        return orjson.loads(self.body)

    @property
    def code(self) -> Any:
        return self.json["code"]


class Harness:
    """An `Api` over fakes, and a client for it."""

    def __init__(self, routes: Iterable[Route], services: Any = None, **options: Any) -> None:
        self.directory = FakeDirectory()
        self.clock = Clock()
        self.replays = MemoryReplays()
        limits: ApiLimits = options.pop("limits", ApiLimits())
        self.api = Api(
            routes,
            services,
            Authenticator(self.directory, PEPPER, self.clock.monotonic, limits),
            Idempotency(self.replays, self.clock.now_ms, limits, self.clock.sleep),
            limits=limits,
            **options,
        )

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.call("GET", path, **options)

    async def post(self, path: str, fields: Any = (), **options: Any) -> Reply:
        return await self.call("POST", path, body=urlencode(fields, doseq=True).encode(), **options)

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | list[bytes] = b"",
        auth: tuple[str, str] | None = CREDENTIALS,
        headers: Mapping[str, str | bytes] | None = None,
        host: str = "localhost:8080",
        scheme: str = "http",
        client: str = "192.0.2.1",
    ) -> Reply:
        """One exchange; a list of body pieces is sent as that many events."""
        path, _, query = path.partition("?")
        pieces = [body] if isinstance(body, bytes) else list(body)
        sent: dict[bytes, bytes] = {b"host": host.encode("latin-1")}
        if method in ("POST", "PUT"):
            sent[b"content-type"] = b"application/x-www-form-urlencoded"
            sent[b"content-length"] = str(sum(map(len, pieces))).encode()
        if auth is not None:
            sent[b"authorization"] = b"Basic " + base64.b64encode(":".join(auth).encode())
        for name, value in (headers or {}).items():
            sent[name.lower().encode()] = value.encode("latin-1") if isinstance(value, str) else value
        scope = {
            "type": "http",
            "method": method,
            "scheme": scheme,
            "path": path,
            "raw_path": path.encode("utf-8"),
            "query_string": query.encode("utf-8"),
            "client": (client, 1234),
            "headers": list(sent.items()),
        }
        events = [
            {"type": "http.request", "body": piece, "more_body": at < len(pieces) - 1}
            for at, piece in enumerate(pieces)
        ]
        return await exchange(self.api, scope, events)


async def exchange(api: Api, scope: dict[str, Any], events: list[dict[str, Any]]) -> Reply:
    """Run one HTTP exchange; after the given events the client is gone."""
    out: list[Any] = []

    async def receive() -> Any:
        return events.pop(0) if events else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        out.append(message)

    await api(scope, receive, send)
    if not out:
        return Reply(0, {}, b"")
    start, *pieces = out
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
    assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    return Reply(start["status"], headers, b"".join(piece["body"] for piece in pieces))
