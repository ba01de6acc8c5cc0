"""What each side outside of the platform has seen: customers, the carrier, the customers' web server.

Verdicts are drawn from these alone, never from the platform's own database.
"""

import http.client
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from lab import outside, probe
from lab.node import CALLED, SAID
from lab.plan import SMSC_CONTROL_PORT, WEBHOOK_PORT

FINAL = frozenset({"delivered", "undelivered", "failed"})
CALL_FINAL = frozenset({"completed", "busy", "no-answer", "failed", "canceled"})
ASK_S = 10.0


class Request(msgspec.Struct):
    """One request of a customer; times by the monotonic clock."""

    kind: str
    """`sdk`, `raw` or `keyed`."""
    key: str
    began: float
    ended: float = 0.0
    outcome: str = "open"
    """`201`, another status, or the name of an exception."""
    sid: str = ""
    tries: int = 0


class Told(msgspec.Struct, frozen=True):
    """One callback."""

    at: float
    status: str
    sid: str


class Webhooks:
    """The customers' web server: answers TwiML, keeps what callbacks tell."""

    def __init__(self) -> None:
        self.messages: dict[str, list[Told]] = {}
        """Key of the message -> its callbacks."""
        self.calls: dict[str, list[Told]] = {}
        """CallSid -> its callbacks."""
        self.documents: dict[str, str] = {}
        """Number called -> TwiML."""
        self.prompt = b""
        self.said: dict[str, float] = {}
        """CallSid of a call that asked what to hear new -> when it did."""
        self.went_on: dict[str, float] = {}
        """The same -> when it had heard that, or its platform had given it up, and asked for more."""
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{outside.CUSTOMER}:{WEBHOOK_PORT}"

    async def __aenter__(self) -> "Webhooks":
        app = web.Application()
        app.router.add_post("/status", self._message)
        app.router.add_post("/calls", self._call)
        app.router.add_route("*", "/voice", self._voice)
        app.router.add_route("*", "/more", self._more)
        app.router.add_get("/prompt.wav", self._prompt)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, outside.WEBHOOKS, WEBHOOK_PORT).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _message(self, request: web.Request) -> web.Response:
        form = parse_qs((await request.read()).decode())
        told = Told(time.monotonic(), form["MessageStatus"][0], form["MessageSid"][0])
        self.messages.setdefault(request.query.get("k", ""), []).append(told)
        return web.Response()

    async def _call(self, request: web.Request) -> web.Response:
        form = parse_qs((await request.read()).decode())
        told = Told(time.monotonic(), form["CallStatus"][0], form["CallSid"][0])
        self.calls.setdefault(told.sid, []).append(told)
        return web.Response()

    async def _voice(self, request: web.Request) -> web.Response:
        form = parse_qs((await request.read()).decode())
        called = form.get("To", [""])[0]
        document = self.documents.get(called, "<Response><Hangup/></Response>")
        if called == SAID:
            number = len(self.said)
            self.said[form["CallSid"][0]] = time.monotonic()
            document = f"<Response><Say>Hello.</Say><Say>Number {number}.</Say><Redirect>/more</Redirect></Response>"
        return web.Response(text=document, content_type="text/xml")

    async def _more(self, request: web.Request) -> web.Response:
        form = parse_qs((await request.read()).decode())
        self.went_on.setdefault(form["CallSid"][0], time.monotonic())
        return web.Response(text=self.documents[CALLED["ivr"]], content_type="text/xml")

    async def _prompt(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self.prompt, content_type="audio/wav", headers={"Cache-Control": "max-age=3600", "ETag": '"1"'}
        )


def carrier() -> Mapping[str, int]:
    """Key -> how often the SMSC took a message with it. Blocks. Raises OSError."""
    for _ in range(3):
        try:
            status, answer = probe.ask(outside.SMSC, SMSC_CONTROL_PORT, "/times", timeout_s=ASK_S)
        except http.client.HTTPException:
            continue
        if status == 200:
            return {key: int(entry[1]) for key, entry in answer.items()}
    raise ConnectionError("the SMSC's ledger cannot be read")


def carrier_stats() -> dict[str, Any]:
    """The SMSC's counters. Blocks. Raises OSError."""
    return dict(probe.ask(outside.SMSC, SMSC_CONTROL_PORT, "/stats", timeout_s=ASK_S)[1])
