"""What the API framework itself costs a POST Messages: the ASGI application called in process, one core.

    python bench/api_overhead.py [REQUESTS]

Counts CPU time of location, matching, login, form parsing, JSON answer and the two ASGI sends; the handler does
nothing else. Beside it stand the parts, each alone.
"""

import asyncio
import base64
import sys
import time
import timeit
from collections.abc import Callable
from typing import Any

from trunkline.api import respond
from trunkline.api.asgi import Api
from trunkline.api.auth import Authenticator
from trunkline.api.form import parse_urlencoded
from trunkline.api.idempotency import Idempotency
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.model import phone
from trunkline.model.account import Account, ApiKey
from trunkline.storage.queue import Replay

SID = "AC" + "0" * 32
TOKEN = "1" * 32
BODY = (
    b"To=%2B15551234567&From=%2B15550000001&Body=Hello+from+the+benchmark%2C+message+number+12345"
    b"&StatusCallback=http%3A%2F%2F127.0.0.1%3A9000%2Fcallback&ProvideFeedback=false"
)


class OneAccount:
    """A directory of one."""

    generation = 1

    def __init__(self) -> None:
        self._account = Account(sid=SID, owner_account_sid=SID, auth_token=TOKEN)

    def account(self, sid: str) -> Account | None:
        return self._account if sid == SID else None

    def test_account(self, test_sid: str) -> Account | None:
        return None

    def api_key(self, sid: str) -> ApiKey | None:
        return None


class NoStore:
    """No request here carries a key."""

    async def claim_replay(self, row: Replay, now_ms: int) -> Replay | None:
        return None

    async def complete_replay(self, row: Replay) -> None:
        return None

    async def release_replay(self, row: Replay) -> None:
        return None


async def create(request: Request, app: Any) -> Response:
    """What a messages handler asks of the framework."""
    content = {
        "sid": "SM" + "2" * 32,
        "account_sid": request.account_sid,
        "to": phone.parse_to(request.required("To")),
        "from": phone.parse_from(request.required("From")).address,
        "body": request.str("Body"),
        "status": "queued",
        "status_callback": request.url("StatusCallback"),
        "num_segments": "1",
        "error_code": None,
        "uri": f"/2010-04-01/Accounts/{request.account_sid}/Messages/SM.json",
    }
    return respond.resource(request.format, content, "Message", 201)


def scope() -> dict[str, Any]:
    path = f"/2010-04-01/Accounts/{SID}/Messages.json"
    return {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "client": ("127.0.0.1", 50000),
        "headers": [
            (b"host", b"127.0.0.1:8080"),
            (b"user-agent", b"twilio-python/9.13.0"),
            (b"accept-encoding", b"gzip, deflate"),
            (b"accept", b"application/json"),
            (b"connection", b"keep-alive"),
            (b"x-twilio-client", b"python-9.13.0"),
            (b"accept-charset", b"utf-8"),
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"content-length", str(len(BODY)).encode()),
            (b"authorization", b"Basic " + base64.b64encode(f"{SID}:{TOKEN}".encode())),
        ],
    }


async def run(api: Api, requests: int) -> float:
    """CPU microseconds per request."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    template = scope()
    began = time.process_time()
    for _ in range(requests):
        await api(dict(template), receive, send)
    spent = time.process_time() - began
    assert statuses == [201] * requests, set(statuses)
    return spent / requests * 1e6


def part(name: str, call: Callable[[], object]) -> None:
    seconds = min(timeit.repeat(call, number=20_000, repeat=3)) / 20_000
    print(f"  {name:<32}{seconds * 1e6:8.2f} us")


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    route = Route("api", "POST", "/2010-04-01/Accounts/{AccountSid}/Messages", create)
    authenticator = Authenticator(OneAccount(), b"pepper", time.monotonic)
    idempotency = Idempotency(NoStore(), lambda: time.time_ns() // 1_000_000)
    api = Api([route], None, authenticator, idempotency)
    try:
        import uvloop

        runner = uvloop.run
    except ImportError:
        runner = asyncio.run
    best = min(runner(run(api, requests)) for _ in range(3))
    print(f"POST Messages through the framework: {best:.1f} us CPU")
    header = dict(scope()["headers"])[b"authorization"]
    part("form of 5 fields", lambda: parse_urlencoded(BODY, 256))
    part("login, remembered", lambda: authenticator.authenticate(header, "127.0.0.1"))
    part("To number", lambda: phone.parse_to("+15551234567"))
    part("country", lambda: phone.country("+15551234567"))


if __name__ == "__main__":
    main()
