"""Early media for a call that is not answered; UPDATE; a refresh by re-INVITE; Replaces (RFC 3891)."""

import asyncio

import msgspec
import pytest

from tests.voice.lines import APP, OTHER, OURS, SECOND, Phone
from tests.voice.world import World, until
from trunkline.media import protocol
from trunkline.media.tones import RINGING
from trunkline.settings import Trunk
from trunkline.sip import offer_answer
from trunkline.sip.offer_answer import Local
from trunkline.voice.checkpoints import leg_of

from ..messaging.world import eventually


def early(lines):
    """The callee has something to say before it answers."""

    def plan(invite):
        invite.ring(183, sdp=offer_answer.answer(invite.offer, lines.phone.local).sdp)

    lines.phone.plan = plan


async def test_an_unanswered_caller_hears_the_callees_early_media(lines):
    early(lines)
    lines.web.pages[APP + "in"] = f'<Dial answerOnBridge="true">{OTHER}</Dial>'
    lines.phone.dials(OURS)
    sid = (await lines.the_call()).sid
    bridge = await eventually(lambda: next(iter(lines.media.of(protocol.Bridge)), None))
    assert bridge.a == sid
    await eventually(lambda: 183 in lines.phone.progress)
    assert not lines.media.of(protocol.Play), "there is no ringing tone over it"
    stored = await lines.stored(sid)
    assert stored.status == "ringing"
    lines.phone.picks_up(ring=False)
    await lines.until(sid, "in-progress")
    assert len(lines.media.of(protocol.Open, sid)) == 1, "the audio that was open stays"


async def test_it_is_a_tone_of_ours_where_the_document_names_one(lines):
    early(lines)
    lines.web.pages[APP + "in"] = f'<Dial answerOnBridge="true" ringTone="fr">{OTHER}</Dial>'
    lines.phone.dials(OURS)
    sid = (await lines.the_call()).sid
    (play,) = await eventually(lambda: lines.media.of(protocol.Play, sid))
    assert play.items == [RINGING["fr"]]
    await eventually(lambda: 183 in lines.phone.progress)
    assert lines.phone.progress == [180, 183]
    assert not lines.media.of(protocol.Bridge)


async def test_a_caller_without_an_offer_hears_it_ring(lines):
    early(lines)
    lines.web.pages[APP + "in"] = f'<Dial answerOnBridge="true">{OTHER}</Dial>'
    lines.phone.stack.invite(
        f"sip:{OURS}@127.0.0.1", from_="<sip:+14155550199@127.0.0.2>", target=("UDP", "127.0.0.1", 5060), sdp=b"",
        listener=lines.phone,
    )  # fmt: skip
    await lines.the_call()
    await eventually(lambda: lines.phone.progress)
    assert 183 not in lines.phone.progress
    assert not lines.media.of(protocol.Bridge)


async def test_the_latest_fork_with_media_is_heard(lines):
    """Several 183s with different tags are separate early dialogs."""
    lines.phone.plan = lambda invite: None
    lines.web.pages[APP + "in"] = f"<Dial>{OTHER}</Dial>"
    lines.phone.dials(OURS)
    await lines.the_call()
    invite = await eventually(lambda: next(iter(lines.phone.invites), None))
    for tag, port in (("one", 31_000), ("two", 32_000)):
        invite.to_tag = tag
        local = Local(address="127.0.0.2", port=port, session_id=port, version=1)
        invite.ring(183, sdp=offer_answer.answer(invite.offer, local).sdp)
        if tag == "one":
            opened = await eventually(lambda: [o for o in lines.media.of(protocol.Open) if o.remote[1] == 31_000])
    (changed,) = await eventually(lambda: lines.media.of(protocol.Modify, opened[0].leg))
    assert changed.remote == ("127.0.0.2", 32_000)


async def test_an_update_changes_the_session(here: World) -> None:
    caller, call = await here.up("<Say>hi</Say><Pause length='9'/>")
    held = Local(address="127.0.0.9", port=40_000, session_id=1, version=2, direction="sendonly")
    heard: list = []
    caller.dialog.request(
        "UPDATE", [("Content-Type", "application/sdp")], offer_answer.offer(held),
        lambda status, response: heard.append((status, response.body)),
    )  # fmt: skip
    await until(lambda: heard, "an answer")
    assert heard[0][0] == 200
    assert b"a=recvonly" in heard[0][1]
    (change,) = here.media.of(protocol.Modify)
    assert (change.leg, change.direction) == (call.sid, "recvonly")


async def test_a_refresh_changes_nothing(here: World) -> None:
    caller, call = await here.up("<Say>hi</Say><Pause length='9'/>")
    before = call.negotiated
    caller.on_reinvite = lambda offer: offer_answer.answer(offer, here.phone.local).sdp
    heard: list = []
    call.dialog.reinvite(call.on_refresh(), lambda status, sdp: heard.append((status, sdp)))
    await until(lambda: heard, "an answer")
    call.on_refreshed(heard[0][1])
    assert heard[0][0] == 200
    assert call.negotiated.remote == before.remote
    call.on_refreshed(b"v=0 nonsense")
    assert call.negotiated.remote == before.remote


class Transfer:
    """A call that is up, and another phone that wants to take its peer's place."""

    def __init__(self, here: World) -> None:
        self.here = here

    async def begin(self) -> None:
        self.caller, self.call = await self.here.up("<Say>hi</Say><Pause length='9'/>")
        self.old = self.caller.dialog

    def header(self, extra: str = "", **changes: str) -> str:
        state = self.old.state()
        found = {"call_id": state.call_id, "to": state.remote_tag, "from": state.local_tag} | changes
        return f"{found['call_id']};to-tag={found['to']};from-tag={found['from']}{extra}"

    def replaces(self, value: str, address: str = "127.0.0.9"):
        phone = self.here.phone if address == "127.0.0.9" else self.here.another(address)
        return phone.dials("anything", headers=[("Replaces", value), ("Require", "replaces")])


@pytest.fixture
async def transfer(here: World) -> Transfer:
    made = Transfer(here)
    await made.begin()
    return made


async def test_another_phone_takes_the_place(here: World, transfer: Transfer) -> None:
    taker = transfer.replaces(transfer.header())
    await taker.answered()
    await transfer.caller.ended()
    assert here.call is transfer.call, "the call goes on, as the same"
    assert transfer.call.is_up
    assert transfer.call.dialog.call_id == taker.dialog.call_id
    assert len(here.media.of(protocol.Open)) == 1
    assert here.media.of(protocol.Modify)[-1].leg == transfer.call.sid
    assert here.inbound.counters["replaced"] == 1
    taker.hangs_up()
    assert (await here.landed()).status == "completed"


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (lambda one: one.header(call_id="other"), 481),
        (lambda one: one.header(to="x"), 481),
        (lambda one: one.header(to="x", **{"from": "y"}), 481),
        (lambda one: one.header(";early-only"), 486),
        (lambda one: "rubbish", 400),
    ],
)
async def test_what_is_not_replaced(here: World, transfer: Transfer, value, status: int) -> None:
    taker = transfer.replaces(value(transfer))
    await taker.ended()
    assert taker.failed == status
    assert transfer.call.is_up


async def test_a_stranger_replaces_nothing(here: World, transfer: Transfer) -> None:
    taker = transfer.replaces(transfer.header(), address="127.0.0.77")
    await taker.ended()
    assert taker.failed in (401, 403)
    assert transfer.call.dialog.call_id == transfer.old.call_id


async def test_another_trunk_replaces_nothing(make_lines) -> None:
    lines = await make_lines(
        trunks=(
            Trunk(name="carrier", gateways=("sip:127.0.0.2:5060",), addresses=("127.0.0.2",)),
            Trunk(name="other", addresses=("127.0.0.3",), prefixes=()),
        )
    )
    lines.web.pages[APP + "in"] = "<Say>hi</Say><Pause length='9'/>"
    lines.phone.dials(OURS)
    await lines.the_call()
    (dialog,) = await eventually(lambda: lines.phone.dialogs)
    state = dialog.state()
    other = Phone(lines.net, SECOND)
    value = f"{state.call_id};to-tag={state.remote_tag};from-tag={state.local_tag}"
    other.dials(OURS, headers=[("Replaces", value)])
    await eventually(lambda: other.failure)
    assert other.failure == 481


async def test_a_trunk_has_a_session_interval_of_its_own(make_lines) -> None:
    lines = await make_lines(
        trunks=(Trunk(name="carrier", gateways=("sip:127.0.0.2:5060",), prefixes=("",), session_timer_s=600),)
    )
    sid = await lines.create(to=OTHER)
    await lines.until(sid, "in-progress")
    (invite,) = lines.phone.invites
    assert invite.request.headers.get("Session-Expires") == "600"
    assert leg_of(lines.services.live[sid]).dialog.session_s == 600


async def test_another_process_goes_on_with_the_session_timer(here: World) -> None:
    here.app.answers("/voice", "<Say>hi</Say><Pause length='9'/>")
    caller = here.phone.dials(headers=[("Session-Expires", "200;refresher=uas")])
    await caller.answered()
    state = leg_of(here.call).dialog
    assert (state.session_s, state.we_refresh, state.peer_updates) == (200, True, True)


@pytest.mark.parametrize("speaks", [True, False])
async def test_who_listens_to_early_media_may_be_silent_until_the_answer(make_lines, speaks: bool) -> None:
    """The silence that ends a call (`rtp_timeout_s`) is told once: it counts again from the answer."""
    lines = await make_lines()
    early(lines)
    settings = lines.services.settings
    media = msgspec.structs.replace(settings.media, rtp_timeout_s=0.05)
    lines.services.settings = msgspec.structs.replace(settings, media=media)
    lines.web.pages[APP + "in"] = f'<Dial answerOnBridge="true">{OTHER}</Dial>'
    lines.phone.dials(OURS)
    sid = (await lines.the_call()).sid
    await eventually(lambda: lines.media.of(protocol.Bridge))
    lines.media.tell(protocol.TimedOut(leg=sid))
    assert lines.services.live[sid].status == "ringing"
    if speaks:
        lines.media.tell(protocol.Flowing(leg=sid))
    lines.phone.picks_up(ring=False)
    await lines.until(sid, "in-progress", "completed")
    if speaks:
        await asyncio.sleep(0.15)
        await lines.until(sid, "in-progress")
    else:
        assert (await lines.until(sid, "completed")).hangup_cause == "rtp-timeout"
