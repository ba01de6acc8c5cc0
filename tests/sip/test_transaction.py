"""Transactions seen from the wire: RFC 3261 section 17, figures 5 to 8, and RFC 6026."""

import pytest

from tests.sip.link import ANSWER, flow_of, pair
from trunkline.sip.flow import Target
from trunkline.sip.message import Request, Response, parse
from trunkline.sip.transaction import INVITE_CLIENT, INVITE_SERVER, NON_INVITE_CLIENT, NON_INVITE_SERVER, Event, State

ALL = (INVITE_CLIENT, INVITE_SERVER, NON_INVITE_CLIENT, NON_INVITE_SERVER)


def losing(kind, times, source=None):
    """A fate that loses the first so many messages of a method or status (of one side)."""
    left = [times]

    def fate(data, local, remote):
        message = parse(data)
        matches = kind == (message.method if isinstance(message, Request) else message.status)
        if matches and left[0] and (source is None or source == local):
            left[0] -= 1
            return []
        return [0.01]

    return fate


@pytest.mark.parametrize("table", ALL)
def test_every_state_has_a_way_out(table):
    """A transaction that cannot expire would stay for ever (but for those that wait for their user)."""
    states = {state for state, _ in table} | {state for state, _ in table.values()}
    waiting = {State.PROCEEDING, State.TRYING} if table in (INVITE_SERVER, NON_INVITE_SERVER) else set()
    waiting |= {State.PROCEEDING} if table is INVITE_CLIENT else set()
    for state in states - waiting - {State.TERMINATED}:
        assert (state, Event.EXPIRE) in table, state


class Clocked:
    """Times at which one side sends a kind of message."""

    def __init__(self, network, kind, source):
        self.at, self.start = [], network.now_s
        send = network.send

        def watching(data, flow):
            message = parse(data)
            if flow.local == source and kind == getattr(message, "method", getattr(message, "status", 0)):
                self.at.append(round(network.now_s - self.start, 2))
            return send(data, flow)

        network.send = watching


def watched_pair(kind, index, **config):
    network, a, b = pair(**config)
    clocked = Clocked(network, kind, (a, b)[index].address)
    a.stack._send = b.stack._send = network.send
    return network, a, b, clocked


def test_an_unanswered_invite_is_repeated_with_doubling_pauses_and_then_times_out():
    """Timers A and B."""
    network, a, b, clocked = watched_pair("INVITE", 0)
    network.stacks.pop(b.address)
    caller = a.call(b)
    network.run(31.9)
    assert clocked.at == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert caller.failure is None
    network.run(0.2)
    assert caller.failure[0] == 408
    assert a.quiet


def test_another_request_is_repeated_up_to_every_t2_and_then_times_out():
    """Timers E and F."""
    network, a, b, clocked = watched_pair("OPTIONS", 0)
    network.stacks.pop(b.address)
    heard = []
    a.stack.request("OPTIONS", "sip:10.0.0.2:5062", from_="<sip:a@a>", on_response=lambda *end: heard.append(end))
    network.run(40)
    assert clocked.at == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert heard == [(408, None)]
    assert a.quiet


def test_over_tcp_nothing_is_repeated_but_it_times_out_all_the_same():
    network, a, b, clocked = watched_pair("INVITE", 0)
    network.stacks.pop(b.address)
    a.transport = "TCP"
    caller = a.call(b)
    network.run(40)
    assert clocked.at == [0]
    assert caller.failure[0] == 408
    assert a.quiet


def test_a_provisional_response_ends_the_repetition():
    network, a, b, clocked = watched_pair("INVITE", 0)
    b.on_call = lambda invite: invite.ring()
    caller = a.call(b)
    network.run(60)
    assert clocked.at == [0]
    assert [status for status, _, _ in caller.progress] == [180]


@pytest.mark.parametrize("kind", ["INVITE", 100, 200, "ACK", "BYE"])
@pytest.mark.parametrize("lost", [1, 3])
def test_a_call_survives_the_loss_of_any_message(kind, lost):
    network, a, b = pair()
    network.fate = losing(kind, lost)
    caller = a.call(b)
    network.run(15)
    assert caller.dialog is not None
    assert caller.failure is None
    assert len(b.invites) == 1
    assert b.legs[0].heard == [("ack", b"")]
    caller.dialog.bye()
    network.run(15)
    assert b.legs[0].heard[1:] == ["bye"]
    network.run(70)
    assert a.quiet
    assert b.quiet
    assert caller.leg.heard == []


@pytest.mark.parametrize("kind", [486, "ACK"])
def test_a_refusal_survives_loss(kind):
    """Timers G, H, I and D."""
    network, a, b = pair()
    network.fate = losing(kind, 2)
    b.on_call = lambda invite: invite.reject(486)
    caller = a.call(b)
    network.run(3)
    assert caller.failure == (486, "Busy Here")
    assert network.sent(b.address).count(486) == 3
    network.run(70)
    assert a.quiet
    assert b.quiet


def test_a_refusal_that_nobody_acknowledges_is_repeated_and_then_forgotten():
    """Timers G and H."""
    network, _, b, clocked = watched_pair(486, 1)
    b.on_call = lambda invite: invite.reject(486)
    b.stack.receive(invite_bytes(), flow_of(b))
    network.run(40)
    assert clocked.at == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert b.stack.metrics["unacknowledged"] == 1
    assert b.quiet


def invite_bytes(branch="z9hG4bK1", cseq=1, to_tag="", method="INVITE"):
    return (
        f"{method} sip:bob@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9:5060;branch={branch}\r\n"
        f"From: <sip:x@10.0.0.9>;tag=x1\r\nTo: <sip:bob@10.0.0.2>{to_tag}\r\nCall-ID: stranger\r\n"
        f"CSeq: {cseq} {method}\r\nContact: <sip:x@10.0.0.9>\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def test_a_repeated_request_gets_the_same_response_without_being_looked_at():
    network, _, b = pair()
    b.on_call = lambda invite: invite.ring()
    for _ in range(3):
        b.stack.receive(invite_bytes(), flow_of(b))
    assert len(b.invites) == 1
    assert network.sent() == [180, 180, 180]
    for _ in range(3):
        b.stack.receive(invite_bytes(method="OPTIONS", branch="z9hG4bK2", cseq=2), flow_of(b))
    assert len(b.requests) == 1
    responses = network.of(200)
    assert len(responses) == 3
    assert len({response.encode() for response in responses}) == 1


def test_an_answered_invite_that_is_repeated_is_absorbed():
    """RFC 6026: only the dialog repeats the 2xx."""
    network, _, b = pair()
    b.stack.receive(invite_bytes(), flow_of(b))
    b.stack.receive(invite_bytes(), flow_of(b))
    assert network.sent() == [200]
    assert len(b.invites) == 1


def test_a_2xx_without_an_ack_is_repeated_also_over_tcp_and_ends_with_a_bye():
    network, _, b, clocked = watched_pair(200, 1)
    b.stack.receive(invite_bytes(), flow_of(b)._replace(transport="TCP", id=7))
    network.run(33)
    assert clocked.at == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert b.legs[0].heard == ["no-ack"]
    assert network.sent(b.address)[-1] == "BYE"
    network.run(100)
    assert b.quiet


def test_requests_of_rfc_2543_without_a_unique_branch_are_told_apart():
    network, _, b = pair()
    b.on_call = lambda invite: invite.reject(486)
    for _ in range(2):
        b.stack.receive(invite_bytes(branch="1"), flow_of(b))
    b.stack.receive(invite_bytes(branch="1", cseq=2), flow_of(b))
    assert len(b.invites) == 2
    ack = invite_bytes(branch="1", method="ACK", to_tag=f";tag={b.invites[0].to_tag}")
    b.stack.receive(ack, flow_of(b))
    assert sorted(each.state for each in b.stack._server.values()) == [State.COMPLETED, State.CONFIRMED]
    network.run(70)
    assert b.quiet


def test_a_transport_error_is_told_as_503():
    network, a, b = pair()
    a.stack._send = lambda data, flow: False
    caller = a.call(b)
    assert caller.failure is None, "never before the call was returned"
    network.run(0.1)
    assert caller.failure[0] == 503
    assert a.quiet


def test_a_closed_connection_fails_what_nobody_has_answered_yet():
    network, a, b = pair()
    a.transport = "TCP"
    b.on_call = lambda invite: invite.ring()
    ringing = a.call(b)
    network.run(0.1)
    network.stacks.pop(b.address)
    calling = a.call(b)
    flow = a.stack.flow_to(Target("TCP", *b.address))
    a.stack.flow_closed(flow)
    assert calling.failure[0] == 503
    assert ringing.failure is None, "section 18.2.2: the callee opens another connection for its response"


def test_a_2xx_after_a_final_failure_is_ended():
    """A proxy forwards every 2xx, also one that comes after the failure that it had chosen."""
    network, a, b = pair()
    b.on_call = lambda invite: invite.reject(486)
    caller = a.call(b)
    network.run(1)
    assert caller.failure[0] == 486
    request = network.of("INVITE")[0]
    late = Response.make(request, 200, to_tag="late", headers=[("Contact", "<sip:10.0.0.2:5062>")], body=ANSWER)
    a.stack.receive(late.encode(), flow_of(a, *b.address))
    network.run(1)
    assert network.sent(a.address)[-2:] == ["ACK", "BYE"]
    network.run(100)
    assert a.quiet
