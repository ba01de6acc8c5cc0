"""A host is lost with calls up; another one has their flights and checkpoints, and goes on."""

import asyncio

import msgspec
import pytest

from tests.voice.hosts import HEIR
from tests.voice.lines import AC, APP, CARRIER, NODE, OTHER, THEM, TRUNKS
from trunkline.media import protocol
from trunkline.model.call import Status
from trunkline.sip import offer_answer
from trunkline.sip import sdp as descriptions
from trunkline.sip.errors import NotAcceptable
from trunkline.sip.flow import Flow
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice import checkpoints, securing, takeover
from trunkline.voice.checkpoints import LegCheckpoint
from trunkline.voice.takeover import LOST

from ..messaging.world import eventually


def plays(node):
    return node.media.of(protocol.Play)


async def change_leg(hosts, sid, change):
    """Change what is stored of a leg."""
    name = checkpoints.key(sid, checkpoints.LEG)
    leg = msgspec.msgpack.decode(await hosts.heir.memory.get(name), type=LegCheckpoint)
    checkpoints.put(hosts.heir.memory, name, change(leg))


# -- sessions go on --------------------------------------------------------------------------------------------


async def test_a_prompt_goes_on_where_its_peer_last_heard_it(hosts):
    (call,) = await hosts.calls("<Say>one</Say><Say>two</Say>")
    (first,) = await eventually(lambda: plays(hosts.lost))
    await hosts.die()
    hosts.lost.clock.offset_ms += 4_000  # it is heard for three seconds, then it takes one to notice
    report = await hosts.goes_on(lost_ms=hosts.heir.clock.now_ms() - 1_000)
    (opened,) = hosts.heir.media.of(protocol.Open)
    (again,) = await eventually(lambda: plays(hosts.heir))
    assert (report.legs, report.reached, report.gone) == (1, 1, 0)
    assert (opened.leg, opened.remote) == (call.sid, (CARRIER[0], 30_000))
    assert (again.leg, again.start_item, again.loop) == (call.sid, 0, 1)
    assert 2_900 < again.start_ms < 3_500
    assert again.play != first.play
    (offer,) = hosts.phone.offers
    described = descriptions.parse(offer)
    assert f"IN IP4 {HEIR[0]}" in offer.decode()
    assert described.version == 2
    assert HEIR[0] in hosts.phone.dialogs[0].remote_target
    hosts.heir.media.tell(protocol.Played(leg=call.sid, play=again.play))
    await eventually(lambda: len(plays(hosts.heir)) == 2)
    assert plays(hosts.heir)[1].start_ms == 0
    hosts.phone.hangs_up()
    stored = await hosts.heir.until(call.sid, "completed")
    assert stored.hangup_cause == "caller"
    assert await hosts.heir.memory.scan("call/") == []


async def test_a_prompt_that_was_over_is_not_said_again(hosts):
    (call,) = await hosts.calls("<Say>one</Say><Say>two</Say>")
    await eventually(lambda: plays(hosts.lost))
    await hosts.die()
    hosts.lost.clock.offset_ms += 12_000
    await hosts.goes_on()
    (second,) = await eventually(lambda: plays(hosts.heir))
    assert (second.leg, second.start_ms) == (call.sid, 0)
    assert hosts.call().session.position.verb == 1


async def test_the_second_time_a_prompt_is_said_goes_on_as_that(hosts):
    await hosts.calls("<Say loop='3'>one</Say>")
    await eventually(lambda: plays(hosts.lost))
    await hosts.die()
    hosts.lost.clock.offset_ms += 14_000
    await hosts.goes_on()
    (again,) = await eventually(lambda: plays(hosts.heir))
    assert 3_900 < again.start_ms < 4_500
    assert again.loop == 2


async def test_keys_pressed_before_are_gathered(hosts):
    (call,) = await hosts.calls(f"<Gather numDigits='3' action='{APP}done'><Say>press</Say></Gather>")
    await eventually(lambda: plays(hosts.lost))
    hosts.lost.media.tell(protocol.Digit(leg=call.sid, digit="1"))
    await asyncio.sleep(0.02)
    await hosts.die()
    await hosts.goes_on()
    for digit in "23":
        hosts.heir.media.tell(protocol.Digit(leg=call.sid, digit=digit))
    hosts.heir.web.pages[APP + "done"] = "<Gather timeout='60'/>"
    (params,) = await eventually(lambda: hosts.heir.web.params(APP + "done"))
    assert (params["Digits"], params["CallSid"]) == ("123", call.sid)
    assert plays(hosts.heir) == []  # the key had ended the prompt


async def test_both_legs_of_a_dial_are_connected_here(hosts):
    (call,) = await hosts.calls(f"<Dial action='{APP}after'>{OTHER}</Dial>")
    (bridged,) = await eventually(lambda: hosts.lost.media.of(protocol.Bridge))
    await hosts.die()
    report = await hosts.goes_on()
    (again,) = await eventually(lambda: hosts.heir.media.of(protocol.Bridge))
    assert (again.a, again.b) == (bridged.a, bridged.b) == (call.sid, again.b)
    assert report.reached == 2
    sent = hosts.heir.media.sent
    opens = [at for at, one in enumerate(sent) if isinstance(one, protocol.Open)]
    assert max(opens) < sent.index(again)
    assert {one.slot for one in hosts.heir.media.of(protocol.Open)} == {1, 2}
    hosts.phone.dialogs[-1].bye()  # the callee
    (params,) = await eventually(lambda: hosts.heir.web.params(APP + "after"))
    assert (params["DialCallStatus"], params["DialCallSid"], params["DialBridged"]) == ("completed", again.b, "true")


async def test_a_peer_on_hold_stays_so(hosts):
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    hosts.phone.held = True
    held = hosts.phone.dialogs[0]
    offer = descriptions_of(hosts.phone, "sendonly")
    done = asyncio.get_running_loop().create_future()
    held.reinvite(offer, lambda status, answer: done.set_result(status))
    assert await done == 200
    assert call.negotiated.direction == "recvonly"
    await hosts.die()
    await hosts.goes_on()
    (opened,) = hosts.heir.media.of(protocol.Open)
    assert opened.direction == "recvonly"
    assert hosts.call().negotiated.held


def descriptions_of(phone, direction):
    """An offer of a phone."""
    fields = {name: getattr(phone.local, name) for name in phone.local.__struct_fields__}
    return offer_answer.offer(offer_answer.Local(**{**fields, "direction": direction, "version": 2}))


async def test_a_recording_ends_with_its_host_where_nobody_goes_on_with_it(hosts):
    (call,) = await hosts.calls(f"<Record action='{APP}recorded'/><Say>next</Say>")
    await eventually(lambda: hosts.lost.media.recording)
    await hosts.lost.recordings.close()
    await hosts.die()
    await hosts.goes_on()
    await eventually(lambda: plays(hosts.heir))
    (row,) = await eventually_rows(hosts, call.sid, "failed")
    assert row.error_code == 31000
    assert hosts.heir.web.params(APP + "recorded") == []


async def eventually_rows(hosts, sid, status):
    async def look():
        rows = await hosts.heir.recordings_of(sid)
        return rows if rows and all(row.status == status for row in rows) else None

    return await eventually(look)


@pytest.mark.parametrize("away", [0, 3], ids=["", "the database that knows it is lost with the host for a while"])
async def test_a_recording_goes_on_before_its_verb_does(hosts, away, monkeypatch):
    went_on = []
    monkeypatch.setattr(takeover, "RECORDS_LOOK_S", 0.01)
    tries = iter([StoreUnavailable("no primary")] * away)
    open_of = hosts.heir.recordings.open_of

    async def looked_for(call_sids):
        for error in tries:
            raise error
        return await open_of(call_sids)

    monkeypatch.setattr(hosts.heir.recordings, "open_of", looked_for)

    class Continues:
        async def continue_recording(self, call, sid, lost_ms):
            went_on.append((call.sid, sid, lost_ms))
            (row,) = await hosts.heir.recordings_of(call.sid)
            hosts.heir.recordings._adopt(row)
            return True

    hosts.lost.recordings.memory = None  # the database alone knows it, as of a node of the release before
    (call,) = await hosts.calls(f"<Record action='{APP}recorded'/>")
    (sid,) = await eventually(lambda: list(hosts.lost.media.recording))
    await hosts.lost.recordings.close()
    await hosts.die()
    hosts.takeover.recordings = Continues()
    lost_ms = hosts.heir.clock.now_ms() - 1
    await hosts.goes_on(lost_ms=lost_ms)
    await eventually(lambda: went_on)
    assert went_on == [(call.sid, sid, lost_ms)]
    running = await eventually(lambda: hosts.heir.recordings.running(sid))
    file = hosts.heir.folder / "heard.wav"
    file.write_bytes(b"RIFF")
    await asyncio.sleep(0.01)
    hosts.heir.recordings.event(
        protocol.Recorded(recording=sid, leg=call.sid, duration_ms=900, file=str(file), voiced_ms=500, digit="#")
    )
    await asyncio.wait_for(running.finished, 60)
    (params,) = await eventually(lambda: hosts.heir.web.params(APP + "recorded"))
    assert (params["RecordingSid"], params["Digits"]) == (sid, "#")


# -- what is new on the wire -----------------------------------------------------------------------------------


async def test_srtp_gets_new_keys(make_hosts):
    hosts = await make_hosts(trunks=(msgspec.structs.replace(TRUNKS[0], srtp="required"),))
    for node in (hosts.lost, hosts.heir):
        node.services.settings = msgspec.structs.replace(
            node.settings, sip=msgspec.structs.replace(node.settings.sip, srtp_without_tls=True)
        )
    hosts.phone.local = msgspec.structs.replace(hosts.phone.local, srtp="required", srtp_keys=securing.keys("required"))
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    (before,) = hosts.lost.media.of(protocol.Open)
    await hosts.die()
    await hosts.goes_on()
    (after,) = hosts.heir.media.of(protocol.Open)
    assert after.srtp.suite == before.srtp.suite
    assert after.srtp.theirs == before.srtp.theirs
    assert after.srtp.ours != before.srtp.ours
    assert after.srtp.ours.encode() in hosts.phone.offers[0]
    assert before.srtp.ours.encode() not in hosts.phone.offers[0]
    assert hosts.call(call.sid).negotiated.srtp.ours == after.srtp.ours


async def test_sequence_numbers_leave_a_gap_that_grows_with_the_call(hosts):
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    before = call.dialog.state().local_cseq
    await hosts.die()
    hosts.lost.clock.offset_ms += 7_200_000
    await hosts.goes_on()
    heard = hosts.phone.dialogs[0].state().remote_cseq
    assert heard > before + 7_200
    stored = await hosts.heir.memory.get(checkpoints.key(call.sid, checkpoints.LEG))
    assert msgspec.msgpack.decode(stored, type=LegCheckpoint).dialog.local_cseq >= heard


async def test_the_session_timer_goes_on(make_hosts):
    hosts = await make_hosts()
    (call,) = await hosts.calls("<Gather timeout='60'/>", headers=[("Session-Expires", "200;refresher=uas")])
    assert call.dialog.state().session_s == 200
    await hosts.die()
    await hosts.goes_on()
    state = hosts.call(call.sid).dialog.state()
    assert (state.session_s, state.we_refresh) == (200, True)


async def test_the_api_s_call_goes_on_with_a_login_and_counts(hosts):
    sid = await hosts.lost.create("<Gather timeout='60'/>", time_limit_s=600)
    await hosts.lost.until(sid, "in-progress")
    await hosts.die()
    await hosts.goes_on()
    live = hosts.call(sid)
    assert live.session is not None
    assert hosts.heir.outbound.limits.of(live.account.sid).running == 1
    assert live.dialog.is_caller
    hosts.phone.dialogs[-1].bye()
    await hosts.heir.until(sid, "completed")
    assert hosts.heir.outbound.limits.of(live.account.sid).running == 0
    assert [event["CallStatus"] for event in hosts.heir.events(sid)] == ["completed"]


async def test_a_200_that_may_have_been_lost_is_repeated_with_our_address(hosts):
    """The caller has not heard the 200, the store has: it is answered all the same."""
    sent = []
    stack = hosts.lost.stack
    transmit = stack._send

    def lossy(data, flow):
        if data.startswith(b"SIP/2.0 200") and b"INVITE" in data:
            sent.append(data)
            return True
        return transmit(data, flow)

    stack._send = lossy
    hosts.lost.web.pages[APP + "in"] = "<Gather timeout='60'/>"
    hosts.phone.dials("+12025550100")
    await eventually(lambda: sent)
    (call,) = hosts.lost.services.live.values()
    await eventually(lambda: call.is_up)
    await hosts.die()
    report = await hosts.goes_on()
    assert (report.reached, report.gone) == (1, 0)
    (dialog,) = hosts.phone.dialogs
    assert HEIR[0] in dialog.remote_target
    assert hosts.call(call.sid).is_up


async def test_the_ack_of_a_callee_s_200_is_repeated(hosts):
    acks = []
    transmit = hosts.lost.stack._send
    hosts.lost.stack._send = lambda data, flow: data.startswith(b"ACK") or transmit(data, flow)
    sid = await hosts.lost.create("<Pause length='60'/>")
    await hosts.lost.until(sid, "in-progress")
    hosts.phone.on_ack = acks.append
    await hosts.die()
    assert acks == []
    report = await hosts.goes_on()
    assert report.reached == 1
    assert len(acks) == 2  # of the INVITE, and of the re-INVITE


# -- what peers may say ----------------------------------------------------------------------------------------


async def test_a_peer_whose_own_change_is_under_way_is_asked_again(hosts):
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    await hosts.die()
    dialog = hosts.phone.dialogs[0]
    dialog.reinvite(descriptions_of(hosts.phone, "sendrecv"), lambda *_: None)  # to a host that is gone
    assert dialog.offering
    tokens = hosts.heir.stack.token
    hosts.heir.stack.token = lambda: f"4000{tokens()}"  # half a second
    report = await hosts.takeover.take_over({call.sid})
    await asyncio.sleep(0.1)
    assert not report.settled.is_set()  # 491
    dialog._reinvite = None  # its transaction ends
    await asyncio.wait_for(report.settled.wait(), 60)
    assert (report.reached, report.gone) == (1, 0)


async def test_a_bye_that_was_lost_in_the_gap_is_found(hosts):
    (call,) = await hosts.calls(f"<Dial action='{APP}after'>{OTHER}</Dial>")
    await eventually(lambda: hosts.lost.media.of(protocol.Bridge))
    caller = next(one for one in hosts.phone.dialogs if one.is_caller)
    await hosts.die()
    caller.abandon()  # it hung up, and nobody heard it
    lost_ms = hosts.heir.clock.now_ms() - 900
    report = await hosts.goes_on(lost_ms=lost_ms)
    assert (report.reached, report.gone) == (1, 1)
    stored = await hosts.heir.until(call.sid, "completed")
    assert stored.ended_ms == max(lost_ms, call.record.answered_ms)
    (child,) = await hosts.heir.children(call.sid)
    await hosts.heir.until(child.sid, "completed")
    (params,) = await eventually(lambda: hosts.heir.web.params(APP + "after"))
    assert params["DialCallSid"] == child.sid
    assert hosts.heir.media.of(protocol.Bridge) == []


async def test_a_callee_who_has_gone_lets_the_caller_go_on(hosts):
    (call,) = await hosts.calls(f"<Dial action='{APP}after'>{OTHER}</Dial>")
    await eventually(lambda: hosts.lost.media.of(protocol.Bridge))
    hosts.heir.web.pages[APP + "after"] = "<Say>after</Say>"
    callee = next(one for one in hosts.phone.dialogs if not one.is_caller)
    await hosts.die()
    callee.abandon()
    await hosts.goes_on()
    (params,) = await eventually(lambda: hosts.heir.web.params(APP + "after"))
    assert (params["DialCallStatus"], params["CallSid"]) == ("completed", call.sid)
    await eventually(lambda: plays(hosts.heir))
    assert hosts.call(call.sid).is_up


async def test_a_caller_who_hangs_up_before_all_are_reached_takes_the_callee_with_him(hosts):
    (call,) = await hosts.calls(f"<Dial action='{APP}after'>{OTHER}</Dial>")
    await eventually(lambda: hosts.lost.media.of(protocol.Bridge))
    await hosts.die()
    report = await hosts.takeover.take_over(lambda sid: True)
    hosts.call(call.sid).hangup("caller")
    await asyncio.wait_for(report.settled.wait(), 5)
    assert (report.reached, report.gone) == (1, 1)
    (params,) = await eventually(lambda: hosts.heir.web.params(APP + "after"))
    assert (params["DialCallStatus"], params["CallStatus"]) == ("completed", "completed")
    assert params["DialBridged"] == "true"
    await eventually(lambda: not hosts.heir.services.live)
    assert len(hosts.phone.byes) == 2


@pytest.mark.parametrize("how", ["before the loss was noticed", "before their host knew that they have followed"])
async def test_where_both_parties_have_hung_up_meanwhile_the_application_is_told(hosts, how):
    (call,) = await hosts.calls(f"<Dial action='{APP}after'>{OTHER}</Dial>")
    await eventually(lambda: hosts.lost.media.of(protocol.Bridge))
    (child,) = await hosts.lost.children(call.sid)
    await hosts.die()
    if how.startswith("before the loss"):
        for dialog in hosts.phone.dialogs:
            dialog.abandon()
        await hosts.goes_on()
    else:
        report = await hosts.takeover.take_over(lambda sid: True)
        for live in list(hosts.heir.services.live.values()):
            live.hangup("caller")
        await asyncio.wait_for(report.settled.wait(), 5)
    (params,) = await eventually(lambda: hosts.heir.web.params(APP + "after"))
    told = [params[name] for name in ("DialCallStatus", "DialCallSid", "DialBridged", "CallStatus")]
    assert told == ["completed", child.sid, "true", "completed"]


async def test_a_peer_that_is_silent_ends_the_call(hosts, monkeypatch):
    monkeypatch.setattr(takeover, "PATIENCE_S", 0.2)
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    await hosts.die()
    hosts.net.stacks.pop(CARRIER)
    lost_ms = hosts.heir.clock.now_ms()
    await hosts.goes_on(lost_ms=lost_ms)
    stored = await hosts.heir.until(call.sid, "completed")
    assert (stored.ended_ms, stored.hangup_cause) == (lost_ms, LOST)


@pytest.mark.parametrize("status", [403, 488])
async def test_a_peer_that_refuses_ends_the_call(hosts, status):
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    await hosts.die()
    refuse(hosts.phone, [status])
    await hosts.goes_on()
    await hosts.heir.until(call.sid, "completed")
    await eventually(lambda: hosts.phone.byes)


async def test_a_peer_that_is_overloaded_is_asked_again(hosts):
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    await hosts.die()
    refuse(hosts.phone, [503])
    report = await hosts.goes_on()
    assert report.reached == 1
    assert hosts.call(call.sid).is_up


def refuse(phone, statuses):
    """Its next re-INVITEs get these."""
    usual = phone.on_reinvite

    def on_reinvite(offer):
        if statuses:
            refusal = NotAcceptable("no")
            refusal.status = statuses.pop(0)
            raise refusal
        return usual(offer)

    phone.on_reinvite = on_reinvite


async def test_who_cannot_be_reached_from_another_host_is_said_so(hosts):
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    await hosts.die()
    tcp = Flow("TCP", CARRIER, NODE, 77)

    def behind_nat(leg):
        return msgspec.structs.replace(leg, dialog=msgspec.structs.replace(leg.dialog, flow=tcp, behind_nat=True))

    await change_leg(hosts, call.sid, behind_nat)
    report = await hosts.goes_on()
    assert (report.reached, report.gone) == (0, 1)
    stored = await hosts.heir.until(call.sid, "completed")
    assert any("its connection ended with the lost host" in str(entry) for entry in stored.timeline)


async def test_a_proxy_in_the_route_reaches_them(hosts):
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    await hosts.die()

    def routed(leg):
        routes = (f"<sip:{CARRIER[0]}:{CARRIER[1]};lr>",)
        changes = {"routes": routes, "behind_nat": True, "target": "sip:phone@192.168.1.2:5060"}
        return msgspec.structs.replace(leg, dialog=msgspec.structs.replace(leg.dialog, **changes))

    await change_leg(hosts, call.sid, routed)
    report = await hosts.goes_on()
    assert (report.reached, report.gone) == (1, 0)


# -- the others ----------------------------------------------------------------------------------------------


async def test_calls_that_waited_are_placed_here(hosts):
    hosts.lost.outbound._pump = lambda account: None
    hosts.lost.outbound.reserve = lambda account, to="": False
    sid = await hosts.lost.create()
    await hosts.lost.until(sid, "queued")
    await hosts.die()
    report = await hosts.goes_on()
    assert report.queued == 1
    await hosts.heir.until(sid, "in-progress")


async def test_an_answered_call_of_which_nothing_is_stored_is_over(hosts):
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    await hosts.die()
    checkpoints.drop(hosts.heir.memory, call.sid)
    report = await hosts.goes_on()
    assert report.lost == 1
    await hosts.heir.until(call.sid, "completed")


async def test_calls_of_others_are_left_alone(hosts):
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    report = await hosts.goes_on(mine=lambda sid: False)
    assert (report.legs, report.early) == (0, 0)
    assert await hosts.heir.memory.get(checkpoints.key(call.sid, checkpoints.LEG)) is not None
    await hosts.die()


async def test_what_this_node_has_in_hand_is_left_alone(hosts):
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    hosts.takeover = takeover.Takeover(hosts.lost.services, hosts.lost.stack)
    report = await hosts.goes_on()
    assert report.legs == 0
    assert call.is_up
    assert hosts.phone.offers == []
    await hosts.die()


async def test_a_hundred_calls_are_reached(hosts):
    await hosts.calls(f"<Gather timeout='60' action='{APP}done'><Say>press</Say></Gather>", 100)
    await eventually(lambda: len(plays(hosts.lost)) == 100)
    await hosts.die()
    report = await hosts.goes_on()
    assert (report.legs, report.reached) == (100, 100)


# -- the other side --------------------------------------------------------------------------------------------


async def test_a_node_that_lost_its_lease_drops_its_calls_without_a_word(hosts):
    lost = hosts.lost
    (call,) = await hosts.calls(f"<Dial action='{APP}after'>{OTHER}</Dial>")
    await eventually(lambda: lost.media.of(protocol.Bridge))
    hosts.phone.plan = hosts.phone.rings
    ringing = await lost.create()
    await lost.until(ringing, "ringing")
    stored = await lost.memory.scan("call/")
    sent = []
    lost.stack._send = lambda data, flow: sent.append(data) or True
    zombie = takeover.Takeover(lost.services, lost.stack)
    assert zombie.let_go() == 3
    await asyncio.sleep(0.3)
    assert sent == []
    assert (lost.services.live, lost.stack.dialogs, lost.stack.calls) == ({}, 0, 0)
    assert len(lost.media.of(protocol.Close)) == 2
    assert await lost.memory.scan("call/") == stored
    assert lost.web.params(APP + "after") == []
    flight = (await lost.queue.get(AC, call.sid))[0]
    assert flight.status == Status.IN_PROGRESS
    assert list(lost.flights) == []
    lost.net.stacks.pop(NODE)
    await hosts.goes_on()
    assert hosts.call(call.sid).is_up
    await hosts.heir.until(ringing, "failed")


async def test_a_node_that_lost_its_lease_asks_no_application(hosts):
    """Its timers may all be due when it goes on after it stood still."""
    lost = hosts.lost

    class Gate:
        open = True

    lost.services.gate = gate = Gate()
    (call,) = await hosts.calls(
        f"<Gather action='{APP}done' actionOnEmptyResult='true' timeout='0'><Say>a</Say></Gather>"
    )
    (play,) = await eventually(lambda: plays(lost))
    gate.open = False
    lost.media.tell(protocol.Played(leg=call.sid, play=play.play))
    await asyncio.sleep(0.2)
    assert lost.web.params(APP + "done") == []
    gate.open = True  # it was only the store that was away
    await eventually(lambda: lost.web.params(APP + "done"))
    await hosts.die()


async def test_keys_and_numbers_of_the_called(hosts):
    """Who is called and who calls stay what they were."""
    (call,) = await hosts.calls("<Gather timeout='60'/>")
    await hosts.die()
    await hosts.goes_on()
    live = hosts.call(call.sid)
    assert (live.record.from_, live.record.to) == (THEM, "+12025550100")
    assert live.trunk.name == "carrier"
