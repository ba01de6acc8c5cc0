"""A node's voice side in memory: a real SIP stack joined to a phone's, a media process that is a list, a web app.

async with world(tmp_path) as here:
    here.app.answers("/voice", "<Response><Say>hi</Say></Response>")
    call = await here.phone.dials()
    await here.media.played()
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

from tests.webhooks.servers import Request as WebRequest
from tests.webhooks.servers import answer, running
from trunkline.media import protocol
from trunkline.media.prompts import Prepared, PromptFailed
from trunkline.model.account import Account
from trunkline.model.clock import SystemClock
from trunkline.model.numbers import PhoneNumber
from trunkline.settings import Settings, Trunk, Voice, Webhooks
from trunkline.sip import offer_answer
from trunkline.sip.core import CallListener, DialogListener, StackConfig
from trunkline.sip.flow import Flow
from trunkline.sip.offer_answer import Local
from trunkline.sip.stack import Stack
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.storage.memory import InProcess
from trunkline.voice.flights import CallFlight, CallFlights
from trunkline.voice.inbound import Inbound
from trunkline.voice.live import LiveCall
from trunkline.voice.reader import CallReader, StoredCall
from trunkline.voice.service import VoiceServices
from trunkline.voice.sources import Sources
from trunkline.webhooks.fetch import Fetcher
from trunkline.webhooks.guard import LOOPBACK, PRIVATE, Guard
from trunkline.webhooks.http import Client

ACCOUNT = "AC" + "a" * 32
NUMBER = "+14155550100"
CALLER = "+14155550199"
PATIENCE_S = 60.0
KEYS = re.compile("[0-9A-D*#]")


async def until(true: Callable[[], Any], what: str = "it") -> Any:
    """Wait until something holds."""
    for _ in range(int(PATIENCE_S / 0.002)):
        found = true()
        if found:
            return found
        await asyncio.sleep(0.002)
    raise AssertionError(f"{what} did not happen")


class App:
    """The customer's web app: documents by path, and what was asked."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.raw: list[WebRequest] = []
        self.url = ""
        self.headers: list[str] = []
        """Sent with every answer."""
        self.moved: dict[str, str] = {}
        """Paths that redirect to others."""
        self.hold = asyncio.Event()
        """Cleared: the answer of /slow waits."""
        self.hold.set()

    def answers(
        self, path: str, body: str | bytes | list[Any], content_type: str = "text/xml", status: int = 200
    ) -> None:
        """What a path answers; a list: one after the other, the last for ever. A verb without <Response> gets one."""
        bodies = body if isinstance(body, list) else [body]
        self.documents[path] = [(_document(one, content_type), content_type, status) for one in bodies]

    async def __call__(self, request: WebRequest) -> bytes:
        path, _, query = request.path.partition("?")
        params = dict(parse_qsl(f"{query}&{request.body.decode()}", keep_blank_values=True))
        self.requests.append((request.method, path, params))
        self.raw.append(request)
        if path == "/slow":
            await self.hold.wait()
        if path in self.moved:
            return answer(b"", 302, f"Location: {self.moved[path]}")
        found = self.documents.get(path)
        if not found:
            return answer(b"none", 404)
        body, content_type, status = found.pop(0) if len(found) > 1 else found[0]
        return answer(body, status, f"Content-Type: {content_type}", *self.headers)

    def asked(self, path: str) -> list[dict[str, str]]:
        """The parameters of each request to a path."""
        return [params for _, asked, params in self.requests if asked == path]


def _document(body: str | bytes, content_type: str) -> bytes:
    if isinstance(body, str) and content_type == "text/xml" and not body.startswith("<Response"):
        body = f"<Response>{body}</Response>"
    return body.encode() if isinstance(body, str) else body


class FakeMedia:
    """The media process: keeps the commands, answers as the protocol says. Prompts end at once unless `holds`."""

    def __init__(self, slots: int = 100) -> None:
        self.available = True
        self.epoch = 1
        self.free = [(slot, 20_000 + 2 * slot) for slot in range(slots, 0, -1)]
        self.commands: list[protocol.Command] = []
        self.watchers: dict[str, Callable[[Any], None]] = {}
        self.playing: dict[str, protocol.Play] = {}
        self.holds = False
        """Whether prompts last until the test ends them."""
        self.numbers = {"packets_received": 50, "lost": 1, "jitter_ms": 2.5, "mos": 4.1}
        self.events = 0

    def take_slot(self) -> tuple[int, int] | None:
        return self.free.pop() if self.free else None

    def give_back(self, slot: int) -> None:
        self.free.append((slot, 20_000 + 2 * slot))

    def watch(self, leg: str, callback: Callable[[Any], None]) -> None:
        self.watchers[leg] = callback

    def unwatch(self, leg: str) -> None:
        self.watchers.pop(leg, None)

    def send(self, command: protocol.Command) -> None:
        self.commands.append(command)
        loop = asyncio.get_running_loop()
        if isinstance(command, protocol.Play):
            self._end(command.leg, "stopped")
            self.playing[command.leg] = command
            if not self.holds and command.loop:
                loop.call_soon(self._end, command.leg, "end", command.play)
        elif isinstance(command, protocol.Stop):
            self._end(command.leg, "stopped")
        elif isinstance(command, protocol.Close):
            self._end(command.leg, "stopped")
            slot = next(c.slot for c in self.commands if isinstance(c, protocol.Open) and c.leg == command.leg)
            self.give_back(slot)
            loop.call_soon(self.tell, command.leg, protocol.Closed(leg=command.leg, numbers=self.numbers))

    def tell(self, leg: str, event: Any) -> None:
        self.events += 1
        watcher = self.watchers.get(leg)
        if watcher is not None:
            watcher(event)

    def _end(self, leg: str, why: str, name: str = "") -> None:
        play = self.playing.get(leg)
        if play is not None and name in ("", play.play):
            del self.playing[leg]
            self.tell(leg, protocol.Played(leg=leg, play=play.play, why=why))

    def end(self, leg: str) -> None:
        """What plays has come to its end."""
        self._end(leg, "end")

    def press(self, leg: str, digits: str) -> None:
        """Keys come in."""
        for digit in digits:
            play = self.playing.get(leg)
            self.tell(leg, protocol.Digit(leg=leg, digit=digit))
            if play is not None and digit in play.barge:
                self._end(leg, "digit")

    def plays(self) -> list[list[str]]:
        """What was played, by command: texts and file names, `~ms` for silence, keys for digits."""
        return [[_shown(item) for item in c.items] for c in self.commands if isinstance(c, protocol.Play)]

    def of(self, kind: type) -> list[Any]:
        return [command for command in self.commands if isinstance(command, kind)]


def _shown(item: protocol.Item) -> str:
    if isinstance(item, protocol.Audio):
        return item.path
    if isinstance(item, protocol.Silence):
        return f"~{item.ms}"
    return item.digits if isinstance(item, protocol.Digits) else "tone"


class FakePrompts:
    """Texts are their own prompts; URLs that contain `missing` fail; `voice="ghost"` warns."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    def cached_speech(self, text: str, *, voice: str = "", language: str = "") -> Prepared | None:
        if text.startswith("slow"):
            return None
        self.asked.append((text, voice, language))
        return Prepared(text, 1000, "no such voice: ghost" if voice == "ghost" else "")

    async def speech(self, text: str, *, voice: str = "", language: str = "") -> Prepared:
        await asyncio.sleep(0.01)
        if "unspeakable" in text:
            raise PromptFailed(13520, "<Say> cannot be spoken")
        return Prepared(text, 1000)

    async def given(self, body: bytes, content_type: str) -> Prepared:
        await asyncio.sleep(0)
        return Prepared(f"{content_type}: {len(body)}", 1000)

    def cached_audio(self, url: str, *, scope: str = "") -> Prepared | None:
        return None

    async def audio(self, url: str, *, scope: str = "") -> Prepared:
        await asyncio.sleep(0)
        if "missing" in url:
            raise PromptFailed(11200, "HTTP status 404")
        if "text" in url:
            raise PromptFailed(12300, "content type 'text/html' is no audio")
        return Prepared(url, 1000)


class PhoneCall(CallListener, DialogListener):
    """The caller's side of one call."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone
        self.progress: list[int] = []
        self.dialog: Any = None
        self.answer = b""
        self.failed = 0
        self.failure: Any = None
        self.bye: Any = None
        self.over = asyncio.Event()
        self.invite: Any = None

    def on_progress(self, response: Any, sdp: bytes) -> None:
        self.progress.append(response.status)

    def on_answer(self, dialog: Any, response: Any, sdp: bytes) -> None:
        self.dialog, self.answer = dialog, sdp
        dialog.listener = self
        if not self.phone.offers:
            dialog.ack(offer_answer.answer(sdp, self.phone.local).sdp)

    def on_failure(self, status: int, reason: str, response: Any) -> None:
        self.failed, self.failure = status, response
        self.over.set()

    def on_bye(self, request: Any) -> None:
        self.bye = request
        self.over.set()

    def on_ended(self, reason: str) -> None:
        self.over.set()

    async def answered(self) -> None:
        await until(lambda: self.dialog or self.failed, "an answer")
        assert self.dialog is not None, f"the call failed with {self.failed}"

    async def ended(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.over.wait()

    def hangs_up(self, *headers: tuple[str, str]) -> None:
        self.dialog.bye(headers=headers)


class Phone:
    """The peer: its own stack, and one address."""

    def __init__(self, here: World, address: str = "127.0.0.9") -> None:
        self.here = here
        self.address = address
        self.offers = True
        self.local = Local(address=address, port=40_000, session_id=1, version=1)
        self.stack = Stack(
            StackConfig(), lambda data, flow: here.carry(data, self), asyncio.get_running_loop().time,
            lambda: secrets.token_hex(8), SimpleNamespace(permitted=lambda *_: True),
        )  # fmt: skip

    @property
    def flow(self) -> Flow:
        return Flow("UDP", ("127.0.0.1", 5060), (self.address, 5060))

    def dials(self, number: str = NUMBER, *, headers: Any = (), **options: Any) -> PhoneCall:
        """Place a call; it goes on by itself."""
        call = PhoneCall(self)
        sdp = options.pop("sdp", None)
        if sdp is None:
            sdp = offer_answer.offer(self.local) if self.offers else b""
        call.invite = self.stack.invite(
            f"sip:{number}@127.0.0.1", from_=options.pop("from_", f"<sip:{CALLER}@{self.address}>"), target=self.flow,
            sdp=sdp, headers=headers, listener=call, **options,
        )  # fmt: skip
        return call


class FakeAlerts:
    def __init__(self) -> None:
        self.raised: list[tuple[int, str]] = []

    def raise_(self, account_sid: str, error_code: int, *, text: str = "", **_: Any) -> str:
        self.raised.append((error_code, text))
        return "NO" + "0" * 32

    @property
    def codes(self) -> list[int]:
        return [code for code, _ in self.raised]


class World:
    """See the module."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.app = App()
        self.alerts = FakeAlerts()
        self.media = FakeMedia()
        self.prompts = FakePrompts()
        self.memory = InProcess(SystemClock())
        self.queue = SqliteQueue(folder / "queue.db")
        self.client = Client()
        clock = SystemClock()
        self.account = Account(
            sid=ACCOUNT, account_sid=ACCOUNT, friendly_name="Test", auth_token="secret", status="active",
            owner_account_sid=ACCOUNT,
        )  # fmt: skip
        self.number = PhoneNumber(sid="PN" + "1" * 32, account_sid=ACCOUNT, phone_number=NUMBER)
        self.applications: dict[str, Any] = {}
        directory: Any = SimpleNamespace(
            number=lambda e164: self.number if e164 == NUMBER else None,
            account=lambda sid: self.account if sid == ACCOUNT else None,
            application=self.applications.get,
        )
        self.flights = CallFlights(self.queue, clock)
        self.accepted: list[CallFlight] = []
        """Every call that there was, oldest first."""
        accept = self.flights.accept

        def remembered(*args: Any, **kwargs: Any) -> Any:
            flight, written = accept(*args, **kwargs)
            self.accepted.append(flight)
            return flight, written

        self.flights.accept = remembered  # type: ignore[method-assign]
        self.reader = CallReader(self.queue, SimpleNamespace(get=_nothing))  # type: ignore[arg-type]
        self.services = VoiceServices(
            settings=settings, clock=clock, directory=directory, alerts=self.alerts,  # type: ignore[arg-type]
            fetcher=Fetcher(self.client, Guard((*PRIVATE, *LOOPBACK)), clock, settings.webhooks),
            flights=self.flights, memory=self.memory, media=self.media, prompts=self.prompts,
        )  # fmt: skip
        self.sources = Sources(settings.trunks, "test", b"key", settings.sip.source_requests_per_second, clock)
        self.inbound = Inbound(self.services, self.sources)
        self.stack = Stack(
            StackConfig(), self.answer, asyncio.get_running_loop().time, lambda: secrets.token_hex(8), self.inbound
        )
        self.stack.trace = self.services.trace
        self.phones: dict[str, Phone] = {}
        self.phone = self.another("127.0.0.9")

    def another(self, address: str) -> Phone:
        """One more peer."""
        self.phones[address] = Phone(self, address)
        return self.phones[address]

    def carry(self, data: bytes, phone: Phone) -> bool:
        flow = Flow("UDP", (phone.address, 5060), ("127.0.0.1", 5060))
        asyncio.get_running_loop().call_soon(self.stack.receive, data, flow)
        return True

    def answer(self, data: bytes, flow: Flow) -> bool:
        phone = self.phones[flow.remote[0]]
        asyncio.get_running_loop().call_soon(phone.stack.receive, data, phone.flow)
        return True

    @property
    def call(self) -> LiveCall:
        """The one live call."""
        (call,) = self.services.live.values()
        return call

    async def up(self, document: str | None = None) -> tuple[PhoneCall, LiveCall]:
        """A call that is answered by `document`."""
        if document is not None:
            self.app.answers("/voice", document)
        caller = self.phone.dials()
        await caller.answered()
        return caller, self.call

    async def whole(self, document: str) -> StoredCall:
        """Run a document to its end; the call as it is stored then."""
        self.app.answers("/voice", document)
        caller = self.phone.dials()
        await caller.ended()
        return await self.landed()

    async def landed(self, index: int = 0) -> StoredCall:
        """A call's record once it has ended."""
        flight = self.accepted[index]
        await until(lambda: flight.ended and not flight.pending, "the end of the call")
        found = await self.reader.get(ACCOUNT, flight.call.sid)
        assert found is not None
        return found


async def _nothing(*_: Any) -> None:
    return None


TRUNK = Trunk(name="carrier", addresses=("127.0.0.9",), refers=True)


@asynccontextmanager
async def world(
    folder: Path, *, trunks: tuple[Trunk, ...] = (TRUNK,), voice: Voice | None = None, **settings: Any
) -> AsyncIterator[World]:
    """A world with its web app; stopped at the end."""
    chosen = Settings(
        trunks=trunks, voice=voice or Voice(), webhooks=Webhooks(total_timeout_s=3, read_timeout_s=3), **settings
    )
    here = World(folder, chosen)
    async with running(here.app) as server:  # type: ignore[arg-type]
        here.app.url = f"http://127.0.0.1:{server.port}"
        here.number.voice_url = f"{here.app.url}/voice"
        try:
            yield here
        finally:
            for call in list(here.services.live.values()):
                session = call.session
                call.hangup("test")
                if session is not None:
                    await until(lambda session=session: session.done, "the end of a session")  # type: ignore[misc]
            await until(lambda: not here.services.live, "the end of the calls")
            await until(lambda: all(not flight.pending for flight in here.flights), "the writes")
            await here.client.close()
            await here.queue.close()
