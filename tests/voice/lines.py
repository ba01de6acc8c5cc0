"""A node's voice part with the real store, SIP stack and sessions; phones on stacks of their own in the same process,
a media side that only keeps what it is told, and webhooks answered from a dictionary."""

import asyncio
import itertools
import json
import time
from decimal import Decimal
from random import Random

import msgspec
import orjson
import pytest

from trunkline.accounts.alerts import Alerts
from trunkline.accounts.directory import Directory
from trunkline.media import protocol
from trunkline.model.account import Account
from trunkline.model.numbers import Alert, PhoneNumber
from trunkline.model.recording import Recording
from trunkline.model.sid import new_sid
from trunkline.settings import Settings, Trunk
from trunkline.settings.voice import Voice
from trunkline.sip import offer_answer
from trunkline.sip.core import CallListener, DialogListener, InviteListener, StackConfig
from trunkline.sip.flow import Flow
from trunkline.sip.offer_answer import Local
from trunkline.sip.stack import Stack
from trunkline.sip.timers import Timing
from trunkline.storage.blobs import FolderBlobs
from trunkline.storage.engines.sqlite.database import SqliteDatabase
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.storage.memory import InProcess
from trunkline.storage.secrets import Secrets
from trunkline.voice import checkpoints
from trunkline.voice.calls import Calls, NewCall
from trunkline.voice.flights import CallFlights
from trunkline.voice.inbound import Inbound
from trunkline.voice.outbound import Outbound
from trunkline.voice.outgoing import Wires
from trunkline.voice.reader import CallReader
from trunkline.voice.recordings import Recordings
from trunkline.voice.service import VoiceServices
from trunkline.voice.session import Session
from trunkline.voice.sources import Sources
from trunkline.voice.trunks import Trunks
from trunkline.webhooks.attempt import Attempt
from trunkline.webhooks.failures import HostRefused
from trunkline.webhooks.fetch import Answer, Outcome

from ..messaging.world import AC, TOKEN, MemoryArchive, MovableClock, eventually

OURS, THEM, OTHER = "+12025550100", "+14155550199", "+14155550177"
NODE = ("127.0.0.1", 5060)
CARRIER, SECOND = ("127.0.0.2", 5060), ("127.0.0.3", 5060)
TIMING = Timing(t1=0.04, t2=0.16, t4=0.1)
"""Requests are given up after 64 T1, 2.5 s."""
APP = "http://app.example/"
TRUNKS = (
    Trunk(
        name="carrier", gateways=("sip:127.0.0.2:5060",), addresses=("127.0.0.2",), price=Decimal("0.013"),
        inbound_price=Decimal("0.0085"), cost=Decimal("0.004"),
    ),
)  # fmt: skip


MOST_STEP_S = 0.02
"""Time that may pass at once for SIP's timers: a process that stood still has not waited for anything."""


class Net:
    """SIP messages between stacks, in order, without loss."""

    def __init__(self):
        self.now = self._looked = time.monotonic()
        self.stacks = {}
        self.names = itertools.count()
        self._ticking = None

    def join(self, address, core, **config):
        loop = asyncio.get_running_loop()

        def send(data, flow):
            loop.call_soon(self._deliver, data, flow)
            return True

        number = next(self.names)
        tokens = (f"{number:02x}{count:014x}" for count in itertools.count(1))
        values = {"host": address[0], "port": address[1], "timing": TIMING} | config
        stack = Stack(StackConfig(**values), send, lambda: self.now, lambda: next(tokens), core)
        self.stacks[address] = stack
        if self._ticking is None:
            self._ticking = loop.create_task(self._tick())
        return stack

    def _deliver(self, data, flow):
        stack = self.stacks.get(flow.remote)
        if stack is not None:
            stack.receive(data, Flow("UDP", flow.local, flow.remote))

    async def _tick(self):
        while True:
            looked, self._looked = self._looked, time.monotonic()
            self.now += min(self._looked - looked, MOST_STEP_S)
            for stack in list(self.stacks.values()):
                stack.tick()
            await asyncio.sleep(0.004)

    def close(self):
        if self._ticking is not None:
            self._ticking.cancel()


class Phone(InviteListener, CallListener, DialogListener):
    """A far end: a carrier with a phone behind it. `rings` is told of INVITEs; by default it rings and picks up."""

    def __init__(self, net, address, name="phone"):
        self.stack = net.join(address, self)
        self.address = address
        self.invites, self.dialogs, self.byes, self.cancels = [], [], [], []
        self.failure = None
        self.progress = []
        self.plan = lambda invite: self.picks_up(invite)
        self.local = Local(address=address[0], port=30_000, session_id=7, version=1)

    # as the core of its stack

    def permitted(self, request, flow):
        return True

    def on_request(self, request, flow):
        return None

    def on_invite(self, invite):
        self.invites.append(invite)
        invite.listener = self
        self.plan(invite)

    def picks_up(self, invite=None, ring=True, headers=()):
        invite = invite or self.invites[-1]
        if ring:
            invite.ring(180)
        dialog = invite.accept(offer_answer.answer(invite.offer, self.local).sdp, headers=headers)
        dialog.listener = self
        self.dialogs.append(dialog)

    def rings(self, invite):
        invite.ring(180)

    def refuses(self, status, ring=False, headers=()):
        def plan(invite):
            if ring:
                invite.ring(180)
            invite.reject(status, headers=headers)

        self.plan = plan

    def dials(self, number, caller=THEM, headers=()):
        """Call the node."""
        offer = offer_answer.offer(self.local)
        return self.stack.invite(
            f"sip:{number}@127.0.0.1", from_=f"<sip:{caller}@127.0.0.2>", target=("UDP", *NODE), sdp=offer,
            headers=headers, listener=self,
        )  # fmt: skip

    def hangs_up(self):
        self.dialogs.pop().bye()

    # as listener

    def on_cancel(self, reason):
        self.cancels.append(reason)

    def on_bye(self, request):
        self.byes.append(request)

    def on_progress(self, response, sdp):
        self.progress.append(response.status)

    def on_answer(self, dialog, response, sdp):
        dialog.listener = self
        self.dialogs.append(dialog)

    def on_failure(self, status, reason, response):
        self.failure = status


class Media:
    """The media side: keeps commands; plays that end do so at once, recordings when they are stopped."""

    available = True
    epoch = 1

    def __init__(self, folder):
        self.folder = folder
        self.sent, self.watchers, self.recording, self.playing = [], {}, {}, {}
        self.slots = itertools.count(1)
        self.endless = (protocol.Tone,)
        self.recorded_ms = 1500
        self.voiced_ms = 900

    def take_slot(self):
        slot = next(self.slots)
        return slot, 20_000 + 2 * slot

    def give_back(self, slot):
        self.sent.append(("give-back", slot))

    def watch(self, leg, callback):
        self.watchers[leg] = callback

    def unwatch(self, leg):
        self.watchers.pop(leg, None)

    def tell(self, event):
        callback = self.watchers.get(event.leg)
        if callback is not None:
            callback(event)

    def send(self, command):
        self.sent.append(command)
        asyncio.get_running_loop().call_soon(self._do, command)

    def _do(self, command):
        if isinstance(command, protocol.Play):
            endless = not command.loop or any(isinstance(item, self.endless) for item in command.items)
            if not endless:
                self.tell(protocol.Played(leg=command.leg, play=command.play))
        elif isinstance(command, protocol.Record):
            self.recording[command.recording] = command
        elif isinstance(command, protocol.StopRecord):
            self.recorded(command.recording)
        elif isinstance(command, protocol.Close):
            for name, record in list(self.recording.items()):
                if record.leg == command.leg:
                    self.recorded(name, "closed")
            self.tell(protocol.Closed(leg=command.leg, numbers={"packets_received": 50, "mos": 4.4}))

    def recorded(self, name, why="stopped", digit="", ms=None):
        """Finish a recording."""
        record = self.recording.pop(name, None)
        if record is None:
            return
        ms = self.recorded_ms if ms is None else ms
        file = self.folder / f"{name}.wav"
        if ms:
            file.write_bytes(b"RIFF" + name.encode())
        self.tell(
            protocol.Recorded(
                recording=name, leg=record.leg, why=why, digit=digit, duration_ms=ms, file=str(file) if ms else "",
                voiced_ms=self.voiced_ms, peak=1000,
            )
        )  # fmt: skip

    def of(self, kind, leg=None):
        return [one for one in self.sent if isinstance(one, kind) and leg in (None, getattr(one, "leg", None))]


class Web:
    """Webhooks: TwiML by URL; every request is kept as (url, method, parameters)."""

    def __init__(self):
        self.pages, self.asked = {}, []

    async def fetch(self, request):
        params = dict(request.params)
        self.asked.append((request.url, request.method, params))
        attempt = Attempt(request.url, request.method, 0)
        page = self.pages.get(request.url)
        if callable(page):
            page = page(params)
        if page is None:
            attempt.error_code, attempt.error = 11200, "not found"
            return Outcome([attempt], None, 11200, "not found")
        attempt.status = 200
        body = page if page.startswith("<?xml") else f"<Response>{page}</Response>"
        return Outcome([attempt], Answer(200, "text/xml", body.encode(), request.url))

    def params(self, url):
        """Parameters of the requests for a URL."""
        return [params for asked, _, params in self.asked if asked == url]


class NoPrompts:
    """Every text is a file of silence that is ready."""

    def __init__(self, folder):
        self.path, self.ms, self.warning = folder / "said.pcm", 500, None

    def cached_speech(self, text, **details):
        return self

    def cached_audio(self, url, **details):
        return self


class Lines:
    """See the module."""

    def __init__(self, folder, clock=None, trunks=TRUNKS, *, beside=None, address=NODE, **voice):
        """`beside`: another node, with which it shares the network and the stores."""
        self.folder = folder
        self.clock = clock or MovableClock()
        self.voice = voice
        self.trunk_settings = trunks
        self.beside, self.address = beside, address
        self.archive = MemoryArchive() if beside is None else beside.archive
        self.memory = InProcess(self.clock) if beside is None else beside.memory
        self.net = None if beside is None else beside.net

    async def start(self, adopted=(), before=None):
        """`before`: awaited before what is not adopted is ended; gives what is."""
        folder, clock = self.folder, self.clock
        values = {"calls_per_second": 0, "trunk_calls_per_second": 0, "busy_on_decline": True} | self.voice
        self.settings = Settings(voice=Voice(**values), trunks=self.trunk_settings)
        self.secrets = Secrets([b"k" * 32])
        if self.beside is None:
            self.database = SqliteDatabase(folder / "control.db", clock, self.secrets)
            self.queue = SqliteQueue(folder / "queue.db")
        else:
            self.database, self.queue = self.beside.database, self.beside.queue
        self.directory = Directory(self.database)
        await self.directory.start()
        self.alerts = Alerts(self.database, clock)
        self.media, self.web = Media(folder), Web()
        self.flights = CallFlights(self.queue, clock)
        self.owed = []
        self.flights.owed = self.owed.extend
        self.blobs = FolderBlobs(folder / "recordings")
        self.recordings = Recordings(
            self.settings, self.database, self.queue, self.blobs, folder / "spool", clock, lambda: "http://us"
        )
        self.recordings.owed = self.owed.extend
        from trunkline.voice.verbs import VERBS

        self.services = VoiceServices(
            settings=self.settings, clock=clock, directory=self.directory, alerts=self.alerts, fetcher=self.web,
            flights=self.flights, memory=self.memory, media=self.media, prompts=NoPrompts(folder),
            trunks=self.trunk_settings, **({"verbs": VERBS} if "verbs" in VoiceServices.__slots__ else {}),
        )  # fmt: skip
        self.services.media_address = lambda host: self.address[0]
        self.services.recordings = self.recordings
        self.recordings.find_call = self.services.live.get
        self.recordings.flight_of = self.flights.id_of
        urgent = self.settings.voice.emergency_trunk
        self.trunks = Trunks(self.trunk_settings, Random(1), clock.monotonic(), emergency=urgent)
        self.net = self.net or Net()
        sources = Sources(self.trunk_settings, "us", b"secret", 1000, clock)
        self.inbound = Inbound(self.services, sources)
        self.stack = self.net.join(self.address, self.inbound)
        self.stack.trace = self.services.trace
        wires = Wires(self.stack.invite, self.trunks, "us.example", self.resolve, clock.monotonic)
        self.outbound = self.services.outbound = Outbound(self.services, wires, self.recordings, self.secrets)
        self.reader = CallReader(self.queue, self.archive)
        self.calls = Calls(
            self.settings, self.flights, self.reader, self.outbound, self.recordings, self.directory, self.archive,
            self.database, self.alerts, self.secrets, self.services.live.get,
        )  # fmt: skip
        if before is not None:
            adopted = await before()
        await self.outbound.recover(adopted)
        self.outbound.start()
        return self

    async def resolve(self, host):
        if host == "169.254.169.254":
            raise HostRefused("link-local or metadata")
        return host

    async def stop(self):
        self.media.watchers.clear()
        self.outbound.stop()
        for call in list(self.services.live.values()):
            if call.session is not None:
                call.session.cancel()
        await asyncio.sleep(0)
        await self.recordings.close()
        await self.alerts.close()
        if self.beside is None:
            await self.queue.close()
            await self.database.close()

    async def crash(self, before=None):
        """End the process: only the stores are left."""
        for call in list(self.services.live.values()):
            call.flight = None
        self.net.stacks.pop(NODE)
        await self.stop()
        return await self.start(before=before)

    async def resume(self, sid):
        """As if another process went on with a call's session."""
        live, memory = self.services.live[sid], self.services.memory
        session, live.session = live.session, None
        session.cancel()
        await asyncio.sleep(0.01)
        document, position = [
            msgspec.msgpack.decode(await memory.get(checkpoints.key(sid, part)), type=kind)
            for part, kind in (("document", checkpoints.DocumentCheckpoint), ("position", checkpoints.Position))
        ]
        Session(live).resume(document, position)

    async def prepare(self):
        """One account with a number."""
        account = Account(
            sid=AC, account_sid=AC, auth_token=TOKEN, owner_account_sid=AC, price_unit="USD", status="active"
        )
        await self.database.insert(account)
        self.number = PhoneNumber(
            sid=new_sid("PN"), account_sid=AC, phone_number=OURS, voice_url=APP + "in", voice_enabled=True
        )
        await self.database.insert(self.number)

    # -- what tests do and ask

    async def create(self, twiml="<Pause length='60'/>", **changes):
        """A call of the API."""
        values = {"account_sid": AC, "to": THEM, "from_": OURS, "status_callback": APP + "status",
                  "status_callback_events": ("initiated", "ringing", "answered", "completed")}  # fmt: skip
        if "url" not in changes:
            values["twiml"] = f"<Response>{twiml}</Response>"
        call, written = self.calls.create(NewCall(**(values | changes)))
        await written
        return call.sid

    async def stored(self, sid):
        return await self.reader.get(AC, sid)

    async def until(self, sid, *statuses):
        """Wait for a stored status; the call as stored."""

        async def reached():
            found, flight = await self.stored(sid), self.flights.cached(sid)
            if flight is not None and flight.pending:
                return None  # what its last step owes is not told yet
            return found if found is not None and found.status in statuses else None

        return await eventually(reached)

    async def children(self, sid):
        return await self.reader.page(AC, older_than=None, newer_than=None, limit=50, filters={"parent": sid})

    async def the_call(self):
        """The one call that there is without a parent."""

        async def look():
            found = await self.reader.page(AC, older_than=None, newer_than=None, limit=50, filters={})
            return next((one for one in found if not one.parent_sid), None)

        return await eventually(look)

    def events(self, sid, url=APP + "status"):
        """The status callbacks that were owed for a call: their parameters, in order."""
        found = [one for one in self.owed if one.sid == sid]
        requests = [json.loads(one.request) for one in sorted(found, key=lambda one: one.seq)]
        return [dict(request["params"]) for request in requests if request["url"] == url]

    async def alert_codes(self):
        await self.alerts.close()
        return sorted(int(alert.error_code) for alert in await self.database.find(Alert))

    async def recordings_of(self, sid):
        return await self.database.find(Recording, {"call_sid": sid})


def documents(archive):
    return [orjson.loads(one.body) for one in archive.documents.values()]


@pytest.fixture
async def make_lines(tmp_path):
    """Makes a node's voice part; all are stopped at the end."""
    made = []

    async def make(**settings):
        lines = Lines(tmp_path, **settings)
        await lines.start()
        await lines.prepare()
        lines.phone = Phone(lines.net, CARRIER)
        made.append(lines)
        return lines

    yield make
    for lines in made:
        lines.net.close()
        await lines.stop()


@pytest.fixture
async def lines(make_lines):
    return await make_lines()


@pytest.fixture
async def tls(lines, monkeypatch):
    """Every message comes by TLS."""

    def deliver(data, flow):
        stack = lines.net.stacks.get(flow.remote)
        if stack is not None:
            stack.receive(data, Flow("TLS", flow.local, flow.remote, 1))

    monkeypatch.setattr(lines.net, "_deliver", deliver)
