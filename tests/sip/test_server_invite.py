"""Calls that come in: RFC 3261 sections 9.2, 13.3 and 17.2."""

import pytest

from tests.sip.link import ANSWER, flow_of, pair
from trunkline.sip import digest
from trunkline.sip.message import Request


@pytest.fixture
def phones():
    return pair()


def test_it_may_ring_for_a_while_and_be_answered_later(phones):
    network, a, b = phones
    b.on_call = lambda invite: invite.ring()
    caller = a.call(b)
    network.run(10)
    dialog = b.accept(b.invites[0])
    network.run(1)
    assert caller.dialog is not None
    assert not dialog.ended
    assert dialog.call_id == caller.dialog.call_id
    assert b.legs[0].heard == [("ack", b"")]


def test_ringing_is_repeated_each_minute(phones):
    """Section 13.3.1.1."""
    network, a, b = phones
    b.on_call = lambda invite: invite.ring(183, sdp=b"v=0 early")
    caller = a.call(b)
    network.run(125)
    assert [(status, sdp) for status, _, sdp in caller.progress] == [(183, b"v=0 early"), (183, b""), (183, b"")]


def test_an_invite_that_nobody_answers_ends(phones):
    network, a, b = phones
    b.stack.config = a.stack.config.__class__(host="10.0.0.2", port=5062, invite_timeout_s=90)
    b.on_call = lambda invite: invite.ring()
    caller = a.call(b)
    network.run(91)
    assert caller.failure[0] == 487
    assert b.cancelled == ['SIP;cause=408;text="Request Timeout"']
    network.run(70)
    assert a.quiet
    assert b.quiet


def test_only_the_first_final_response_counts(phones):
    network, a, b = phones
    b.on_call = lambda invite: invite.reject(486)
    caller = a.call(b)
    network.run(1)
    invite = b.invites[0]
    assert invite.answered
    invite.reject(603)
    invite.ring()
    assert invite.accept(ANSWER).ended
    network.run(1)
    assert caller.failure[0] == 486
    assert b.stack.dialogs == 0


def test_a_cancelled_invite_cannot_be_answered(phones):
    network, a, b = phones
    b.on_call = lambda invite: invite.ring()
    caller = a.call(b)
    network.run(1)
    caller.invite.cancel()
    network.run(1)
    dialog = b.accept(b.invites[0])
    dialog.bye()
    network.run(1)
    assert dialog.ended
    assert b.stack.dialogs == 0
    assert network.sent(b.address).count(487) == 1


def test_a_cancel_that_comes_after_the_answer_changes_nothing(phones):
    network, a, b = phones
    network.fate = lambda data, local, remote: [0.5 if data.startswith(b"SIP/2.0 200") else 0.01]
    b.on_call = lambda invite: invite.ring()
    caller = a.call(b)
    network.run(0.1)
    b.accept(b.invites[0])
    caller.invite.cancel()
    network.run(0.2)
    assert b.cancelled == []
    network.run(10)
    assert caller.failure[0] == 487
    assert b.legs[0].heard == [("ack", b""), "bye"]
    network.run(70)
    assert a.quiet
    assert b.quiet


@pytest.mark.parametrize(
    ("proxy", "status", "name"), [(False, 401, "WWW-Authenticate"), (True, 407, "Proxy-Authenticate")]
)
def test_a_challenge_names_itself_and_absorbs_the_ack(phones, proxy, status, name):
    network, a, b = phones
    value = digest.challenge("realm", "nonce")
    b.on_call = lambda invite: invite.challenge(value, proxy)
    a.call(b)
    network.run(6)
    (response,) = network.of(status)
    assert response.headers.get(name) == value
    assert b.quiet


def test_a_late_offer_is_answered_in_the_ack(phones):
    network, a, b = phones
    b.on_call = lambda invite: b.accept(invite, b"v=0 our offer")
    caller = a.call(b, sdp=b"")
    network.run(0.1)
    caller.dialog.ack(b"v=0 their answer")
    network.run(0.1)
    assert b.legs[0].heard == [("ack", b"v=0 their answer")]


def test_the_callee_sends_requests_along_record_route(phones):
    network, a, b = phones
    routes = [
        ("Record-Route", "<sip:10.0.0.1:5060;lr>, <sip:10.0.0.2:5062;lr>"),
        ("Contact", "<sip:deep@inside.example>"),
    ]
    a.call(b, headers=routes)
    network.run(0.1)
    b.dialogs[0].bye()
    network.run(1)
    bye = network.of("BYE")[0]
    assert bye.uri == "sip:deep@inside.example"
    assert bye.headers.all("Route") == ["<sip:10.0.0.1:5060;lr>", "<sip:10.0.0.2:5062;lr>"]
    (ok,) = network.of(200, b.address)[:1]
    assert ok.headers.get("Record-Route") == routes[0][1]


@pytest.mark.parametrize(
    ("contact", "goes_to"),
    [
        ("<sip:a@192.168.7.7:5060>", ("9.9.9.9", 40000)),
        ("<sip:a@9.9.9.77:5070>", ("9.9.9.77", 5070)),
        ("<sip:a@9.8.7.6>", ("9.9.9.9", 40000)),
        ("<sip:a@proxy.example>", ("proxy.example", 0)),
    ],
)
def test_a_caller_behind_a_nat_is_reached_where_it_came_from(contact, goes_to):
    """A private Contact, or one equal to the Via that the source proves wrong."""
    network, _, b = pair()
    request = Request.make(
        "INVITE",
        "sip:bob@10.0.0.2",
        headers=[
            ("Via", "SIP/2.0/UDP 9.8.7.6;branch=z9hG4bK1;rport"),
            ("From", "<sip:x@x>;tag=1"),
            ("To", "<sip:bob@10.0.0.2>"),
            ("Call-ID", "1"),
            ("CSeq", "1 INVITE"),
            ("Contact", contact),
        ],
    )
    b.stack.receive(request.encode(), flow_of(b, "9.9.9.9", 40000))
    b.dialogs[0].request("INFO")
    assert network.log[-1][2].method == "INFO"
    assert network.log[-1][1] == goes_to


def test_the_dialog_can_be_stored_before_the_200_leaves(phones):
    network, a, b = phones
    stored = []

    def store(dialog):
        stored.append((dialog.state(), network.sent(b.address)))

    b.on_call = lambda invite: invite.accept(ANSWER, before=store)
    a.call(b)
    network.run(1)
    ((state, sent),) = stored
    assert sent == []
    assert state.answer == network.of(200)[0].encode()


def test_what_cannot_be_stored_is_not_answered(phones):
    network, a, b = phones

    def full(dialog):
        raise OSError("disk full")

    b.on_call = lambda invite: invite.accept(ANSWER, before=full)
    caller = a.call(b)
    network.run(1)
    assert caller.failure[0] == 500
    network.run(70)
    assert b.quiet
