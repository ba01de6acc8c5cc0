"""Calls behind the API: the real flights, reader and recordings, with a phone line that is only written down."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from tests.api.conftest import World
from trunkline.api.idempotency import Idempotency
from trunkline.inflight.store import Inflight
from trunkline.media import protocol
from trunkline.messaging.privacy import Privacy
from trunkline.model.call import Call, Direction, MediaQuality, Status, TimelineEntry
from trunkline.model.numbers import Alert
from trunkline.model.recording import Recording
from trunkline.model.sid import CALL, NOTIFICATION, RECORDING, new_sid
from trunkline.postflight.archive import SegmentedArchive
from trunkline.postflight.landing import document
from trunkline.storage.blobs import FolderBlobs
from trunkline.storage.engines.sqlite.archive import SqliteRecent
from trunkline.voice.calls import Calls
from trunkline.voice.flights import CallFlight, CallFlights
from trunkline.voice.reader import CallReader
from trunkline.voice.recordings import Recordings

OWN = "+12025550142"
THEIRS = "+14155550123"


class Line:
    """Instead of `voice.outbound`: every call waits."""

    def __init__(self) -> None:
        self.waiting: list[CallFlight] = []

    def check_route(self, call: Call) -> None: ...

    def emergency(self, text: str, caller: str) -> str:
        return ""

    def reserve(self, account: str, to: str = "") -> bool:
        return False

    def enqueue(self, flight: CallFlight, written: Awaitable[Any]) -> None:
        self.waiting.append(flight)

    def cancel(self, flight: CallFlight) -> bool:
        return False


class LiveLeg:
    """Instead of `voice.live.LiveCall`: remembers what it was told."""

    def __init__(self, flight: CallFlight, world: "CallWorld") -> None:
        self.flight = flight
        self.told: list[Any] = []
        self.media: list[protocol.Command] = []
        self.ended: Awaitable[bool] | None = None
        self._world = world

    @property
    def record(self) -> Call:
        return self.flight.call

    @property
    def is_up(self) -> bool:
        return self.flight.status is Status.IN_PROGRESS

    def redirect(self, *, url: str = "", method: str = "POST", twiml: str = "") -> bool:
        self.told.append((method, url or twiml))
        return True

    def hangup(self, why: str, *, sip_status: int = 480, end: Status | None = None) -> None:
        self.told.append(why)
        self.ended = self._world.flights.advance(self.flight, Status.COMPLETED)

    def set_time_limit(self, seconds: float) -> None:
        self.told.append(seconds)

    @property
    def audio(self) -> "LiveLeg":
        return self

    def send(self, command: protocol.Command) -> None:
        self.media.append(command)

    def note(self, kind: str, what: str, **details: Any) -> None:
        self.record.timeline.append(TimelineEntry(self._world.world.clock.ms, kind, what, details))


class CallWorld:
    """A world with calls."""

    def __init__(self, world: World, archive: SegmentedArchive, folder: Path) -> None:
        self.world = world
        services = world.services
        services.archive = archive
        services.inflight = Inflight(services.queue, services.clock)
        world.api._idempotency = Idempotency(services.queue, services.clock.now_ms)
        services.privacy = Privacy(services.inflight, archive, services.database, FolderBlobs(folder / "media"))
        self.archive = archive
        self.flights = CallFlights(services.queue, services.clock)
        self.line = Line()
        self.live: dict[str, LiveLeg] = {}
        self.spool = folder / "spool"
        self.recordings = Recordings(
            services.settings, services.database, services.queue, FolderBlobs(folder / "recordings"), self.spool,
            services.clock, lambda: "http://localhost:8080",
        )  # fmt: skip
        self.recordings.find_call = self.live.get
        self.calls = services.calls = Calls(
            services.settings, self.flights, CallReader(services.queue, archive), self.line, self.recordings,
            services.directory, archive, services.database, services.alerts, services.secrets, self.live.get,
        )  # fmt: skip

    def path(self, rest: str = "", account: str = "") -> str:
        return self.world.path(f"Calls{rest}", account)

    async def own_number(self) -> None:
        await self.world.stock(OWN, account_sid=self.world.owner.sid)

    async def place(self, **fields: Any) -> dict[str, Any]:
        """A call made over the API, queued."""
        form = {"To": THEIRS, "From": OWN, "Url": "https://example.com/voice"} | fields
        reply = await self.world.post(self.path(".json"), form)
        assert reply.status == 201, reply.body
        return cast(dict[str, Any], reply.json)

    async def up(self, **fields: Any) -> LiveLeg:
        """A call in progress."""
        now = self.world.clock.ms
        call = Call(
            sid=new_sid(CALL, now), account_sid=self.world.owner.sid, direction=Direction.INBOUND, from_=THEIRS, to=OWN,
            created_ms=now, started_ms=now, answered_ms=now, **fields,
        )  # fmt: skip
        flight, written = self.flights.accept(call, Status.IN_PROGRESS)
        await written
        leg = self.live[call.sid] = LiveLeg(flight, self)
        return leg

    async def landed(self, status: Status = Status.COMPLETED, seconds: int = 61, **fields: Any) -> Call:
        """A call that has ended; with all that it can have."""
        now = self.world.clock.ms
        answered = {"answered_ms": now + 1500} if status is Status.COMPLETED else {}
        values: dict[str, Any] = {
            "sid": new_sid(CALL, now), "account_sid": self.world.owner.sid, "direction": Direction.OUTBOUND_API,
            "from_": OWN, "to": THEIRS, "created_ms": now, "updated_ms": now, "started_ms": now + 1000,
            "ended_ms": now + 1500 + seconds * 1000, "price": "0.01300", "price_unit": "USD",
            "timeline": [TimelineEntry(now + 1000, "sip", "-> INVITE", {"to": "carrier"})],
            "quality": MediaQuality(codec="PCMU", lost=2, mos=4.3),
        }  # fmt: skip
        call = Call(**(values | answered | fields))
        flight, written = self.flights.accept(call, status)
        await written
        stored = await self.flights.queue.get(call.account_sid, call.sid)
        assert stored is not None
        await self.archive.land([document(*stored)])
        await self.flights.erase(flight)
        return call

    async def recording(self, call_sid: str, audio: bytes = b"", **fields: Any) -> Recording:
        """A finished recording."""
        now = self.world.clock.ms
        sid = new_sid(RECORDING, now)
        values: dict[str, Any] = {
            "status": "completed", "source": "OutboundAPI", "duration_ms": 4200, "start_ms": now, "created_ms": now,
            "updated_ms": now, "price": "0.0025", "price_unit": "USD", "audio_key": sid if audio else "",
        }  # fmt: skip
        row = Recording(sid=sid, account_sid=self.world.owner.sid, call_sid=call_sid, **(values | fields))
        if audio:
            await self.recordings.blobs.put(sid, audio)
        await self.world.database.insert(row)
        return row

    async def alert(self, call_sid: str, code: str = "11200") -> Alert:
        now = self.world.clock.ms
        alert = Alert(
            sid=new_sid(NOTIFICATION, now), account_sid=self.world.owner.sid, error_code=code, resource_sid=call_sid,
            alert_text="HTTP 500", request_method="POST", request_url="https://example.com/voice", created_ms=now,
            updated_ms=now, request_variables="a=b", response_body="no", response_headers="c=d",
        )  # fmt: skip
        await self.world.database.insert(alert)
        return alert


@asynccontextmanager
async def call_world(world: World, folder: Path) -> AsyncIterator[CallWorld]:
    archive = SegmentedArchive(SqliteRecent(folder / "archive.db"), folder / "segments", world.services.clock)
    try:
        made = CallWorld(world, archive, folder)
        await made.own_number()
        yield made
        await made.recordings.close()
    finally:
        await archive.close()
