"""A process is lost with calls up; the next one has their checkpoints, flights and legs, and goes on."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as replace_struct

from tests.messaging.world import eventually
from tests.voice.lines import APP, OURS, TRUNKS
from tests.voice.world import ACCOUNT, NUMBER, TRUNK, World, until
from trunkline.media import protocol
from trunkline.media.protocol import LegState
from trunkline.model.call import Status
from trunkline.model.clock import SystemClock
from trunkline.settings import Gateway
from trunkline.sip.core import StackConfig
from trunkline.sip.stack import Stack
from trunkline.sip.timers import Timing
from trunkline.voice import checkpoints, recovery
from trunkline.voice.checkpoints import LEG, Position
from trunkline.voice.flights import CallFlights
from trunkline.voice.inbound import Inbound
from trunkline.voice.outbound import _LOST
from trunkline.voice.recovery import SEEN_KEY, Recovery
from trunkline.voice.service import Counts

RUN = "run"


TICK_S = 0.01
TIMING = Timing(t1=0.1, t2=0.4, t4=0.1)
"""A 200 is given up after 64 T1: long enough for a machine that stands still for seconds."""


@pytest.fixture
async def here(here: World) -> AsyncIterator[World]:
    """A world whose stack is ticked, whichever it is."""

    async def tick() -> None:
        while True:
            here.stack.tick()
            await asyncio.sleep(TICK_S)

    task = asyncio.create_task(tick())
    yield here
    task.cancel()


async def begin(here: World) -> None:
    """This process belongs to the run."""
    await Recovery(here.services, here.stack, here.inbound, RUN).read()


async def lose(here: World) -> None:
    """Everything that lives in the process is gone."""
    await until(lambda: all(not flight.pending for flight in here.flights), "the writes")
    for live in here.services.live.values():
        if live.session is not None:
            session, live.session = live.session, None
            session.cancel()
        for timer in (live._timer, live._closing):
            if timer is not None:
                timer.cancel()
    await asyncio.sleep(0)
    here.media.watchers.clear()
    here.flights = CallFlights(here.queue, SystemClock())
    here.services = replace(here.services, flights=here.flights, live={}, traced={}, counts=Counts(), trunks=(TRUNK,))
    here.inbound = Inbound(here.services, here.sources)
    loop = asyncio.get_running_loop()
    here.stack = Stack(StackConfig(timing=TIMING), here.answer, loop.time, lambda: secrets.token_hex(8), here.inbound)


def legs(here: World) -> list[LegState]:
    """What the media process would say."""
    closed = {command.leg for command in here.media.of(protocol.Close)}
    playing = here.media.playing
    return [
        LegState(leg=one.leg, slot=one.slot, play=playing[one.leg].play if one.leg in playing else "")
        for one in here.media.of(protocol.Open)
        if one.leg not in closed
    ]


async def go_on(here: World, *, run: str = RUN, missed: Any = None) -> Recovery:
    """The next process starts; `missed` is called when the media process tells what happened meanwhile."""
    taken = Recovery(here.services, here.stack, here.inbound, run)
    await taken.read()
    taken.greeted(legs(here))
    if missed is not None:
        missed()
    for status, end in _LOST.items():  # as trunkline.voice.outbound.Outbound.recover does
        for flight in await here.flights.in_state(status):
            if flight.call.sid not in taken.adopted:
                here.flights.advance(flight, end)
    taken.resume()
    return taken


async def test_what_plays_is_not_played_again_and_the_next_verb_follows(here: World) -> None:
    await begin(here)
    here.media.holds = True
    caller, call = await here.up("<Say>one</Say><Say>two</Say>")
    await until(lambda: here.media.plays() == [["one"]])
    await lose(here)
    await go_on(here)
    assert here.call.sid == call.sid
    await asyncio.sleep(0.02)
    assert here.media.plays() == [["one"]]
    here.media.end(call.sid)
    await until(lambda: here.media.plays() == [["one"], ["two"]])
    caller.hangs_up()
    await until(lambda: not here.services.live)
    (flight,) = here.flights
    assert (flight.status, flight.call.hangup_cause) == (Status.COMPLETED, "caller")
    assert await here.memory.scan("call/") == []


async def test_a_play_that_ended_meanwhile_is_over(here: World) -> None:
    await begin(here)
    here.media.holds = True
    _, call = await here.up("<Say>one</Say><Say>two</Say>")
    await until(lambda: here.media.plays() == [["one"]])
    await lose(here)
    play = here.media.playing.pop(call.sid)
    ended = protocol.Played(leg=call.sid, play=play.play)
    await go_on(here, missed=lambda: here.media.tell(call.sid, ended))
    await until(lambda: here.media.plays() == [["one"], ["two"]])


async def test_keys_pressed_before_and_meanwhile_are_gathered(here: World) -> None:
    await begin(here)
    here.media.holds = True
    here.app.answers("/done", "<Pause length='9'/>")
    _, call = await here.up("<Gather numDigits='3' action='/done'><Say>press</Say></Gather>")
    await until(lambda: here.media.plays() == [["press"]])
    here.media.press(call.sid, "1")
    await until(lambda: not here.media.playing)
    await lose(here)
    await go_on(here, missed=lambda: here.media.press(call.sid, "2"))
    await asyncio.sleep(0.02)
    here.media.press(call.sid, "3")
    (params,) = await until(lambda: here.app.asked("/done"))
    assert params["Digits"] == "123"
    assert here.media.plays() == [["press"]]


async def test_a_pause_lasts_as_long_as_it_would_have(here: World) -> None:
    await begin(here)
    caller, call = await here.up("<Say>one</Say><Pause length='60'/>")
    key = checkpoints.key(call.sid, checkpoints.POSITION)
    await until(lambda: here.memory._live(key) and b"until_ms" in here.memory._live(key))
    await lose(here)
    position = Position(verb=1, state={"until_ms": SystemClock().now_ms() + 100})
    checkpoints.put(here.memory, key, position)
    await go_on(here)
    await caller.ended()


async def test_a_live_update_that_had_not_begun_is_followed(here: World) -> None:
    await begin(here)
    _, call = await here.up("<Gather timeout='60'/><Say>next</Say><Pause length='60'/>")
    here.app.hold.clear()
    call.redirect(url=f"{here.app.url}/slow", method="POST")
    await until(lambda: here.app.asked("/slow"))
    await lose(here)
    here.app.answers("/slow", "<Say>updated</Say><Pause length='60'/>")
    here.app.hold.set()
    await go_on(here)
    await until(lambda: ["updated"] in here.media.plays())
    assert call.redirect(twiml="") is False
    assert here.call.redirect(twiml="<Response><Say>again</Say></Response>")
    await until(lambda: ["again"] in here.media.plays())


async def test_a_call_that_rings_is_taken_up_with_the_same_sid(here: World) -> None:
    await begin(here)
    here.number.voice_url = f"{here.app.url}/slow"
    here.app.hold.clear()
    caller = here.phone.dials()
    await until(lambda: here.app.asked("/slow") and 180 in caller.progress)
    sid = here.call.sid
    await lose(here)
    here.app.answers("/slow", "<Say>late</Say><Pause length='60'/>")
    here.app.hold.set()
    await go_on(here)
    await caller.answered()
    assert here.call.sid == sid
    assert {params["CallSid"] for params in here.app.asked("/slow")} == {sid}
    assert here.inbound.counters == {"taken-up": 1}


async def test_a_caller_who_rings_hears_503_when_there_is_no_port(here: World) -> None:
    await begin(here)
    here.number.voice_url = f"{here.app.url}/slow"
    here.app.hold.clear()
    caller = here.phone.dials()
    await until(lambda: here.app.asked("/slow"))
    await lose(here)
    here.media.available = False
    await go_on(here)
    await until(lambda: caller.failed == 503)
    here.app.hold.set()
    (flight,) = here.flights
    assert flight.status is Status.FAILED


async def test_what_another_run_left_has_ended_when_it_was_last_seen(here: World) -> None:
    await begin(here)
    caller, call = await here.up("<Gather timeout='60'/>")
    await lose(here)
    seen = call.record.answered_ms + 700
    here.memory.post(SEEN_KEY, str(seen).encode())
    await asyncio.sleep(0.8)
    await go_on(here, run="another")
    await caller.ended()
    assert not here.services.live
    (flight,) = here.flights
    assert (flight.status, flight.call.ended_ms) == (Status.COMPLETED, seen)


async def test_without_a_supervisor_nothing_goes_on(here: World) -> None:
    caller, _ = await here.up("<Gather timeout='60'/>")
    await lose(here)
    await go_on(here, run="")
    await caller.ended()
    assert not here.services.live


async def test_a_leg_that_the_media_process_does_not_know_is_opened_again(here: World) -> None:
    await begin(here)
    _, call = await here.up("<Gather timeout='60'/>")
    (opened,) = here.media.of(protocol.Open)
    await lose(here)
    here.media.commands.clear()
    taken = await go_on(here)
    (again,) = here.media.of(protocol.Open)
    assert (again.leg, again.slot, again.remote) == (call.sid, opened.slot, opened.remote)
    assert taken.recorded == set()


async def test_legs_that_no_call_claims_are_closed_after_a_while(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "GRACE_S", 0.05)
    await begin(here)
    _, call = await here.up("<Gather timeout='60'/>")
    await lose(here)
    here.media.commands.append(protocol.Open(leg="CAstray", slot=7))
    await go_on(here)
    (closed,) = await until(lambda: here.media.of(protocol.Close))
    assert closed.leg == "CAstray"
    assert here.call.sid == call.sid


async def test_a_checkpoint_that_cannot_be_read_ends_the_call(here: World) -> None:
    await begin(here)
    _, call = await here.up("<Gather timeout='60'/>")
    await lose(here)
    here.memory.post(checkpoints.key(call.sid, LEG), b"\xc1")
    await go_on(here)
    assert not here.services.live
    (flight,) = here.flights
    assert flight.status is Status.COMPLETED
    assert await here.memory.scan("call/") == []


async def test_a_call_whose_answer_was_not_stored_is_answered_all_the_same(here: World) -> None:
    await begin(here)
    _, call = await here.up("<Gather timeout='60'/>")
    await lose(here)
    stored, _ = await here.queue.get(ACCOUNT, call.sid)  # type: ignore[misc]
    flight = here.flights.adopt(stored)
    flight.status, flight.call.answered_ms = Status.RINGING, 0
    await go_on(here)
    assert here.call.record.answered_ms
    assert (flight.status, flight.call.to) == (Status.IN_PROGRESS, NUMBER)


# -- calls that we placed --------------------------------------------------------------------------------------


async def next_process(lines: Any) -> Recovery:
    """The process of `lines` is lost, and another one starts."""
    taken: list[Recovery] = []

    async def before() -> Any:
        taken.append(Recovery(lines.services, lines.stack, lines.inbound, RUN))
        await taken[0].read()
        return taken[0].adopted

    lines.memory.post(recovery.RUN_KEY, RUN.encode())
    await lines.crash(before)
    taken[0].greeted([LegState(leg=sid, slot=one.audio.slot) for sid, one in lines.services.live.items()])
    taken[0].resume()
    return taken[0]


async def test_a_call_that_came_in_counts_for_its_trunk(make_lines: Any) -> None:
    lines = await make_lines(trunks=(replace_struct(TRUNKS[0], inbound_calls_at_once=1),))
    lines.web.pages[APP + "in"] = "<Say>hello</Say><Pause length='60'/>"
    lines.phone.dials(OURS)
    await lines.until((await lines.the_call()).sid, "in-progress")
    await next_process(lines)
    lines.phone.dials(OURS)
    await eventually(lambda: lines.phone.failure)
    assert lines.phone.failure == 503
    lines.phone.hangs_up()
    await eventually(lambda: not lines.services.live)
    assert lines.inbound.doors.has_room(lines.trunk_settings[0])


async def test_a_call_counts_for_its_gateway(make_lines: Any) -> None:
    trunk = replace_struct(TRUNKS[0], gateways=(Gateway(uri="sip:127.0.0.2:5060", calls_at_once=1),))
    lines = await make_lines(trunks=(trunk,))
    sid = await lines.create("<Gather timeout='60'/>")
    await lines.until(sid, "in-progress")
    await next_process(lines)
    assert lines.trunks.gate(trunk, "127.0.0.2").running == 1
    lines.phone.hangs_up()
    await lines.until(sid, "completed")
    assert lines.trunks.gate(trunk, "127.0.0.2").running == 0


async def test_a_call_of_the_api_goes_on_and_counts(lines: Any) -> None:
    sid = await lines.create("<Gather timeout='60'/>", time_limit_s=600)
    await lines.until(sid, "in-progress")
    await next_process(lines)
    live = lines.services.live[sid]
    assert live.session is not None
    assert lines.outbound.limits.of(live.account.sid).running == 1
    assert lines.trunks.limit(live.trunk).running == 1
    left_s = live._timer.when() - asyncio.get_running_loop().time()
    assert 590 < left_s <= 600
    lines.phone.hangs_up()
    await lines.until(sid, "completed")
    assert lines.outbound.limits.of(live.account.sid).running == 0
    assert lines.trunks.limit(live.trunk).running == 0


async def test_what_rang_at_the_far_end_is_cancelled_and_fails(lines: Any) -> None:
    lines.phone.plan = lines.phone.rings
    sid = await lines.create()
    await lines.until(sid, "ringing")
    await next_process(lines)
    await lines.until(sid, "failed")
    await until(lambda: lines.phone.cancels)


async def test_a_callee_who_was_not_connected_yet_is_hung_up_on(lines: Any) -> None:
    lines.web.pages["http://app.example/ask"] = "<Gather timeout='60'/>"
    sid = await lines.create("<Dial><Number url='http://app.example/ask'>+14155550177</Number></Dial>")
    await until(lambda: len(lines.services.live) == 2 and all(one.is_up for one in lines.services.live.values()))
    (child,) = set(lines.services.live) - {sid}
    await lines.until(child, "in-progress")
    await next_process(lines)
    await lines.until(child, "completed")
    await until(lambda: len(lines.phone.invites) == 3)  # and called again


async def test_legs_that_a_new_memory_does_not_have_are_over(here: World) -> None:
    epoch = 1
    taken = Recovery(here.services, here.stack, here.inbound, RUN, lambda: epoch)
    caller, _ = await here.up("<Gather timeout='60'/>")
    taken.greeted(legs(here))
    assert here.services.live
    epoch = 2
    taken.greeted([])
    await caller.ended()
    assert (await here.landed()).hangup_cause == "media-lost"
