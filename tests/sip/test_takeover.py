"""A dialog that goes on at another host: its addresses, its numbers, what is repeated, and what is let go of."""

import msgspec
import pytest

from tests.sip.link import ANSWER, OFFER, Leg, Network, Phone, pair
from trunkline.sip import takeover
from trunkline.sip.flow import Flow
from trunkline.sip.message import parse
from trunkline.sip.takeover import BEHIND_NAT, GONE, OVER_CONNECTION

HEIR = "10.0.0.7"


def up(transport="UDP"):
    """A call that is up: network, caller's phone, callee's phone, the caller."""
    network = Network()
    caller = Phone(network, "10.0.0.1", transport=transport)
    callee = Phone(network, "10.0.0.2", 5062, transport=transport)
    call = caller.call(callee)
    network.run(1)
    assert call.dialog is not None
    return network, caller, callee, call


def heir_of(network, state, age_s=0.0, stored=None):
    """Another host goes on with a dialog."""
    heir = Phone(network, HEIR)
    leg = Leg(heir)
    dialog = heir.stack.adopt(takeover.moved(stored or state, heir.stack, age_s), leg)
    return heir, dialog, leg


def reinvite(network, dialog, sdp=b"v=0 another"):
    results = []
    dialog.reinvite(sdp, lambda status, answer: results.append((status, answer)))
    network.run(2)
    return results


@pytest.mark.parametrize("side", ["caller", "callee"])
def test_the_peer_learns_of_the_new_host(side):
    network, caller, callee, call = up()
    lost, peer = (caller, callee) if side == "caller" else (callee, caller)
    state = (call.dialog if side == "caller" else callee.dialogs[0]).state()
    del network.stacks[lost.address]
    heir, dialog, leg = heir_of(network, state)
    assert reinvite(network, dialog) == [(200, ANSWER)]
    (sent,) = network.of("INVITE", heir.address)
    assert HEIR in sent.headers.get("Contact")
    assert HEIR in sent.headers.get("Via")
    assert sent.call_id == state.call_id
    theirs = callee.dialogs[0] if side == "caller" else call.dialog
    assert HEIR in theirs.remote_target
    theirs.bye()
    network.run(1)
    assert leg.heard == ["bye"]
    assert (heir.stack.dialogs, peer.stack.dialogs) == (0, 0)


def test_numbers_grow_with_the_age_of_the_call():
    network, caller, callee, call = up()
    for _ in range(150):  # refreshes that were not stored
        call.dialog.info("application/x", b"")
    network.run(2)
    stored = call.dialog.state()
    stored.local_cseq = stored.invite_cseq
    del network.stacks[caller.address]
    heir, dialog, _ = heir_of(network, call.dialog.state(), 60, stored)
    assert reinvite(network, dialog) == [(200, ANSWER)]
    (sent,) = network.of("INVITE", heir.address)
    assert sent.cseq[0] == stored.local_cseq + 60 + 100 + 1
    assert sent.cseq[0] > callee.dialogs[0].state().remote_cseq - 1


def test_a_negative_age_is_none():
    _, _, _, call = up()
    state = call.dialog.state()
    assert takeover.moved(state, call.dialog.stack, -5).local_cseq == state.local_cseq


def test_a_connection_of_the_lost_host_is_no_connection_of_ours():
    _, caller, _, call = up()
    tcp = Flow("TCP", ("10.0.0.2", 5062), ("10.0.0.1", 5060), 4711)
    state = msgspec.structs.replace(call.dialog.state(), flow=tcp, ack_flow=tcp)
    moved = takeover.moved(state, caller.stack, 0)
    assert (moved.flow.id, moved.ack_flow.id) == (GONE, GONE)
    assert moved.flow.remote == ("10.0.0.2", 5062)
    assert (moved.answer, moved.answer_flow) == (b"", None)


def test_over_tcp_another_connection_is_made_to_the_remote_target():
    network, caller, callee, call = up("TCP")
    state = msgspec.structs.replace(
        call.dialog.state(), flow=Flow("TCP", callee.address, caller.address, 4711), target="sip:bob@10.0.0.2:5062"
    )
    del network.stacks[caller.address]
    heir = Phone(network, HEIR, transport="TCP")
    flows = []
    send = heir.stack._send

    def sends(data, flow):
        flows.append(flow)
        return flow.id == 0 and send(data, flow)  # no connection of another host's stands here

    heir.stack._send = sends
    dialog = heir.stack.adopt(takeover.moved(state, heir.stack, 0), Leg(heir))
    assert reinvite(network, dialog) == [(200, ANSWER)]
    assert [flow.id for flow in flows][:2] == [GONE, 0]


def test_a_2xx_that_was_lost_is_repeated_as_ours():
    network, caller, callee = pair()
    network.fate = lambda data, source, destination: [] if data.startswith(b"SIP/2.0 200") else [0.01]
    call = caller.call(callee)
    network.run(0.1)
    stored = callee.dialogs[0].state()
    assert stored.answer
    assert call.dialog is None
    del network.stacks[callee.address]
    network.fate = lambda data, source, destination: [0.01]
    heir, dialog, leg = heir_of(network, stored)
    takeover.repeat_answer(heir.stack, stored, b"v=0 ours")
    results = reinvite(network, dialog)
    assert call.sdp == b"v=0 ours"
    assert HEIR in call.dialog.remote_target
    assert results == [(200, ANSWER)]
    (answered,) = [one for one in network.of(200, heir.address) if one.cseq[1] == "INVITE"]
    assert answered.to_tag == stored.local_tag
    assert leg.heard == []


def test_a_2xx_that_was_acknowledged_is_not():
    network, _, callee, _ = up()
    sent = len(network.log)
    takeover.repeat_answer(callee.stack, callee.dialogs[0].state(), b"v=0 ours")
    assert len(network.log) == sent


def test_an_ack_that_was_lost_is_repeated():
    network, caller, callee = pair()
    network.fate = lambda data, source, destination: [] if data.startswith(b"ACK") else [0.01]
    call = caller.call(callee)
    network.run(0.2)
    state = call.dialog.state()
    del network.stacks[caller.address]
    network.fate = lambda data, source, destination: [0.01]
    _, dialog, _ = heir_of(network, state)
    takeover.repeat_ack(dialog)
    network.run(0.1)
    assert callee.legs[0].heard == [("ack", b"")]


def test_what_keeps_another_host_from_a_peer():
    _, _, _, call = up()
    state = call.dialog.state()
    tcp = state.flow._replace(transport="TCP", id=9)
    changed = msgspec.structs.replace
    assert takeover.obstacle(state) == ""
    assert takeover.obstacle(changed(state, flow=tcp)) == ""
    assert takeover.obstacle(changed(state, behind_nat=True)) == BEHIND_NAT
    assert takeover.obstacle(changed(state, behind_nat=True, flow=tcp)) == OVER_CONNECTION
    assert takeover.obstacle(changed(state, behind_nat=True, flow=tcp, routes=("<sip:edge;lr>",))) == ""


def test_a_caller_of_a_lost_host_gets_its_refusal_by_the_stored_via():
    network, caller, callee = pair()
    callee.on_call = lambda invite: invite.ring(180)
    call = caller.call(callee)
    network.run(0.1)
    (invite,) = callee.invites
    del network.stacks[callee.address]
    heir = Phone(network, HEIR)
    takeover.refuse(heir.stack, invite.request.encode(), invite.flow, 503, [("Retry-After", "1")])
    network.run(1)
    assert call.failure is not None
    assert call.failure[0] == 503
    (sent,) = network.of(503, heir.address)
    assert sent.headers.get("Retry-After") == "1"
    assert heir.quiet


def test_a_callee_of_a_lost_host_is_cancelled_by_the_stored_via():
    network, caller, callee = pair()
    callee.on_call = lambda invite: invite.ring(180)
    call = caller.call(callee)
    network.run(0.1)
    request, flow = call.invite.sent
    del network.stacks[caller.address]
    heir = Phone(network, HEIR)
    heir.stack.withdraw(request, takeover.moved_flow(flow, heir.stack))
    network.run(1)
    assert len(callee.cancelled) == 1
    (cancel,) = network.of("CANCEL", heir.address)
    assert cancel.via.branch == parse(request).via.branch


@pytest.mark.parametrize("picks_up", [True, False])
def test_a_callee_who_picks_up_as_the_host_is_lost_is_hung_up_on(picks_up):
    network, caller, callee = pair()
    callee.on_call = lambda invite: invite.ring(180)
    call = caller.call(callee)
    network.run(0.1)
    request, flow = call.invite.sent
    (ringing,) = network.of(180, callee.address)
    del network.stacks[caller.address]
    if picks_up:
        callee.answer(callee.invites[0])
        network.run(1)
    heir = Phone(network, HEIR)
    takeover.withdraw(heir.stack, request, flow, [ringing.encode()])
    network.run(40)
    assert len(network.of("ACK", heir.address)) >= 1
    (bye,) = network.of("BYE", heir.address)
    assert bye.headers.get("To").endswith(f"tag={ringing.to_tag}")
    assert bool(callee.cancelled) is not picks_up
    assert [leg.heard[-1:] for leg in callee.legs] == ([["bye"]] if picks_up else [])
    assert len(network.of(200, callee.address)) < 10, "the 200 is not repeated for 32 s"
    network.run(40)
    assert heir.quiet
    assert callee.quiet


# -- an INVITE of which its host had heard nothing yet ---------------------------------------------------------


def unheard(on_call=None, transport="UDP", arrives=True):
    """The host is lost before it hears of its INVITE: the network, the callee, and what was known of the INVITE."""
    network = Network()
    caller = Phone(network, "10.0.0.1", transport=transport)
    callee = Phone(network, "10.0.0.2", 5062, transport=transport)
    callee.on_call = on_call or (lambda invite: invite.ring(180))
    call = caller.call(callee)
    ((invite, flow),) = call.sent
    del network.stacks[caller.address]
    if not arrives:
        network.queue.clear()
    network.run(1)
    return network, callee, invite, flow


def ended(network, heir, callee):
    """Nothing is left of it once all timers are over."""
    network.run(70)
    assert heir.quiet
    assert callee.quiet


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_a_callee_of_whom_nothing_was_heard_is_cancelled_too(transport):
    network, callee, invite, flow = unheard(transport=transport)
    heir = Phone(network, HEIR, transport=transport)
    takeover.withdraw(heir.stack, invite, flow)
    network.run(1)
    assert len(callee.cancelled) == 1
    (cancel,) = network.of("CANCEL", heir.address)
    assert cancel.headers.get("Via") == parse(invite).headers.get("Via"), "section 17.2.3: by its branch and sent-by"
    assert 481 in network.sent(callee.address), "the BYE in a dialog that never was does no harm"
    ended(network, heir, callee)


def test_one_who_picked_up_at_once_is_hung_up_on_by_the_tag_of_the_cancel_s_answer():
    network, callee, invite, flow = unheard(lambda invite: callee_of(invite).answer(invite))
    heir = Phone(network, HEIR)
    takeover.withdraw(heir.stack, invite, flow)
    network.run(1)
    assert [leg.heard for leg in callee.legs] == [[("ack", b""), "bye"]]
    assert callee.cancelled == []
    sent = len(network.of(200, callee.address))
    ended(network, heir, callee)
    assert len(network.of(200, callee.address)) == sent, "the 200 is not repeated for 32 s"


def callee_of(invite):
    return invite._stack.core


def test_nobody_rings_by_the_withdrawal_of_an_invite_that_never_came():
    network, callee, invite, flow = unheard(arrives=False)
    heir = Phone(network, HEIR)
    takeover.withdraw(heir.stack, invite, flow)
    network.run(1)
    assert network.sent(callee.address) == [481]
    assert callee.invites == []
    ended(network, heir, callee)


def test_one_who_had_refused_is_left_alone():
    network, callee, invite, flow = unheard(lambda invite: invite.reject(486))
    heir = Phone(network, HEIR)
    takeover.withdraw(heir.stack, invite, flow)
    network.run(1)
    assert network.sent(heir.address)[:1] == ["CANCEL"]
    assert callee.cancelled == []
    ended(network, heir, callee)


def test_a_response_that_comes_here_after_all_is_answered():
    """The address moved to the heir with the call."""
    network, callee, invite, flow = unheard()
    heir = Phone(network, "10.0.0.1")
    takeover.withdraw(heir.stack, invite, flow)
    network.run(1)
    assert len(callee.cancelled) == 1
    acks = network.of("ACK", heir.address)
    assert parse(invite).via.branch in {ack.via.branch for ack in acks}, "of the 487"
    ended(network, heir, callee)


def test_each_invite_that_leaves_is_told_of():
    """With credentials it is another one, of a branch of its own."""
    network, caller, callee = pair()
    callee.on_call = lambda invite: (
        invite.ring(180)
        if "Authorization" in invite.request.headers
        else invite.reject(401, headers=[("WWW-Authenticate", 'Digest realm="here", nonce="1"')])
    )
    call = caller.call(callee, credentials=("alice", "secret"))
    network.run(1)
    first, second = (parse(invite) for invite, _ in call.sent)
    assert (first.cseq[0], second.cseq[0]) == (1, 2)
    assert first.via.branch != second.via.branch
    assert [invite for invite, _ in call.sent] == [one.encode() for one in network.of("INVITE", caller.address)]


def test_an_invite_that_went_another_way_is_told_of_again():
    """Too large for UDP, and the callee takes no TCP (section 18.1.1)."""
    network, caller, callee = pair()
    callee.on_call = lambda invite: invite.ring(180)
    send = caller.stack._send
    caller.stack._send = lambda data, flow: flow.transport == "UDP" and send(data, flow)
    call = caller.call(callee, sdp=b"v=0 " + b"x" * 1500, target=("", *callee.address))
    network.run(1)
    (first, tcp), (second, udp) = call.sent
    assert (tcp.transport, udp.transport) == ("TCP", "UDP")
    assert parse(first).via.branch == parse(second).via.branch
    assert parse(second).headers.get("Via").startswith("SIP/2.0/UDP")
    del network.stacks[caller.address]
    heir = Phone(network, HEIR)
    takeover.withdraw(heir.stack, second, udp)
    network.run(1)
    assert len(callee.cancelled) == 1


def test_what_is_abandoned_says_nothing_more():
    network, ours, theirs = pair()
    up_call = ours.call(theirs)
    network.run(1)
    theirs.on_call = lambda invite: invite.ring(180)
    ringing = ours.call(theirs)
    ours.on_call = lambda invite: invite.ring(180)
    theirs.call(ours)
    network.run(0.5)
    unanswered, ours.on_call = theirs.call(ours), ours.answer
    network.fate = lambda data, source, destination: [] if data.startswith(b"ACK") else [0.01]
    network.run(0.1)
    up_call.dialog.reinvite(OFFER, lambda *_: None)
    kept = ours.call(theirs)
    sent = len(network.log)
    calls = {up_call.dialog.call_id, ringing.invite.call_id, *(one.request.call_id for one in ours.invites)}
    takeover.abandon(ours.stack, calls)
    network.run(100)
    said = [message for source, _, message in network.log[sent:] if source == ours.address]
    others = [one for one in said if one.call_id != kept.invite.call_id]
    assert {getattr(one, "status", 0) for one in others} <= {481}  # for whoever asks, there is no such call here
    assert up_call.leg.heard == []
    assert ringing.failure is None
    assert unanswered.dialog is None or unanswered.invite.call_id in calls
    kept.invite.cancel()
    network.run(200)
    assert ours.stack.dialogs == 0
    assert ours.stack.calls == 0
