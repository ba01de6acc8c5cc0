"""Calls of a lost host of which one cannot be worked with: that one ends, the others go on."""

import msgspec
import pytest

from tests.voice.lines import OTHER, THEM
from tests.voice.test_takeover import change_leg
from trunkline.sip import takeover as dialogs
from trunkline.sip.dialog import Dialog
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice import adopting, takeover

from ..messaging.world import eventually

BAD = "sip:a@192.0.2.1"


async def three_calls(hosts):
    """Their SIDs; the peer of the second has named a target that cannot be worked with. Their host is lost."""
    sids = [await hosts.lost.create("<Gather timeout='60'/>") for _ in range(3)]
    for sid in sids:
        await hosts.lost.until(sid, "in-progress")
    await hosts.die()
    await change_leg(hosts, sids[1], aims_wrong)
    return sids


def aims_wrong(leg):
    return msgspec.structs.replace(leg, dialog=msgspec.structs.replace(leg.dialog, target=BAD))


def raises_for(monkeypatch, where, name, is_bad):
    """Something fails, if what it is given is bad."""
    real = getattr(where, name)

    def fails(*given, **named):
        if is_bad(*given):
            raise TypeError("the test says so")
        return real(*given, **named)

    monkeypatch.setattr(where, name, fails)


FAULTS = {
    "its way": (dialogs, "moved", lambda state, *_: state.target == BAD),
    "its dialog": (adopting, "adopt", lambda stack, live, state: state.target == BAD),
    "its counts": (adopting, "count", lambda live: live.dialog.remote_target == BAD),
    "its offer": (Dialog, "reinvite", lambda dialog, *_: dialog.remote_target == BAD),
    "all that is sent to it": (Dialog, "build", lambda dialog, *_: dialog.remote_target == BAD),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_call_that_cannot_be_worked_with_ends_and_the_others_go_on(hosts, monkeypatch, fault):
    first, bad, last = await three_calls(hosts)
    raises_for(monkeypatch, *FAULTS[fault])
    report = await hosts.goes_on()
    assert report.reached == 2
    assert all(hosts.call(sid).is_up and hosts.call(sid).reached for sid in (first, last))
    assert len(hosts.phone.offers) == 2
    stored = await hosts.heir.until(bad, "completed")
    assert stored.hangup_cause in (takeover.PROCESS_LOST, takeover.LOST)
    await eventually(lambda: [one["CallStatus"] for one in hosts.heir.events(bad)] == ["completed"])
    assert hosts.heir.events(first) == hosts.heir.events(last) == []
    assert bad not in hosts.heir.services.live
    assert [one for one in await hosts.heir.memory.scan("call/") if bad in one[0]] == []


async def test_a_caller_who_cannot_be_told_ends_and_the_others_are_told(hosts, monkeypatch):
    """None of them was answered."""
    hosts.phone.plan = hosts.phone.rings
    sids = [await hosts.lost.create(to=to) for to in (THEM, OTHER)]
    for sid in sids:
        await hosts.lost.until(sid, "ringing")
    await hosts.die()
    left = [TypeError("the test says so")]
    withdraw = dialogs.withdraw

    def fails_once(*given):
        if left:
            raise left.pop()
        withdraw(*given)

    monkeypatch.setattr(dialogs, "withdraw", fails_once)
    report = await hosts.goes_on()
    assert report.early == 2
    for sid in sids:
        await hosts.heir.until(sid, "failed")
    await eventually(lambda: len(hosts.phone.cancels) == 1)


async def test_a_record_that_the_queue_s_reader_cannot_work_with_keeps_no_other_from_being_dealt_with(
    hosts, monkeypatch
):
    first, bad, last = await three_calls(hosts)
    for sid in (first, bad, last):
        for name, _ in await hosts.heir.memory.scan(f"call/{sid}"):
            hosts.heir.memory.post(name, None)  # only the queue knows of them
    raises_for(monkeypatch, hosts.heir.flights, "adopt", lambda stored: stored.sid == bad)
    report = await hosts.goes_on()
    assert report.lost == 2
    for sid in (first, last):
        await hosts.heir.until(sid, "completed")


async def test_a_queue_that_goes_away_while_it_is_read_leaves_no_call_half_taken_over(hosts, monkeypatch):
    """One call has landed meanwhile, which is looked up last; of the other only the queue and its leg are known."""
    landed, known = [await hosts.lost.create("<Gather timeout='60'/>") for _ in range(2)]
    for sid in (landed, known):
        await hosts.lost.until(sid, "in-progress")
    await hosts.die()
    hosts.heir.memory.post(f"call/{known}/flight", None)
    await hosts.speaks()
    (flight,) = hosts.heir.flights.held()
    await hosts.heir.queue.erase(flight.id)
    get, away = hosts.heir.queue.get, [StoreUnavailable("the test says so")]

    async def fails_once(*given):
        if away:
            raise away.pop()
        return await get(*given)

    monkeypatch.setattr(hosts.heir.queue, "get", fails_once)
    with pytest.raises(StoreUnavailable):
        await hosts.writes()
    await hosts.writes()
    assert hosts.call(known).reached
