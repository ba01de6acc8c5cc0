"""A region takes another one's place: the calls that were up there are over, and told so as of when they last were."""

import pytest

from trunkline.media import protocol
from trunkline.voice import checkpoints
from trunkline.voice.service import Former

OUTAGE_MS = 600_000
CALL_MS = 20_000


async def test_its_calls_end_as_of_its_last_heartbeat_however_long_the_promotion_took(hosts):
    sid = await hosts.lost.create("<Gather timeout='60'/>")
    await hosts.lost.until(sid, "in-progress")
    answered_ms = hosts.lost.flights.cached(sid).call.answered_ms
    await hosts.die()
    for name, _ in await hosts.heir.memory.scan("call/"):
        hosts.heir.memory.post(name, None)  # this region has a store of its own
    seen_ms = answered_ms + CALL_MS
    hosts.lost.clock.offset_ms += OUTAGE_MS
    hosts.heir.services.former = Former(seen_ms + 5_000, seen_ms)
    report = await hosts.goes_on()
    assert (report.legs, report.lost) == (0, 1)
    stored = await hosts.heir.until(sid, "completed")
    assert stored.ended_ms == seen_ms
    (event,) = hosts.heir.events(sid)
    assert (event["CallStatus"], event["CallDuration"]) == ("completed", str(CALL_MS // 1000))


@pytest.mark.parametrize("is_former", [True, False])
async def test_what_an_earlier_reign_left_in_the_memory_store_calls_nobody(hosts, is_former):
    (call,) = await hosts.calls("<Gather timeout='60'><Say>press</Say></Gather>")
    await hosts.die()
    now = hosts.heir.clock.now_ms()
    hosts.heir.services.former = Former(now + 1 if is_former else call.record.created_ms, now)
    report = await hosts.goes_on()
    assert (report.legs, report.lost) == ((0, 1) if is_former else (1, 0))
    assert bool(hosts.phone.offers) is not is_former
    assert bool(hosts.heir.media.of(protocol.Open)) is not is_former
    if is_former:
        await hosts.heir.until(call.sid, "completed")
        assert await hosts.heir.memory.get(checkpoints.key(call.sid, checkpoints.LEG)) is None
