"""A host is lost with calls that were not answered: their callers and callees hear of it, and their applications."""

import asyncio

import pytest

from tests.voice.lines import APP, OTHER
from trunkline.media import protocol
from trunkline.model.call import Status

from ..messaging.world import eventually


async def test_a_caller_who_heard_it_ring_gets_503(hosts):
    hosts.lost.web.pages[APP + "in"] = f"<Dial answerOnBridge='true'>{OTHER}</Dial>"
    hosts.phone.plan = hosts.phone.rings
    invite = hosts.phone.dials("+12025550100")
    # The caller may hear it ring before the callee's 180 is here; only then is there an INVITE to be cancelled.
    rings = [Status.RINGING] * 2
    await eventually(lambda: [one.status for one in hosts.lost.flights] == rings and 180 in hosts.phone.progress)
    await hosts.die()
    report = await hosts.goes_on()
    assert (report.early, report.legs) == (2, 0)
    await eventually(lambda: hosts.phone.failure == 503)
    await eventually(lambda: hosts.phone.cancels)
    assert invite.over
    statuses = {flight.status for flight in hosts.heir.flights}
    assert statuses <= {Status.FAILED}


async def test_an_early_call_ends_failed_with_its_callback(hosts):
    hosts.phone.plan = hosts.phone.rings
    sid = await hosts.lost.create()
    await hosts.lost.until(sid, "ringing")
    await hosts.die()
    await hosts.goes_on()
    stored = await hosts.heir.until(sid, "failed")
    assert stored.hangup_cause == "process-lost"
    assert [event["CallStatus"] for event in hosts.heir.events(sid)] == ["failed"]
    await eventually(lambda: hosts.phone.cancels)


async def test_a_callee_who_was_ringing_is_called_again(hosts):
    hosts.phone.plan = hosts.phone.rings
    (call,) = await hosts.calls(f"<Dial>{OTHER}</Dial>")
    await eventually(lambda: len(hosts.phone.invites) == 1)
    await asyncio.sleep(0.05)
    await hosts.die()
    await hosts.goes_on()
    await eventually(lambda: len(hosts.phone.invites) == 2)
    hosts.phone.picks_up()
    (bridged,) = await eventually(lambda: hosts.heir.media.of(protocol.Bridge))
    assert bridged.a == call.sid


async def settled(timeout_s):
    return True


@pytest.mark.parametrize("picks_up", [False, True])
async def test_a_callee_of_whom_the_lost_host_never_heard_does_not_ring_on(hosts, picks_up):
    """He has the INVITE; what he says of it finds nobody."""
    hosts.lost.services.settled = settled
    hosts.phone.plan = lambda invite: None
    sid = await hosts.lost.create()
    await eventually(lambda: hosts.phone.invites)
    await hosts.die()
    if picks_up:
        hosts.phone.picks_up()
    else:
        hosts.phone.rings(hosts.phone.invites[0])
    await hosts.goes_on()
    await eventually(lambda: hosts.phone.byes if picks_up else hosts.phone.cancels)
    assert bool(hosts.phone.cancels) is not picks_up
    stored = await hosts.heir.until(sid, "failed")
    assert stored.hangup_cause == "process-lost"
    assert [event["CallStatus"] for event in hosts.heir.events(sid)] == ["failed"]
    assert await hosts.heir.memory.scan("call/") == []


async def test_a_dial_calls_him_again(hosts):
    hosts.lost.services.settled = settled
    hosts.phone.plan = lambda invite: None
    (call,) = await hosts.calls(f"<Dial>{OTHER}</Dial>")
    await eventually(lambda: len(hosts.phone.invites) == 1)
    await hosts.die()
    hosts.phone.rings(hosts.phone.invites[0])
    await hosts.goes_on()
    await eventually(lambda: hosts.phone.cancels and len(hosts.phone.invites) == 2)
    hosts.phone.picks_up()
    (bridged,) = await eventually(lambda: hosts.heir.media.of(protocol.Bridge))
    assert bridged.a == call.sid


@pytest.mark.parametrize("how", ["before the loss was noticed", "before his host knew that he has followed"])
async def test_nobody_is_called_again_for_a_caller_who_has_hung_up_meanwhile(hosts, how):
    hosts.phone.plan = hosts.phone.rings
    (call,) = await hosts.calls(
        f"<Dial action='{APP}after'>"
        f"<Number statusCallback='{APP}child' statusCallbackEvent='initiated completed'>{OTHER}</Number></Dial>"
    )
    await eventually(lambda: hosts.phone.invites)
    (rang,) = await hosts.lost.children(call.sid)
    await hosts.die()
    if how.startswith("before the loss"):
        hosts.phone.dialogs[0].abandon()
        await hosts.goes_on()
    else:
        report = await hosts.takeover.take_over(lambda sid: True)
        hosts.call(call.sid).hangup("caller")
        await asyncio.wait_for(report.settled.wait(), 5)
        await hosts.writes()
    (params,) = await eventually(lambda: hosts.heir.web.params(APP + "after"))
    told = {name: params.get(name) for name in ("DialCallStatus", "DialBridged", "CallStatus")}
    assert told == {"DialCallStatus": "canceled", "DialBridged": "false", "CallStatus": "completed"}
    await hosts.heir.until(call.sid, "completed")
    assert [child.sid for child in await hosts.heir.children(call.sid)] == [rang.sid]
    assert len(hosts.phone.invites) == 1
    assert {one.sid for one in hosts.heir.owed if (APP + "child").encode() in one.request} == {rang.sid}


async def test_a_callee_who_picks_up_as_the_host_dies_is_hung_up_on(hosts):
    hosts.lost.services.settled = settled
    hosts.phone.plan = hosts.phone.rings
    sid = await hosts.lost.create()
    await hosts.lost.until(sid, "ringing")
    await hosts.die()
    hosts.phone.picks_up(ring=False)  # his 200 finds nobody
    await hosts.goes_on()
    await eventually(lambda: hosts.phone.byes)
    stored = await hosts.heir.until(sid, "failed")
    assert stored.hangup_cause == "process-lost"
    assert [event["CallStatus"] for event in hosts.heir.events(sid)] == ["failed"]
    assert await hosts.heir.memory.scan("call/") == []
