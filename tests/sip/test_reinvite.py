"""Changing a session: RFC 3261 section 14."""

import pytest

from tests.sip.link import ANSWER
from tests.sip.test_dialog import Call
from trunkline.sip import digest
from trunkline.sip.errors import MalformedSdp
from trunkline.sip.message import Request, Response, parse

HOLD = b"v=0 a=sendonly"


@pytest.fixture
def call():
    return Call()


class Results(list):
    def __call__(self, status, sdp):
        self.append((status, sdp))


@pytest.mark.parametrize("by_caller", [True, False])
def test_hold_and_resume_by_either_side(call, by_caller):
    ours, leg = (call.out, call.into_leg) if by_caller else (call.into, call.out_leg)
    results = Results()
    for sdp in (HOLD, b"v=0 a=sendrecv"):
        ours.reinvite(sdp, results)
        call.run()
    assert results == [(200, ANSWER)] * 2
    assert leg.heard == [
        ("reinvite", HOLD), ("ack", b""), ("reinvite", b"v=0 a=sendrecv"), ("ack", b""),
    ]  # fmt: skip
    assert call.network.sent() == ["INVITE", 200, "ACK"] * 2
    first = call.network.of("INVITE")[0]
    assert first.to_tag
    assert first.headers.get("Contact")
    assert call.network.of("ACK")[0].cseq == (first.cseq[0], "ACK")
    ours.bye()
    assert call.over()


def test_a_refused_change_leaves_the_session(call):
    call.into_leg.answer = None
    results = Results()
    call.out.reinvite(HOLD, results)
    call.run()
    assert results == [(488, b"")]
    call.out.info("text/plain", b"still here")
    call.run()
    assert call.into_leg.info == [b"still here"]
    assert call.out_leg.heard == []


def test_an_offer_that_cannot_be_read_is_400(call):
    def unreadable(offer):
        raise MalformedSdp("no")

    call.into_leg.on_reinvite = unreadable
    results = Results()
    call.out.reinvite(HOLD, results)
    call.run()
    assert results == [(400, b"")]


def test_a_body_that_is_no_sdp_is_415(call):
    heard = []
    call.out.request("INVITE", [("Content-Type", "text/plain")], b"x", lambda status, _: heard.append(status))
    call.run()
    assert heard == [415]


def test_a_late_offer_within_the_call(call):
    results = Results()
    call.into.reinvite(b"", results)
    call.run(0.3)
    assert results == [(200, ANSWER)]
    assert call.network.sent(call.b.address) == ["INVITE"]
    call.into.ack(b"v=0 our answer")
    call.run()
    assert call.out_leg.heard == [("reinvite", b""), ("ack", b"v=0 our answer")]


def test_the_answer_is_repeated_until_its_ack(call):
    lost = [2]

    def fate(data, local, remote):
        if data.startswith(b"ACK") and lost[0]:
            lost[0] -= 1
            return []
        return [0.01]

    call.network.fate = fate
    results = Results()
    call.out.reinvite(HOLD, results)
    call.run(5)
    assert results == [(200, ANSWER)], "told once"
    acks = call.network.of("ACK")
    assert len(acks) == 3
    assert len({ack.encode() for ack in acks}) == 1
    assert call.into_leg.heard == [("reinvite", HOLD), ("ack", b"")]


def test_a_change_that_is_never_acknowledged_ends_the_call(call):
    call.network.fate = lambda data, local, remote: [] if data.startswith(b"ACK") else [0.01]
    call.out.reinvite(HOLD, Results())
    call.run(40)
    assert call.into_leg.heard == [("reinvite", HOLD), "no-ack"]
    assert call.out_leg.heard == ["bye"]
    call.network.fate = lambda data, local, remote: [0.01]
    assert call.over()


def test_two_changes_at_once_collide_and_both_succeed_later(call):
    ours, theirs = Results(), Results()
    call.out.reinvite(HOLD, ours)
    call.into.reinvite(b"v=0 theirs", theirs)
    call.run(0.1)
    assert call.network.sent().count(491) == 2
    assert ours == theirs == []
    start = call.network.now_s
    call.network.run(20, until=lambda: theirs)
    assert call.network.now_s - start < 2.2, "who does not own the Call-ID tries first"
    call.network.run(20, until=lambda: ours)
    assert 1.9 < call.network.now_s - start < 4.2
    assert ours == theirs == [(200, ANSWER)]


def refusing(call, status, headers=()):
    """Let the callee's side answer each INVITE in the dialog like this."""
    receive = call.b.stack.receive

    def refuse(data, flow):
        message = data if isinstance(data, Request) else parse(data)
        if getattr(message, "method", "") != "INVITE":
            receive(data, flow)
            return
        response = Response.make(message, status, headers=headers)
        call.network.send(response.encode(), flow)

    call.b.stack.receive = refuse


def test_491_for_ever_is_given_up(call):
    refusing(call, 491)
    results = Results()
    call.out.reinvite(HOLD, results)
    call.run(60)
    assert results == [(491, b"")]
    assert call.network.sent(call.a.address).count("INVITE") == 6
    assert call.out_leg.heard == []


def test_a_server_that_names_a_time_is_asked_again(call):
    refusing(call, 500, [("Retry-After", "3")])
    results = Results()
    call.out.reinvite(HOLD, results)
    call.run(3.5)
    assert call.network.sent(call.a.address).count("INVITE") == 2
    call.run(60)
    assert results == [(500, b"")]


@pytest.mark.parametrize(("status", "reason"), [(481, "gone"), (408, "timeout")])
def test_481_and_408_end_the_call(call, status, reason):
    refusing(call, status)
    results = Results()
    call.out.reinvite(HOLD, results)
    call.run(1)
    assert results == [(status, b"")]
    assert call.out_leg.heard == [reason]
    assert call.into_leg.heard == ["bye"]
    assert call.out.ended


def test_a_peer_that_is_silent_ends_the_call(call):
    call.network.stacks.pop(call.b.address)
    results = Results()
    call.out.reinvite(HOLD, results)
    call.run(33)
    assert results == [(408, b"")]
    assert call.out_leg.heard == ["timeout"]
    call.run(40)
    assert call.a.quiet


def test_a_peer_that_only_says_trying_is_cancelled(call):
    refusing(call, 100)
    results = Results()
    call.out.reinvite(HOLD, results)
    call.run(181)
    assert results == [(408, b"")]
    assert "CANCEL" in call.network.sent(call.a.address)


def test_one_change_at_a_time(call):
    first, second = Results(), Results()
    call.out.reinvite(HOLD, first)
    call.out.reinvite(HOLD, second)
    assert second == []
    call.run()
    assert first == [(200, ANSWER)]
    assert second == [(491, b"")]


def test_a_change_waits_for_the_ack_of_the_other_side(call):
    """Section 14.1: no INVITE while one is under way in the other direction."""
    call.network.fate = lambda data, local, remote: [0.3 if data.startswith(b"ACK") else 0.01]
    call.out.reinvite(HOLD, Results())
    call.run(0.1)
    results = Results()
    call.into.reinvite(b"v=0 theirs", results)
    assert call.network.sent(call.b.address) == [200]
    call.run(5)
    assert results == [(200, ANSWER)]


def test_an_invite_before_the_last_one_is_acknowledged_is_500(call):
    """Section 14.2."""
    call.network.fate = lambda data, local, remote: [] if data.startswith(b"ACK") else [0.01]
    call.out.reinvite(HOLD, Results())
    call.run(0.1)
    call.out.reinvite(HOLD, Results())
    call.run(0.1)
    (refusal,) = call.network.of(500)
    assert 0 <= int(refusal.headers.get("Retry-After")) <= 10


def test_a_bye_ends_a_change_under_way(call):
    call.network.fate = lambda data, local, remote: [1.0 if data.startswith(b"INVITE") else 0.01]
    results = Results()
    call.out.reinvite(HOLD, results)
    call.into.bye()
    call.run(5)
    assert call.out_leg.heard == ["bye"]
    assert results == [(481, b"")]
    assert call.over()


def test_the_peer_may_move(call):
    """A target refresh: requests go to the new Contact."""
    heard = []
    call.out.request("INVITE", [("Contact", "<sip:moved@10.0.0.1:5999>")], b"", lambda status, _: heard.append(status))
    call.run(0.1)
    call.into.info("text/plain", b"")
    _, remote, message = call.network.log[-1]
    assert message.method == "INFO"
    assert message.uri == "sip:moved@10.0.0.1:5999"
    assert remote == ("10.0.0.1", 5999)


def test_a_challenged_change_is_sent_again():
    call = Call(credentials=("alice", "secret"))
    receive = call.b.stack.receive

    def guarded(data, flow):
        message = parse(data)
        if getattr(message, "method", "") == "INVITE" and "Proxy-Authorization" not in message.headers:
            challenge = [("Proxy-Authenticate", digest.challenge("r", "n"))]
            call.network.send(Response.make(message, 407, headers=challenge).encode(), flow)
        else:
            receive(data, flow)

    call.b.stack.receive = guarded
    results = Results()
    call.out.reinvite(HOLD, results)
    call.run()
    assert results == [(200, ANSWER)]
    assert call.into_leg.heard == [("reinvite", HOLD), ("ack", b"")]
    final = call.network.of("ACK")[-1]
    assert final.cseq[0] == call.network.of("INVITE")[-1].cseq[0]
    assert "Proxy-Authorization" in final.headers
