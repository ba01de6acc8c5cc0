"""Calls that we place: RFC 3261 sections 9.1, 13.2, 22; forking; races."""

import pytest

from tests.sip.link import ANSWER, OFFER, Caller, Leg, Phone, pair
from trunkline.sip import digest
from trunkline.sip.errors import MalformedMessage
from trunkline.sip.flow import Flow
from trunkline.sip.message import Request, Response, parse

REALM, USER, PASSWORD = "trunk", "alice", "secret"


@pytest.fixture
def phones():
    return pair()


def answers(request, status, tag="t1", sdp=b"", headers=()):
    """A response of a callee that is made by hand."""
    fields = [("Contact", f"<sip:{tag}@10.0.0.2:5062>"), *headers]
    if sdp:
        fields.append(("Content-Type", "application/sdp"))
    return Response.make(request, status, to_tag=tag, headers=fields, body=sdp).encode()


class ByHand:
    """A callee that is only an address: what is sent to it is kept, and answered by the test."""

    def __init__(self, **config):
        self.network, self.phone, other = pair(**config)
        self.address = other.address
        self.network.stacks.pop(other.address)
        self.other = other

    def calls(self, **options):
        return self.phone.call(self.other, **options)

    def got(self, method):
        return self.network.of(method, self.phone.address)

    def sends(self, data):
        self.phone.stack.receive(data, Flow("UDP", self.address, self.phone.address, 0))

    def answers(self, status, **options):
        self.sends(answers(self.got("INVITE")[-1], status, **options))


def test_progress_and_answer(phones):
    network, a, b = phones

    def rings_then_answers(invite):
        invite.ring()
        invite.ring(183, sdp=b"v=0 early", headers=[("X-Early", "1")])
        b.accept(invite)

    b.on_call = rings_then_answers
    caller = a.call(b, headers=[("X-Mine", "yes")])
    network.run(1)
    tag = b.invites[0].to_tag
    assert caller.progress == [(180, tag, b""), (183, tag, b"v=0 early")]
    assert caller.sdp == ANSWER
    assert b.invites[0].offer == OFFER
    assert b.invites[0].request.headers.get("X-Mine") == "yes"
    assert caller.invite.over
    assert caller.dialog.is_caller
    assert not b.dialogs[0].is_caller
    assert a.stack.calls == 0


def test_a_late_offer(phones):
    network, a, b = phones
    caller = a.call(b, sdp=b"")
    network.run(2)
    assert b.invites[0].offer == b""
    assert caller.sdp == ANSWER
    assert network.sent(a.address) == ["INVITE"], "no ACK before the answer"
    assert network.sent(b.address).count(200) > 1
    caller.dialog.ack(b"v=0 late answer")
    network.run(5)
    assert b.legs[0].heard == [("ack", b"v=0 late answer")]


def test_a_late_offer_that_does_not_suit_is_acknowledged_and_ended(phones):
    network, a, b = phones
    caller = a.call(b, sdp=b"")
    network.run(0.1)
    caller.dialog.bye()
    network.run(1)
    assert network.sent(a.address) == ["INVITE", "ACK", "BYE"]
    assert b.legs[0].heard == [("ack", b""), "bye"]


def test_the_sdp_of_a_183_stands_in_where_the_2xx_has_none():
    hand = ByHand()
    caller = hand.calls()
    hand.answers(183, sdp=b"v=0 early")
    hand.answers(200)
    assert caller.sdp == b"v=0 early"


def test_the_dialog_can_be_stored_before_the_ack_leaves(phones):
    network, a, b = phones
    caller = a.call(b)
    stored = []
    caller.on_answer = lambda dialog, response, sdp: stored.append((dialog.state(), network.sent(a.address)))
    network.run(1)
    ((state, sent),) = stored
    assert sent == ["INVITE"]
    assert state.ack == network.of("ACK")[0].encode()


def test_an_answer_that_does_not_suit_is_acknowledged_before_the_bye(phones):
    network, a, b = phones
    caller = a.call(b)
    caller.on_answer = lambda dialog, response, sdp: dialog.bye()
    network.run(1)
    assert network.sent(a.address) == ["INVITE", "ACK", "BYE"]
    assert b.legs[0].heard == [("ack", b""), "bye"]


@pytest.mark.parametrize(("status", "reason"), [(302, "Moved Temporarily"), (404, "Not Found"), (603, "Decline")])
def test_refusals_are_told_with_their_response(phones, status, reason):
    network, a, b = phones
    b.on_call = lambda invite: invite.reject(status, headers=[("Contact", "<sip:else@where>")])
    responses = []
    caller = a.call(b)
    caller.on_failure = lambda *end: responses.append(end)
    network.run(1)
    ((told, text, response),) = responses
    assert (told, text) == (status, reason)
    assert response.contact.uri.user == "else"


def test_cancel_after_ringing(phones):
    network, a, b = phones
    b.on_call = lambda invite: invite.ring()
    caller = a.call(b)
    network.run(1)
    caller.invite.cancel([("Reason", "Q.850;cause=16")])
    assert caller.failure is None
    network.run(1)
    assert caller.failure == (487, "Request Terminated")
    assert b.cancelled == ["Q.850;cause=16"]
    cancel, invite = network.of("CANCEL")[0], network.of("INVITE")[0]
    assert cancel.via.branch == invite.via.branch
    assert cancel.uri == invite.uri
    assert cancel.cseq == (1, "CANCEL")
    assert cancel.headers.get("To") == invite.headers.get("To")
    tags = {message.to_tag for message in network.of(200, b.address) + network.of(487, b.address)}
    assert tags == {b.invites[0].to_tag}, "section 9.2: the same tag in both"
    network.run(70)
    assert a.quiet
    assert b.quiet


def forgotten(phones):
    """A call that rings, and whose caller's process is lost; what it left, and the stack of the next one."""
    network, a, b = phones
    caller = a.call(b)
    network.run(1)
    left = caller.invite.sent
    network.stacks.pop(a.address)
    return left, Phone(network, *a.address)


def test_another_process_cancels_what_rings(phones):
    network, a, b = phones
    b.on_call = lambda invite: invite.ring()
    (data, flow), heir = forgotten(phones)
    heir.stack.withdraw(data, flow)
    network.run(1)
    assert len(b.cancelled) == 1
    assert network.sent(a.address)[-2:] == ["CANCEL", "ACK"]
    network.run(70)
    assert heir.quiet
    assert b.quiet


def test_who_picked_up_before_another_process_could_cancel_is_hung_up_on(phones):
    network, _, b = phones
    b.on_call = lambda invite: invite.ring()
    (data, flow), heir = forgotten(phones)
    b.accept(b.invites[0])
    heir.stack.withdraw(data, flow)
    network.run(2)
    assert b.legs[0].heard[-1] == "bye"
    network.run(70)
    assert heir.quiet
    assert b.quiet


def test_cancel_waits_for_a_provisional_response():
    hand = ByHand()
    caller = hand.calls()
    caller.invite.cancel()
    hand.network.run(0.1)
    assert caller.failure == (487, "Request Terminated"), "who gave up need not wait"
    assert hand.got("CANCEL") == []
    hand.answers(100)
    assert len(hand.got("CANCEL")) == 1
    hand.answers(487)
    hand.network.run(70)
    assert hand.phone.quiet


@pytest.mark.parametrize("rung", [True, False])
def test_an_answer_that_is_faster_than_cancel_is_acknowledged_and_ended(rung):
    hand = ByHand()
    caller = hand.calls()
    if rung:
        hand.answers(180)
    caller.invite.cancel()
    hand.answers(200, sdp=ANSWER)
    hand.network.run(0.1)
    assert caller.failure[0] == 487
    assert caller.dialog is None
    assert hand.network.sent(hand.phone.address)[-2:] == ["ACK", "BYE"]
    assert hand.got("BYE")[0].to_tag == "t1"
    hand.answers(200, sdp=ANSWER)
    assert hand.network.sent(hand.phone.address)[-1] == "ACK"
    assert len(hand.got("BYE")) == 1
    hand.network.run(100)
    assert hand.phone.quiet


def test_a_refusal_that_is_faster_than_cancel_is_told_as_it_is():
    hand = ByHand()
    caller = hand.calls()
    hand.answers(180)
    caller.invite.cancel()
    hand.answers(486)
    assert caller.failure == (486, "Busy Here")


def test_a_callee_that_answers_only_the_cancel():
    """Section 9.1: 64*T1 after the CANCEL the call is over."""
    hand = ByHand()
    caller = hand.calls()
    hand.answers(180)
    caller.invite.cancel()
    hand.network.run(31)
    assert caller.failure is None
    hand.network.run(2)
    assert caller.failure[0] == 487
    hand.network.run(70)
    assert hand.phone.quiet


def test_ringing_too_long_is_408_and_cancelled(phones):
    network, a, b = phones
    b.on_call = lambda invite: invite.ring()
    caller = a.call(b, timeout_s=10)
    network.run(9.9)
    assert caller.failure is None
    network.run(1)
    assert caller.failure == (408, "Request Timeout")
    assert b.cancelled == [""]


def test_nobody_there_within_the_ring_timeout_is_408_at_once():
    hand = ByHand()
    caller = hand.calls(timeout_s=10)
    hand.network.run(10.1)
    assert caller.failure[0] == 408
    hand.network.run(100)
    assert hand.phone.quiet


def test_forks_ring_and_the_second_answer_is_ended():
    hand = ByHand()
    caller = hand.calls()
    hand.answers(180, tag="f1")
    hand.answers(183, tag="f2", sdp=b"v=0 early")
    hand.answers(200, tag="f2", sdp=b"v=0 f2")
    hand.answers(200, tag="f1", sdp=b"v=0 f1")
    hand.network.run(0.1)
    assert [tag for _, tag, _ in caller.progress] == ["f1", "f2"]
    assert caller.sdp == b"v=0 f2"
    assert [ack.to_tag for ack in hand.got("ACK")] == ["f2", "f1"]
    assert [bye.to_tag for bye in hand.got("BYE")] == ["f1"]
    assert caller.leg.heard == []
    caller.dialog.bye()
    assert [bye.to_tag for bye in hand.got("BYE")] == ["f1", "f2"]


def test_endless_forks_are_bounded():
    hand = ByHand()
    hand.calls()
    for number in range(100):
        hand.answers(180, tag=f"f{number}", sdp=b"v=0 early")
        hand.answers(200, tag=f"f{number}", sdp=ANSWER)
    assert len(hand.got("ACK")) == 16
    assert hand.phone.stack.dialogs == 16


def test_a_repeated_2xx_gets_the_same_ack():
    hand = ByHand()
    hand.calls()
    for _ in range(3):
        hand.answers(200, sdp=ANSWER)
    acks = [message.encode() for message in hand.got("ACK")]
    assert len(acks) == 3
    assert len(set(acks)) == 1
    ack = hand.got("ACK")[0]
    assert ack.cseq == (1, "ACK")
    assert ack.uri == "sip:t1@10.0.0.2:5062"
    assert ack.via.branch != hand.got("INVITE")[0].via.branch


def test_a_bye_that_overtakes_its_2xx():
    hand = ByHand()
    caller = hand.calls()
    invite = hand.got("INVITE")[0]
    bye = Request.make(
        "BYE",
        "sip:10.0.0.1:5060",
        headers=[
            ("Via", "SIP/2.0/UDP 10.0.0.2:5062;branch=z9hG4bKbye"),
            ("From", f"{invite.headers.get('To')};tag=t1"),
            ("To", invite.headers.get("From")),
            ("Call-ID", invite.call_id),
            ("CSeq", "1 BYE"),
        ],
    )
    hand.sends(bye.encode())
    assert hand.network.sent(hand.phone.address)[-1] == 200
    hand.answers(200, sdp=ANSWER)
    assert caller.dialog is not None
    assert caller.leg.heard == ["bye"]
    assert hand.phone.stack.dialogs == 0
    assert len(hand.got("ACK")) == 1


def test_an_answer_without_a_usable_contact_fails():
    hand = ByHand()
    caller = hand.calls()
    invite = hand.got("INVITE")[0]
    hand.sends(answers(invite, 200, sdp=ANSWER, headers=[("Record-Route", "junk")]))
    assert caller.failure[0] == 502


def test_record_route_is_followed_backwards():
    hand = ByHand()
    caller = hand.calls()
    routes = [
        ("Record-Route", "<sip:far.example;lr>, <sip:middle.example;lr>"),
        ("Record-Route", "<sip:10.0.0.2:5062;lr>"),
    ]
    hand.answers(200, sdp=ANSWER, headers=routes)
    caller.dialog.bye()
    for request in (hand.got("ACK")[0], hand.got("BYE")[0]):
        assert request.headers.all("Route") == [
            "<sip:10.0.0.2:5062;lr>",
            "<sip:middle.example;lr>",
            "<sip:far.example;lr>",
        ]
        assert request.uri == "sip:t1@10.0.0.2:5062"
    assert hand.network.log[-1][1] == ("10.0.0.2", 5062)


def test_a_strict_router_gets_itself_as_request_uri():
    hand = ByHand()
    caller = hand.calls()
    hand.answers(200, sdp=ANSWER, headers=[("Record-Route", "<sip:far.example;lr>, <sip:10.0.0.7:5080>")])
    caller.dialog.bye()
    bye = hand.got("BYE")[0]
    assert bye.uri == "sip:10.0.0.7:5080"
    assert bye.headers.all("Route") == ["<sip:far.example;lr>", "<sip:t1@10.0.0.2:5062>"]
    assert hand.network.log[-1][1] == ("10.0.0.7", 5080)


def test_preset_routes(phones):
    network, a, b = phones
    a.stack.invite(
        "sip:bob@far.example", from_="<sip:a@a>", sdp=OFFER, routes=["<sip:10.0.0.2:5062;lr>"], listener=Caller(a)
    )
    network.run(0.005)
    local, remote, invite = network.log[0]
    assert (local, remote) == (a.address, b.address)
    assert invite.uri == "sip:bob@far.example"
    assert invite.headers.all("Route") == ["<sip:10.0.0.2:5062;lr>"]


def test_a_uri_that_is_none_raises(phones):
    with pytest.raises(MalformedMessage):
        phones[1].stack.invite("sip:", from_="<sip:a@a>", sdp=OFFER, listener=Caller(phones[1]))
    assert phones[1].quiet


# --- digest


class Guard:
    """A callee that wants credentials; `nonces` are those it makes, of which all but the last are stale."""

    def __init__(self, phone, proxy=False, stale=0, algorithm="MD5", wrong=False):
        self.phone, self.proxy, self.stale, self.algorithm = phone, proxy, stale, algorithm
        self.wrong = wrong
        self.seen = []

    def __call__(self, invite):
        name = "Proxy-Authorization" if self.proxy else "Authorization"
        value = invite.request.headers.get(name)
        if not value:
            invite.challenge(digest.challenge(REALM, "n0", self.algorithm), self.proxy)
            return
        given = digest.parse_credentials(value)
        self.seen.append(given)
        ha1 = {self.algorithm: digest.ha1(self.algorithm, USER, REALM, PASSWORD)}
        right = digest.verify(given, ha1, "INVITE")
        if len(self.seen) <= self.stale:
            invite.challenge(digest.challenge(REALM, f"n{len(self.seen)}", self.algorithm, stale=True), self.proxy)
        elif not right or self.wrong:
            invite.challenge(digest.challenge(REALM, "n9", self.algorithm), self.proxy)
        else:
            self.phone.accept(invite)


@pytest.mark.parametrize("proxy", [False, True])
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_challenge_is_answered(phones, proxy, algorithm):
    network, a, b = phones
    b.on_call = Guard(b, proxy, algorithm=algorithm)
    caller = a.call(b, credentials=(USER, PASSWORD))
    network.run(1)
    assert caller.dialog is not None
    first, second = network.of("INVITE")
    assert (first.cseq[0], second.cseq[0]) == (1, 2)
    assert first.call_id == second.call_id
    assert first.from_tag == second.from_tag
    assert second.to_tag == ""
    assert first.via.branch != second.via.branch
    failed, final = network.of("ACK")
    assert failed.cseq == (1, "ACK")
    assert failed.via.branch == first.via.branch
    assert final.cseq == (2, "ACK")
    name = "Proxy-Authorization" if proxy else "Authorization"
    assert final.headers.get(name) == second.headers.get(name), "section 22.1: the ACK repeats them"
    caller.dialog.bye()
    network.run(70)
    assert network.of("BYE")[0].cseq[0] == 3
    assert a.quiet
    assert b.quiet


def test_a_stale_nonce_is_answered_once_more(phones):
    network, a, b = phones
    b.on_call = guard = Guard(b, stale=1)
    caller = a.call(b, credentials=(USER, PASSWORD))
    network.run(1)
    assert caller.dialog is not None
    assert [given.nonce for given in guard.seen] == ["n0", "n1"]


@pytest.mark.parametrize("options", [{"stale": 5}, {"wrong": True}])
def test_a_server_that_is_never_content_is_given_up(phones, options):
    network, a, b = phones
    b.on_call = guard = Guard(b, **options)
    caller = a.call(b, credentials=(USER, PASSWORD))
    network.run(1)
    assert caller.failure[0] == 401
    assert len(guard.seen) <= 2


def test_without_credentials_a_challenge_is_a_failure(phones):
    network, a, b = phones
    b.on_call = Guard(b)
    caller = a.call(b)
    network.run(1)
    assert caller.failure[0] == 401


def test_proxy_and_callee_may_both_want_credentials(phones):
    network, a, b = phones

    def both(invite):
        if "Proxy-Authorization" not in invite.request.headers:
            invite.challenge(digest.challenge("proxy", "p"), proxy=True)
        elif "Authorization" not in invite.request.headers:
            invite.challenge(digest.challenge("callee", "c"))
        else:
            b.accept(invite)

    b.on_call = both
    caller = a.call(b, credentials=(USER, PASSWORD))
    network.run(1)
    assert caller.dialog is not None
    credentials = digest.parse_credentials(network.of("INVITE")[-1].headers.get("Proxy-Authorization"))
    assert credentials.nc == 2, "the nonce count grows with each use"


def test_a_challenge_that_nobody_can_answer_is_a_failure(phones):
    network, a, b = phones
    for value in ("Digest junk", 'Digest realm="x", nonce="y", algorithm=AKAv1-MD5', "Bearer x"):
        b.on_call = lambda invite, value=value: invite.challenge(value)
        caller = a.call(b, credentials=(USER, PASSWORD))
        network.run(1)
        assert caller.failure[0] == 401


def test_a_fault_of_the_listener_stays_with_its_call(phones, caplog):
    network, a, b = phones

    class Broken(Leg, Caller):
        def __init__(self):
            self.progress, self.sent = [], []

        def on_answer(self, dialog, response, sdp):
            raise RuntimeError("broken")

    a.stack.invite("sip:bob@10.0.0.2:5062", from_="<sip:a@a>", sdp=OFFER, listener=Broken())
    network.run(1)
    assert "broken" in caplog.text
    assert b.legs[0].heard == [("ack", b"")]
    assert isinstance(parse(network.of("INVITE")[0].encode()), Request)
