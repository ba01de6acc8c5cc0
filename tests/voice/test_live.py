"""One leg: hold, late offer, keys, limits, silence, endings from either side."""

import asyncio

import msgspec

from tests.voice.world import World, until, world
from trunkline.media import protocol
from trunkline.model.call import Status
from trunkline.settings import MediaEngine, Voice
from trunkline.sip import offer_answer
from trunkline.sip.offer_answer import Local
from trunkline.voice.checkpoints import LEG, LegCheckpoint, key

LONG = "<Say>x</Say><Pause length='600'/>"


async def reinvited(caller, sdp: bytes) -> tuple[int, bytes]:
    answers: list[tuple[int, bytes]] = []
    caller.dialog.reinvite(sdp, lambda status, body: answers.append((status, body)))
    await until(lambda: answers, "the answer")
    return answers[0]


async def test_hold_and_back(here: World) -> None:
    caller, call = await here.up(LONG)
    held = Local(address="127.0.0.9", port=40_000, session_id=1, version=2, direction="sendonly")
    status, sdp = await reinvited(caller, offer_answer.offer(held))
    assert status == 200
    assert b"a=recvonly" in sdp
    assert here.media.of(protocol.Modify)[-1].direction == "recvonly"
    version = int(sdp.split(b"o=")[1].split(b" ")[2])
    again, same = await reinvited(caller, offer_answer.offer(held))
    assert (again, same) == (200, sdp), "nothing changed, so nothing changes"
    status, sdp = await reinvited(caller, offer_answer.offer(here.phone.local))
    assert here.media.of(protocol.Modify)[-1].direction == "sendrecv"
    assert int(sdp.split(b"o=")[1].split(b" ")[2]) == version + 1
    assert call.is_up


async def test_a_reinvite_that_asks_for_an_offer(here: World) -> None:
    caller, call = await here.up(LONG)
    moved = Local(address="127.0.0.9", port=41_000, session_id=1, version=2)
    status, sdp = await reinvited(caller, b"")
    assert status == 200
    assert b"m=audio" in sdp
    caller.dialog.ack(offer_answer.answer(sdp, moved).sdp)
    await until(lambda: here.media.of(protocol.Modify), "the change")
    assert here.media.of(protocol.Modify)[-1].remote == ("127.0.0.9", 41_000)
    assert call.is_up


async def test_a_reinvite_without_a_common_codec_changes_nothing(here: World) -> None:
    caller, call = await here.up(LONG)
    sdp = offer_answer.offer(here.phone.local).replace(b"RTP/AVP 0 8", b"RTP/AVP 18 9")
    status, _ = await reinvited(caller, sdp)
    assert status == 488
    assert here.media.of(protocol.Modify) == []
    assert call.is_up


async def test_a_late_offer(here: World) -> None:
    here.phone.offers = False
    _, call = await here.up(LONG)
    assert here.media.of(protocol.Open)[0].remote is None
    await until(lambda: here.media.of(protocol.Modify), "the answer in the ACK")
    modify = here.media.of(protocol.Modify)[0]
    assert (modify.remote, modify.codec) == (("127.0.0.9", 40_000), "PCMU")
    assert call.negotiated is not None


async def test_where_audio_goes_and_that_it_comes_is_noted(here: World) -> None:
    caller, call = await here.up(LONG)
    here.media.tell(call.sid, protocol.Flowing(leg=call.sid))
    caller.hangs_up()
    stored = await here.landed()
    media = [entry.what for entry in stored.timeline if entry.kind == "media"]
    assert call.local is not None
    assert media[0] == f"PCMU sendrecv, ours 127.0.0.1:{call.local.port}, theirs 127.0.0.9:40000"
    assert media[1] == "their audio comes"


async def test_silence_ends_the_call(here: World) -> None:
    caller, call = await here.up(LONG)
    here.media.tell(call.sid, protocol.TimedOut(leg=call.sid))
    await caller.ended()
    assert caller.bye is not None
    stored = await here.landed()
    assert (stored.status, stored.hangup_cause) == ("completed", "rtp-timeout")
    assert here.alerts.codes == [32014]


async def test_the_silence_that_is_waited_for(tmp_path) -> None:
    async with world(tmp_path, media=MediaEngine(rtp_timeout_s=7)) as here:
        await here.up(LONG)
        assert here.media.of(protocol.Open)[0].rtp_timeout_ms == 7000


async def test_the_time_limit(tmp_path) -> None:
    async with world(tmp_path, voice=Voice(time_limit_s=1)) as here:
        began = asyncio.get_running_loop().time()
        caller, _ = await here.up(LONG)
        await caller.ended()
        assert asyncio.get_running_loop().time() - began < 2
        stored = await here.landed()
        assert (stored.status, stored.hangup_cause) == ("completed", "time-limit")
        assert 950 <= stored.ended_ms - stored.answered_ms < 1500
        assert here.alerts.codes == [32015]


async def test_a_time_limit_set_later(here: World) -> None:
    caller, call = await here.up(LONG)
    call.set_time_limit(0)
    call.record.time_limit_s = 1
    call.set_time_limit(1)
    await caller.ended()
    assert (await here.landed()).hangup_cause == "time-limit"
    assert here.alerts.codes == []


async def test_a_media_process_that_cannot(here: World) -> None:
    caller, call = await here.up(LONG)
    here.media.tell(call.sid, protocol.Refused(command=1, what="open", leg=call.sid, reason="no such slot"))
    await caller.ended()
    stored = await here.landed()
    assert (stored.status, stored.hangup_cause) == ("failed", "media-failure")


async def test_numbers_that_never_come_do_not_hold_the_end_up(here: World, monkeypatch) -> None:
    monkeypatch.setattr("trunkline.voice.live.CLOSED_WAIT_S", 0.1)
    caller, _ = await here.up(LONG)
    here.media.watchers.clear()
    caller.hangs_up()
    stored = await here.landed()
    assert stored.status == "completed"
    assert stored.quality.codec == "PCMU"
    assert here.services.live == {}


async def test_why_the_other_side_hung_up_is_noted(here: World) -> None:
    caller, _ = await here.up(LONG)
    caller.hangs_up(("Reason", 'Q.850;cause=16;text="bye"'))
    stored = await here.landed()
    assert 'Reason: Q.850;cause=16;text="bye"' in [entry.what for entry in stored.timeline]


async def test_the_end_is_told_once_to_each(here: World) -> None:
    caller, call = await here.up(LONG)
    told: list[str] = []
    forgotten = lambda one: told.append("forgotten")  # noqa: E731
    call.on_end(lambda one: told.append(one.status))
    call.on_end(forgotten)
    call.on_end(lambda one: 1 / 0)
    call.on_end(lambda one: told.append("last"))
    call.forget_end(forgotten)
    call.hangup("api")
    call.hangup("api", end=Status.FAILED)
    assert told == [Status.COMPLETED, "last"]
    call.on_end(lambda one: told.append("late"))
    assert told[-1] == "late"
    assert call.ended.is_set()
    await caller.ended()


async def test_a_key_heard_twice_counts_once(here: World) -> None:
    caller, call = await here.up(LONG)
    here.media.press(call.sid, "1")
    caller.dialog.info("application/dtmf-relay", b"Signal=1\r\n")
    await asyncio.sleep(0.02)
    assert list(call.digits) == ["1"]


async def test_keys_that_nobody_wants_are_bounded(here: World) -> None:
    _, call = await here.up(LONG)
    here.media.press(call.sid, "12345" * 100)
    assert len(call.digits) == 100


async def test_recordings_hear_of_their_audio_after_the_call(here: World) -> None:
    heard: list[object] = []

    class Recordings:
        def event(self, event):
            heard.append(event)

        def of_call(self, sid):
            return [object()]

    here.services.recordings = Recordings()  # type: ignore[assignment]
    caller, call = await here.up(LONG)
    caller.hangs_up()
    await here.landed()
    await until(lambda: not here.services.live, "the end")
    here.media.tell(call.sid, protocol.Recorded(recording="RE1", leg=call.sid))
    assert [type(event).__name__ for event in heard] == ["Recorded"]


async def test_what_is_answered_can_be_gone_on_with_before_the_caller_knows(here: World) -> None:
    stored: list[bool] = []
    send = here.stack._send

    def watch(data: bytes, flow) -> bool:
        if data.startswith(b"SIP/2.0 200") and b"INVITE" in data:
            (call,) = here.services.live.values()
            written = here.memory._entries.get(key(call.sid, LEG))
            leg = msgspec.msgpack.decode(written[0], type=LegCheckpoint)
            stored.append(leg.dialog is not None and leg.negotiated is not None and not call.flight.pending)
        return send(data, flow)

    here.stack._send = watch
    await here.up(LONG)
    assert stored == [True]
