"""Which of several ringing phones is heard before anybody picks up."""

from types import SimpleNamespace

import msgspec
import pytest

from trunkline.media import protocol
from trunkline.sip import offer_answer
from trunkline.sip.core import CallListener
from trunkline.sip.errors import NotAcceptable
from trunkline.sip.flow import Flow
from trunkline.sip.message import parse
from trunkline.sip.registrar import Binding
from trunkline.voice.checkpoints import InviteCheckpoint
from trunkline.voice.forking import Fork

from ..messaging.world import eventually
from .lines import APP, OURS
from .office import HOST, Office


@pytest.fixture
async def two(lines):
    """Two phones that ring, and a caller who hears what they play."""
    office = await Office(lines).open("alice")
    phones = await office.staffed("alice", "alice")
    for phone in phones:
        phone.plan = phone.rings
    lines.web.pages[APP + "in"] = f"<Dial><Sip>sip:alice@{HOST}</Sip></Dial>"
    lines.phone.dials(OURS)
    await eventually(lambda: all(phone.invites for phone in phones))
    return phones


def plays(phone):
    invite = phone.invites[0]
    invite.ring(183, sdp=offer_answer.answer(invite.offer, phone.local).sdp)


def heard(lines):
    """Whom the leg's audio came from, one after the other."""
    found = [one.remote for one in lines.media.sent if isinstance(one, protocol.Open | protocol.Modify) and one.remote]
    return [address for address, _ in found if address.startswith("127.0.1.")]


async def test_the_first_is_heard_until_one_picks_up(two, lines):
    one, other = two
    plays(one)
    await eventually(lambda: lines.media.of(protocol.Bridge))
    plays(other)
    plays(one)
    other.picks_up(ring=False)
    await eventually(lambda: one.cancels and len(heard(lines)) > 1)
    assert heard(lines) == ["127.0.1.1", "127.0.1.2"]
    await eventually(lambda: lines.phone.dialogs)


async def test_the_next_is_heard_when_the_first_is_out(two, lines):
    one, other = two
    plays(one)
    await eventually(lambda: lines.media.of(protocol.Bridge))
    plays(other)
    one.invites[0].reject(486)
    await eventually(lambda: heard(lines) == ["127.0.1.1", "127.0.1.2"])


async def test_every_invite_is_kept_for_other_hosts_before_any_phone_rings(lines):
    async def settled(timeout_s):
        return True

    lines.services.settled = settled
    office = await Office(lines).open("alice")
    phones = await office.staffed("alice", "alice")
    for phone in phones:
        phone.plan = lambda invite: None
    lines.web.pages[APP + "in"] = f"<Dial><Sip>sip:alice@{HOST}</Sip></Dial>"
    lines.phone.dials(OURS)
    await eventually(lambda: all(phone.invites for phone in phones))
    (kept,) = [
        msgspec.msgpack.decode(value, type=InviteCheckpoint)
        for name, value in await lines.memory.scan("call/")
        if name.endswith("/invite") and b"branch=" in value and HOST.encode() in value
    ]
    branches = {parse(one).via.branch for one, _ in [(kept.request, kept.flow), *kept.others]}
    assert branches == {phone.invites[0].request.via.branch for phone in phones}


class Heard(CallListener):
    def __init__(self):
        self.told = []

    def on_progress(self, response, sdp):
        self.told.append((response, sdp))

    def on_early_update(self, tag, offer):
        self.told.append((tag, offer))
        return b"answer"


def test_only_who_is_heard_changes_what_is_played():
    branches, listener = [], Heard()

    def place(uri, **more):
        branches.append(more["listener"])
        return SimpleNamespace(sent=(b"", None), cancel=lambda headers: None)

    groups = [
        (
            Binding(
                uri=f"sip:a@127.0.1.{n}",
                call_id="c",
                cseq=1,
                expires_ms=0,
                registered_ms=0,
                flow=Flow("UDP", ("", 0), ("", n)),
            ),
        )
        for n in (1, 2)
    ]
    Fork(place, groups, to="", from_="", sdp=b"offer", headers=(), listener=listener)
    branches[0].on_progress("rings", b"")
    with pytest.raises(NotAcceptable):
        branches[0].on_early_update("x", b"again")
    branches[1].on_progress("plays", b"sdp")
    branches[0].on_progress("plays too", b"its sdp")
    assert branches[1].on_early_update("tag", b"again") == b"answer"
    with pytest.raises(NotAcceptable):
        branches[0].on_early_update("x", b"again")
    assert listener.told == [("rings", b""), ("plays", b"sdp"), ("plays too", b""), ("tag", b"again")]
