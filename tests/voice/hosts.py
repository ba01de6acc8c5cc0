"""Two nodes on hosts of their own that share their stores, and phones that follow calls from one to the other."""

import asyncio

import pytest

from tests.voice.lines import APP, CARRIER, NODE, OURS, THEM, Lines, Phone
from trunkline.media.protocol import Audio
from trunkline.sip import offer_answer
from trunkline.voice.takeover import Takeover

from ..messaging.world import eventually

HEIR = ("127.0.0.7", 5060)
PROMPT_MS = 10_000
"""Length of everything that is said."""


class MobilePhone(Phone):
    """A phone that takes re-INVITEs. `offers` are those that came, with the Contact that they named; `held`: it sends
    and does not listen."""

    def __init__(self, net, address, name="phone"):
        super().__init__(net, address, name)
        self.offers = []
        self.held = False

    def on_reinvite(self, offer):
        self.offers.append(offer)
        direction = "sendonly" if self.held else "sendrecv"
        local = offer_answer.Local(**{**_fields(self.local), "direction": direction})
        return offer_answer.answer(offer, local).sdp


def _fields(local):
    return {name: getattr(local, name) for name in local.__struct_fields__}


class Hosts:
    """`lost` is the node that dies, `heir` the one that goes on with its calls."""

    def __init__(self, lost, heir):
        self.lost, self.heir = lost, heir
        self.takeover = Takeover(heir.services, heir.stack)
        self.net = lost.net
        for node in (lost, heir):
            node.flights.memory = node.recordings.memory = node.memory
        self.phone = MobilePhone(lost.net, CARRIER)

    async def calls(self, document, count=1, **options):
        """Somebody calls; the document runs. The live calls, oldest first."""
        self.lost.web.pages[APP + "in"] = document
        before = set(self.lost.services.live)
        for number in range(count):
            self.phone.dials(OURS, f"+1415555{number:04d}" if count > 1 else THEM, **options)
        return await eventually(
            lambda: (
                [
                    one
                    for sid, one in self.lost.services.live.items()
                    if sid not in before and not one.parent and one.is_up
                ]
                if len(self.phone.dialogs) >= count
                else []
            )
        )

    async def die(self):
        """The host is gone with everything in it."""
        lost = self.lost
        await eventually(lambda: all(not flight.pending for flight in lost.flights))
        lost.net.stacks.pop(NODE)
        lost.media.watchers.clear()
        lost.outbound.stop()
        for call in lost.services.live.values():
            call.flight = None
            if call.session is not None:
                call.session.cancel()
            for timer in (call._timer, call._closing):
                if timer is not None:
                    timer.cancel()
        lost.services.live.clear()
        await asyncio.sleep(0.01)

    async def goes_on(self, lost_ms=0, mine=lambda sid: True):
        """The heir takes over, and the queue is its own; every leg is reached or over."""
        report = await self.speaks(lost_ms, mine)
        told = await self.writes(lost_ms, mine)
        report.early, report.lost, report.queued = report.early + told.early, report.lost + told.lost, told.queued
        return report

    async def speaks(self, lost_ms=0, mine=lambda sid: True):
        """The heir takes over, and cannot write to the queue; every leg is reached or over."""
        report = await self.takeover.take_over(mine, lost_ms=lost_ms)
        await asyncio.wait_for(report.settled.wait(), 30)
        await asyncio.sleep(0.01)
        return report

    async def writes(self, lost_ms=0, mine=lambda sid: True):
        """The queue is the heir's."""
        report = await self.takeover.settle(self.heir.queue, mine, lost_ms=lost_ms)
        await asyncio.wait_for(report.settled.wait(), 30)
        await asyncio.sleep(0.01)
        return report

    def call(self, sid=None):
        """The heir's live call."""
        live = self.heir.services.live
        return live[sid] if sid else next(iter(live.values()))


@pytest.fixture
async def make_hosts(make_lines, tmp_path):
    """Makes two nodes."""
    made = []

    async def make(**settings):
        lost = await make_lines(**settings)
        (tmp_path / "said.pcm").write_bytes(bytes(16 * PROMPT_MS))
        folder = tmp_path / "heir"
        folder.mkdir()
        (folder / "said.pcm").write_bytes(bytes(16 * PROMPT_MS))
        settings.pop("clock", None)
        heir = Lines(folder, lost.clock, beside=lost, address=HEIR, **settings)
        await heir.start()
        heir.web.pages = lost.web.pages
        for one in (lost, heir):
            one.media.endless = (*one.media.endless, Audio)
        made.append(heir)
        return Hosts(lost, heir)

    yield make
    for heir in made:
        for call in list(heir.services.live.values()):
            call.hangup("test")
        await heir.stop()


@pytest.fixture
async def hosts(make_hosts):
    return await make_hosts()
