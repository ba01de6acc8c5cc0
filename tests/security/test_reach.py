"""Where a customer's URLs may lead the server, and how far two of his numbers may carry each other."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.e2e.conftest import LOOPBACK, Tenant, make_tenant
from tests.e2e.server import Server
from tests.security.conftest import Target
from tests.security.test_isolation import call, made
from trunkline.messaging.reply_limit import MAX_REPLIES
from trunkline.model.clock import Clock
from trunkline.storage.database import Database

INSIDE = "/inside"
"""A path of the operator's own network: no request for it may ever come."""
SPELLINGS = (
    "127.0.0.1",
    "2130706433",
    "0x7f.1",
    "127.1",
    "[::ffff:127.0.0.1]",
    "[::1]",
    "0",
    "169.254.169.254",
    "127.0.0.1.",
)


class Site(ThreadingHTTPServer):
    """Customers' web server, reached as `localhost`, which the settings allow; as 127.0.0.1 it is the inside."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.seen: list[str] = []
        self.pages: dict[str, tuple[int, dict[str, str], str]] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def base(self) -> str:
        """Where the customer says it is."""
        return f"http://localhost:{self.server_port}"


class Page(BaseHTTPRequestHandler):
    """Answers with the site's pages."""

    server: Site

    def answer(self) -> None:
        """Any request."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append(self.path)
        status, headers, text = self.server.pages.get(self.path.partition("?")[0], (200, {}, "<Response/>"))
        self.send_response(status)
        for name, value in {"Content-Type": "text/xml", "Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The web server."""
    site = Site()
    yield site
    site.shutdown()
    site.server_close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server that lets webhooks go to `localhost` alone, as production would to a host it is told of."""
    security = {"webhook_private_networks": False, "webhook_allow": ["localhost"]}
    webhooks = {"retry_first_s": 0.1, "retry_longest_s": 0.1, "status_tries": 2}
    server = Server(tmp_path_factory.mktemp("guarded"), {**LOOPBACK, "security": security, "webhooks": webhooks})

    async def work(database: Database, clock: Clock) -> tuple[Tenant, Tenant]:
        return await make_tenant(database, clock, 0), await make_tenant(database, clock, 1)

    tenants = server.seed(work)
    server.start()
    yield Target(server, tenants)
    server.close()


def point(target: Target, index: int, url: str, who: int = 0) -> None:
    """Where the messages to one of a tenant's numbers are announced."""
    account, numbers = target.tenants[who]
    path = f"/2010-04-01/Accounts/{account.sid}/IncomingPhoneNumbers/{numbers[index].sid}.json"
    assert call(target, account, "POST", path, {"SmsUrl": url}).status == 200


def messages(target: Target, who: int = 0) -> list[dict[str, Any]]:
    """The tenant's newest messages."""
    account = target.tenants[who].account
    reply = call(target, account, "GET", f"/2010-04-01/Accounts/{account.sid}/Messages.json?PageSize=1000")
    found: list[dict[str, Any]] = json.loads(reply.body)["messages"]
    return found


def codes(target: Target, who: int = 0) -> set[str]:
    """Codes of the tenant's alerts."""
    reply = call(target, target.tenants[who].account, "GET", "/monitor/v1/Alerts?PageSize=1000")
    return {alert["error_code"] for alert in json.loads(reply.body)["alerts"]}


def send(target: Target, who: int = 0, **form: str) -> str:
    """One message from the first number to the second, unless the form says otherwise."""
    account, numbers = target.tenants[who]
    form = {"From": numbers[0].phone_number, "To": numbers[1].phone_number, "Body": "x", **form}
    return str(made(call(target, account, "POST", f"/2010-04-01/Accounts/{account.sid}/Messages.json", form))["sid"])


def eventually(condition: Any, what: str) -> None:
    """Wait for it."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def test_no_url_leads_inside(guarded: Target, site: Site) -> None:
    port = site.server_port
    for number, host in enumerate(SPELLINGS):
        inside = f"http://{host}:{port}{INSIDE}"
        site.pages[f"/jump{number}"] = (302, {"Location": inside}, "")
        site.pages[f"/keep{number}"] = (307, {"Location": inside}, "")
        twiml = f"<Response><Message statusCallback='{inside}' action='{inside}'><Body>r</Body></Message></Response>"
        site.pages[f"/twiml{number}"] = (200, {}, twiml)
        site.pages[f"/redirect{number}"] = (200, {}, f"<Response><Redirect>{inside}</Redirect></Response>")
        media = f"<Response><Message><Body>m</Body><Media>{inside}</Media></Message></Response>"
        site.pages[f"/media{number}"] = (200, {}, media)
        send(guarded, To="+12025550177", StatusCallback=inside)
        send(guarded, To="+12025550177", StatusCallback=f"{site.base}/jump{number}")
        send(guarded, To="+12025550177", StatusCallback=f"{site.base}/keep{number}")
        send(guarded, To="+12025550177", MediaUrl=inside)
        send(guarded, To="+12025550177", MediaUrl=f"{site.base}/jump{number}")
        for url in (inside, *(f"{site.base}/{kind}{number}" for kind in ("jump", "twiml", "redirect", "media"))):
            point(guarded, 1, url)
            before = len(site.seen)
            sid = send(guarded)
            if url is not inside:
                eventually(lambda: len(site.seen) > before, f"{url} was not asked for")  # noqa: B023
            assert sid
    point(guarded, 1, "")
    eventually(lambda: all(m["status"] not in ("queued", "accepted", "sending") for m in messages(guarded)), "stuck")
    time.sleep(1.0)  # retries of callbacks, which would come within 0.2 s
    assert any(path.startswith("/redirect") for path in site.seen)
    assert not [path for path in site.seen if path.startswith(INSIDE)]
    assert "11210" in codes(guarded)


def test_two_numbers_do_not_answer_each_other_for_ever(guarded: Target, site: Site) -> None:
    site.pages["/again"] = (200, {}, "<Response><Message>again</Message></Response>")
    for index in (0, 1):
        point(guarded, index, f"{site.base}/again", 1)
    before = len(messages(guarded, 1))
    send(guarded, 1, Body="begin")
    eventually(lambda: "14107" in codes(guarded, 1), "the loop is not noticed")
    time.sleep(1.0)  # a loop takes 0.05 s a turn
    count = len(messages(guarded, 1)) - before
    assert 2 * MAX_REPLIES <= count <= 4 * MAX_REPLIES + 4
    for index in (0, 1):
        point(guarded, index, "", 1)
