"""The 200 and the ACK wait until what another host needs is stored; where it always is, nothing waits."""

import asyncio

import pytest

from tests.voice.lines import APP, OTHER, OURS
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice import checkpoints, settling

from ..messaging.world import eventually

IDLE = "<Gather timeout='60'/>"


class Store:
    """A store on other hosts, which has what was posted when the test says so."""

    def __init__(self, lines):
        self.lines = lines
        self.there = asyncio.Event()
        self.asked = 0
        self.seen = []
        """What had been posted when it was asked."""

    async def settled(self, timeout_s):
        self.asked += 1
        self.seen = [name.rsplit("/", 1)[1] for name, _ in await self.lines.memory.scan("call/")]
        try:
            async with asyncio.timeout(timeout_s):
                await self.there.wait()
        except TimeoutError:
            return False
        return True


def remote(lines, patience_s=10.0):
    settling_s = patience_s
    store = Store(lines)

    async def settled(timeout_s):
        return await store.settled(min(timeout_s, settling_s))

    lines.services.settled = settled
    return store


async def test_the_200_waits_until_the_dialog_is_stored(lines, monkeypatch):
    monkeypatch.setattr(settling, "SETTLE_S", 5.0)
    store = remote(lines)
    lines.web.pages[APP + "in"] = IDLE
    lines.phone.dials("+12025550100")
    await eventually(lambda: store.asked)
    assert checkpoints.LEG in store.seen
    await asyncio.sleep(0.03)
    assert lines.phone.dialogs == []
    store.there.set()
    await eventually(lambda: lines.phone.dialogs)
    (call,) = lines.services.live.values()
    await eventually(lambda: call.is_up)


async def test_a_store_that_is_slow_holds_up_no_call(lines, monkeypatch):
    monkeypatch.setattr(settling, "SETTLE_S", 0.02)
    store = remote(lines)
    lines.web.pages[APP + "in"] = IDLE
    lines.phone.dials("+12025550100")
    await eventually(lambda: lines.phone.dialogs)
    assert store.asked == 1


async def test_a_store_that_is_away_holds_up_no_call(lines):
    async def settled(timeout_s):
        raise StoreUnavailable("away")

    lines.services.settled = settled
    lines.web.pages[APP + "in"] = IDLE
    lines.phone.dials("+12025550100")
    await eventually(lambda: lines.phone.dialogs)


async def test_a_caller_may_give_up_while_the_200_waits(lines, monkeypatch):
    monkeypatch.setattr(settling, "SETTLE_S", 5.0)
    store = remote(lines)
    lines.web.pages[APP + "in"] = IDLE
    invite = lines.phone.dials("+12025550100")
    await eventually(lambda: store.asked)
    (call,) = lines.services.live.values()
    invite.cancel()
    stored = await lines.until(call.sid, "no-answer")
    assert stored.sip_response_code == 487
    store.there.set()
    await asyncio.sleep(0.03)
    assert lines.phone.dialogs == []
    assert lines.phone.failure == 487
    assert lines.stack.dialogs == 0


async def test_a_hang_up_while_the_200_waits_is_a_bye_after_it(lines, monkeypatch):
    monkeypatch.setattr(settling, "SETTLE_S", 5.0)
    store = remote(lines)
    lines.web.pages[APP + "in"] = IDLE
    lines.phone.dials("+12025550100")
    await eventually(lambda: store.asked)
    (call,) = lines.services.live.values()
    call.hangup("test")
    store.there.set()
    await eventually(lambda: lines.phone.byes)
    await lines.until(call.sid, "completed")


async def test_an_update_while_the_200_waits_does_not_lose_it(lines, monkeypatch):
    monkeypatch.setattr(settling, "SETTLE_S", 5.0)
    store = remote(lines)
    lines.web.pages[APP + "in"] = IDLE
    lines.phone.dials("+12025550100")
    await eventually(lambda: store.asked)
    (call,) = lines.services.live.values()
    lines.web.pages[APP + "other"] = IDLE
    assert call.redirect(url=APP + "other")
    await asyncio.sleep(0.02)
    store.there.set()
    await eventually(lambda: lines.phone.dialogs)
    await eventually(lambda: call.is_up and lines.web.params(APP + "other"))
    assert store.asked == 1


async def test_the_ack_waits_until_the_dialog_is_stored(lines, monkeypatch):
    monkeypatch.setattr(settling, "SETTLE_S", 5.0)
    store, acks = remote(lines), []
    lines.phone.on_ack = acks.append
    sid = await lines.create(IDLE)
    await lines.until(sid, "in-progress")
    await eventually(lambda: store.asked)
    assert checkpoints.LEG in store.seen
    await asyncio.sleep(0.02)
    assert acks == []
    store.there.set()
    await eventually(lambda: acks)


async def test_a_bye_does_not_overtake_an_ack_that_waits(lines, monkeypatch):
    monkeypatch.setattr(settling, "SETTLE_S", 5.0)
    store, heard = remote(lines), []
    lines.phone.on_ack = lambda sdp: heard.append("ack")
    lines.phone.on_bye = lambda request: heard.append("bye")
    sid = await lines.create(IDLE)
    await lines.until(sid, "in-progress")
    await eventually(lambda: store.asked)
    lines.services.live[sid].hangup("test")
    await eventually(lambda: heard == ["ack", "bye"])
    store.there.set()


async def test_nothing_waits_for_a_store_of_our_own(lines):
    """No task is made for it: the 200 leaves in the step that answers."""
    lines.web.pages[APP + "in"] = IDLE
    lines.phone.dials("+12025550100")
    await eventually(lambda: lines.phone.dialogs)
    (call,) = lines.services.live.values()
    assert call.answering is None
    assert lines.services.settled is None


@pytest.fixture(params=[False, True], ids=["alone", "stored elsewhere"])
async def early(lines, request, monkeypatch):
    """A caller who hears a ringing tone, and whose PRACKs are lost until the test says otherwise; the callee rings."""
    if request.param:
        monkeypatch.setattr(settling, "SETTLE_S", 5.0)
        remote(lines).there.set()
    deliver, lost = lines.net._deliver, [b"PRACK"]
    monkeypatch.setattr(
        lines.net, "_deliver", lambda data, flow: None if data.startswith(tuple(lost)) else deliver(data, flow)
    )
    lines.phone.plan = lines.phone.rings
    lines.web.pages[APP + "in"] = f'<Dial answerOnBridge="true" ringTone="us">{OTHER}</Dial>'
    invite = lines.phone.dials(OURS)
    await eventually(lambda: lines.phone.invites and 183 in lines.phone.progress)
    (call,) = [one for one in lines.services.live.values() if one.incoming]
    lines.phone.picks_up(ring=False)
    await eventually(lambda: call.invite is None or call.invite.waits)
    return call, invite, lost


async def test_a_call_is_not_up_before_its_200_has_left(lines, early):
    call, _, lost = early
    await asyncio.sleep(0.03)
    assert (call.is_up, call.record.answered_ms) == (False, 0)
    lost.clear()
    await eventually(lambda: call.is_up)
    assert call.record.answered_ms


async def test_a_cancel_while_the_200_waits_for_a_prack_is_no_answer(lines, early):
    call, invite, _ = early
    invite.cancel()
    stored = await lines.until(call.sid, "no-answer")
    assert (stored.sip_response_code, stored.answered_ms) == (487, 0)


async def test_a_caller_who_never_sends_the_prack_was_never_answered(lines, early):
    call, _, _ = early
    stored = await lines.until(call.sid, "no-answer")
    assert (stored.sip_response_code, stored.answered_ms) == (504, 0)
