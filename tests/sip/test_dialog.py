"""Dialogs: RFC 3261 sections 12, 14 and 15; going on in another process."""

from types import SimpleNamespace

import msgspec
import pytest

from tests.sip.link import OFFER, Leg, Phone, pair
from tests.sip.test_transaction import losing
from trunkline.sip import digest
from trunkline.sip.dialog import ADOPT_CSEQ_JUMP, DialogState
from trunkline.sip.flow import Flow
from trunkline.sip.message import Request, Response, parse


class Call:
    """A call that is up between two phones: `out` is the caller's dialog, `into` the callee's."""

    def __init__(self, **options):
        self.network, self.a, self.b = pair()
        self.caller = self.a.call(self.b, **options)
        self.network.run(1)
        self.out, self.into = self.caller.dialog, self.b.dialogs[0]
        self.out_leg, self.into_leg = self.caller.leg, self.b.legs[0]
        self.into_leg.heard.clear()
        self.network.log.clear()

    def run(self, seconds=1.0):
        self.network.run(seconds)

    def over(self):
        """Whether, with all timers gone, nothing is left on either side."""
        self.network.run(100)
        return self.a.quiet and self.b.quiet


@pytest.fixture
def call():
    return Call()


@pytest.mark.parametrize("by_caller", [True, False])
def test_either_side_hangs_up(call, by_caller):
    ours, theirs = (call.out, call.into_leg) if by_caller else (call.into, call.out_leg)
    ours.bye([("Reason", "Q.850;cause=16")])
    call.run()
    assert theirs.heard == ["bye"]
    assert ours.ended
    (bye,) = call.network.of("BYE")
    assert bye.headers.get("Reason") == "Q.850;cause=16"
    ours.bye()
    call.run()
    assert len(call.network.of("BYE")) == 1
    assert call.over()


def test_both_hang_up_at_once(call):
    call.out.bye()
    call.into.bye()
    call.run()
    assert call.network.sent() == ["BYE", "BYE", 200, 200]
    assert call.out_leg.heard == call.into_leg.heard == []
    assert call.over()


def test_a_peer_that_does_not_answer_the_bye(call):
    call.network.stacks.pop(call.b.address)
    call.out.bye()
    call.run(33)
    assert call.out.ended
    assert call.a.quiet


def test_the_callee_waits_for_the_ack_before_its_bye():
    """Section 15."""
    network, a, b = pair()
    network.fate = losing("ACK", 2)
    a.call(b)
    network.run(0.1)
    b.dialogs[0].bye()
    network.run(0.3)
    assert "BYE" not in network.sent()
    network.run(5)
    assert network.sent(b.address)[-1] == "BYE"
    network.run(100)
    assert a.quiet
    assert b.quiet


def test_a_bye_that_waits_goes_out_when_no_ack_ever_comes():
    network, a, b = pair()
    network.fate = losing("ACK", 1000)
    a.call(b)
    network.run(0.1)
    b.dialogs[0].bye()
    network.run(33)
    assert network.sent(b.address)[-1] == "BYE"
    assert b.legs[0].heard == []


def test_a_caller_that_hangs_up_before_its_ack_arrives():
    network, a, b = pair()
    network.fate = losing("ACK", 1000)
    caller = a.call(b)
    network.run(0.1)
    caller.dialog.bye()
    network.run(1)
    assert b.legs[0].heard == ["bye"]
    network.run(100)
    assert network.sent(b.address).count(200) < 5, "the 2xx is not repeated any more"
    assert a.quiet
    assert b.quiet


def test_info(call):
    call.out.info("application/dtmf-relay", b"Signal=5\r\nDuration=160")
    call.run()
    assert call.into_leg.info == [b"Signal=5\r\nDuration=160"]
    assert call.network.of("INFO")[0].content_type == "application/dtmf-relay"
    assert call.network.sent() == ["INFO", 200]


def test_requests_in_the_dialog_count_their_cseq_up_and_are_answered(call):
    heard = []
    for method in ("OPTIONS", "MESSAGE", "NEW", "PUBLISH"):
        call.out.request(method, on_response=lambda status, response: heard.append(status))
    call.run()
    assert heard == [200, 405, 501, 405]
    requests = [message for _, _, message in call.network.log if not isinstance(message, Response)]
    assert [request.cseq[0] for request in requests] == [2, 3, 4, 5]


def test_the_listener_may_answer_other_methods(call):
    call.into_leg.on_request = lambda request: (202, []) if request.method == "MESSAGE" else None
    heard = []
    call.out.request("MESSAGE", [("Refer-To", "<sip:c@c>")], on_response=lambda status, _: heard.append(status))
    call.run()
    assert heard == [202]


def test_481_to_any_request_ends_the_dialog(call):
    call.b.stack._dialogs.clear()
    call.out.request("OPTIONS")
    call.run()
    assert call.out_leg.heard == ["gone"]
    assert call.network.sent(call.a.address) == ["OPTIONS", "BYE"]
    assert call.out.ended


def test_requests_out_of_order_are_500(call):
    """Section 12.2.2."""
    call.network.fate = lambda data, local, remote: [2.0 if data.startswith(b"INFO") else 0.01]
    heard = []
    call.out.request("INFO", on_response=lambda status, _: heard.append(("info", status)))
    call.out.request("OPTIONS", on_response=lambda status, _: heard.append(("options", status)))
    call.run(3)
    assert heard == [("options", 200), ("info", 500)]
    assert call.into_leg.info == []


def test_a_challenge_in_the_dialog_is_answered():
    call = Call(credentials=("alice", "secret"))

    def guard(request):
        if "Authorization" in request.headers:
            return 200, []
        return 401, [("WWW-Authenticate", digest.challenge("r", "n"))]

    call.into_leg.on_request = guard
    heard = []
    call.out.request("OPTIONS", on_response=lambda status, _: heard.append(status))
    call.run()
    assert heard == [200]
    assert [request.cseq[0] for request in call.network.of("OPTIONS")] == [2, 3]


@pytest.mark.parametrize("adopted", [False, True])
def test_a_challenge_from_elsewhere_gets_no_credentials(adopted):
    """Whoever answers may say that he is somewhere else, and have us answer a challenge of a carrier's there."""
    call = Call(credentials=("alice", "secret"))
    seen = []

    def challenge(data, flow):
        request = parse(data)
        if request.method == "ACK":
            return
        seen.append(request)
        fields = [("WWW-Authenticate", digest.challenge("r", "n"))]
        call.network.send(Response.make(request, 401, headers=fields).encode(), flow)

    elsewhere = SimpleNamespace(timers=SimpleNamespace(due=lambda: None), tick=lambda: None, receive=challenge)
    call.network.add(("198.51.100.9", 5060), elsewhere)
    call.into.request("UPDATE", [("Contact", "<sip:carrier@198.51.100.9>")])
    call.run(0.1)
    ours, heard = call.out, []
    if adopted:
        ours = call.a.stack.adopt(ours.state(), call.out_leg, ("alice", "secret"))
    ours.request("OPTIONS", on_response=lambda status, _: heard.append(status))
    ours.reinvite(OFFER, lambda status, sdp: heard.append(status))
    call.run()
    assert heard == [401, 401]
    assert [request.method for request in seen] == ["OPTIONS", "INVITE"]
    assert not any("Authorization" in request.headers for request in seen)


def test_requests_after_the_end_fail(call):
    call.out.bye()
    call.run()
    heard = []
    call.out.request("OPTIONS", on_response=lambda status, _: heard.append(status))
    call.out.reinvite(OFFER, lambda status, sdp: heard.append(status))
    call.run()
    assert heard == [481, 481]


def test_a_fault_of_the_listener_is_answered_with_500(call, caplog):
    def broken(_):
        raise RuntimeError("broken")

    call.into_leg.on_info = broken
    call.out.info("text/plain", b"x")
    call.run()
    assert call.network.sent() == ["INFO", 500]
    assert "broken" in caplog.text


def test_over_tcp_the_connection_is_used_as_long_as_it_lives():
    network, a, b = pair()
    sent = []
    alive = {7}

    def send(data, flow):
        if flow.id and flow.id not in alive:
            return False
        sent.append((flow.transport, flow.remote, flow.id))
        return network.send(data, flow)

    b.stack._send = send
    a.transport = "TCP"
    a.stack._send = lambda data, flow: network.send(data, flow._replace(local=("10.0.0.1", 33333), id=7))
    network.stacks[("10.0.0.1", 33333)] = a.stack
    a.call(b)
    network.run(1)
    b.dialogs[0].info("text/plain", b"1")
    network.run(1)
    assert sent[-1] == ("TCP", ("10.0.0.1", 33333), 7)
    alive.clear()
    b.dialogs[0].info("text/plain", b"2")
    network.run(1)
    assert sent[-1] == ("TCP", ("10.0.0.1", 5060), 0), "then to the Contact"


# --- another process goes on


class Takeover(Call):
    """A call whose callee's process dies; `heir` is a new one at the same address."""

    def __init__(self, at=None, **options):
        super().__init__(**options) if at is None else self._early(at)
        self.exported = msgspec.msgpack.encode(self.into.state())

    def _early(self, at):
        """Stop a moment after the 2xx has been sent."""
        self.network, self.a, self.b = pair()
        self.network.fate = losing("ACK", 1)
        self.caller = self.a.call(self.b)
        self.network.run(at)
        self.into, self.out_leg = self.b.dialogs[0], self.caller.leg

    def dies(self):
        self.heir = Phone(self.network, *self.b.address)
        self.leg = Leg(self.heir)
        self.adopted = self.heir.stack.adopt(msgspec.msgpack.decode(self.exported, type=DialogState), self.leg)


def test_an_adopted_dialog_goes_on_in_both_directions():
    call = Takeover()
    call.dies()
    call.adopted.info("text/plain", b"from the heir")
    call.run()
    assert call.out_leg.info == [b"from the heir"]
    assert call.network.of("INFO")[0].cseq[0] > ADOPT_CSEQ_JUMP
    call.caller.dialog.info("text/plain", b"to the heir")
    call.run()
    assert call.leg.info == [b"to the heir"]
    call.adopted.bye()
    call.run()
    assert call.out_leg.heard == ["bye"]
    call.run(100)
    assert call.a.quiet
    assert call.heir.quiet


def test_an_adopted_callers_dialog_repeats_the_ack():
    call = Call()
    exported = msgspec.msgpack.encode(call.out.state())
    heir = Phone(call.network, *call.a.address)
    heir.stack.adopt(msgspec.msgpack.decode(exported, type=DialogState), Leg(heir))
    ack = call.out.state().ack
    assert ack.startswith(b"ACK sip:10.0.0.2:5062 SIP/2.0")
    answer = Response.make(
        call_invite(call), 200, to_tag=call.into.state().local_tag, headers=[("Contact", "<sip:10.0.0.2:5062>")]
    )
    heir.stack.receive(answer.encode(), call.out.flow)
    assert [message.encode() for message in call.network.of("ACK")] == [ack]


def call_invite(call):
    state = call.out.state()
    return Request.make(
        "INVITE",
        "sip:bob@10.0.0.2:5062",
        headers=[
            ("Via", "SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKold"),
            ("From", state.local),
            ("To", "<sip:bob@10.0.0.2:5062>"),
            ("Call-ID", state.call_id),
            ("CSeq", f"{state.invite_cseq} INVITE"),
        ],
    )


def test_an_adopted_dialog_repeats_its_2xx_until_the_ack():
    call = Takeover(at=0.03)
    assert call.into.state().answer
    call.dies()
    call.run(2)
    assert call.leg.heard == [("ack", b"")]
    assert call.adopted.state().answer == b""


def test_a_repeated_invite_of_an_adopted_call_is_no_new_call():
    call = Takeover()
    invite = call_invite(call)
    invite.headers.set("From", call.out.state().local)
    invite.headers.add("Contact", "<sip:10.0.0.1:5060>")
    call.dies()
    call.heir.stack.receive(invite.encode(), call.into.flow)
    assert call.heir.invites == []
    call.run(40)
    call.heir.stack.receive(invite.encode(), call.into.flow)
    assert len(call.heir.invites) == 1, "remembered for 64*T1 only"


def test_the_exported_state_is_a_copy():
    call = Call()
    state = call.out.state()
    call.out.info("text/plain", b"")
    assert call.out.state().local_cseq == state.local_cseq + 1
    assert state.is_caller
    assert state.target == "sip:10.0.0.2:5062"
    assert call.out.remote_target == state.target
    assert call.out.id != call.into.id


@pytest.mark.parametrize("contact", ["sip:bob@198.51.100.9", "sip:bob@198.51.100.9;transport=udp"])
def test_a_contact_does_not_lead_from_tls_into_the_open(call, contact):
    """What follows may have the keys of SRTP."""
    ours = Flow("TLS", call.b.address, call.a.address, 9)
    state = msgspec.structs.replace(call.out.state(), flow=ours, target=contact)
    sent = []
    call.a.stack.transmit = lambda data, flow: sent.append(flow) or True
    call.a.stack.adopt(state, Leg(call.a)).reinvite(OFFER, lambda status, sdp: None)
    assert sent == [ours]


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
@pytest.mark.parametrize("inside", ["127.0.0.1:6379", "10.0.0.5", "169.254.169.254:80", "[::1]:6379"])
@pytest.mark.parametrize("by_route", [True, False])
def test_who_is_outside_does_not_aim_requests_at_the_inside(call, transport, inside, by_route):
    """Neither by Contact nor by Record-Route, over whatever transport they name."""
    flow = Flow(transport, ("44.1.2.3", 5060), ("192.0.2.1", 5060), 9 if transport == "TCP" else 0)
    named = f"sip:{inside};transport={'tcp' if transport == 'UDP' else 'udp'};lr"
    routes, target = ((f"<{named}>",), "sip:b@44.1.2.3") if by_route else ((), named)
    sent = []
    call.a.stack.transmit = lambda data, flow: sent.append(flow) or True
    call.a.stack.adopt(
        msgspec.structs.replace(call.out.state(), flow=flow, target=target, routes=routes), Leg(call.a)
    ).bye()
    assert sent == [flow]


@pytest.mark.parametrize(("source", "outside"), [("44.1.2.3", True), ("10.0.0.2", False), ("127.0.0.1", False)])
def test_a_name_that_a_peer_outside_gives_is_known_as_such(call, source, outside):
    flow = Flow("UDP", (source, 5060), ("192.0.2.1", 5060))
    sent = []
    call.a.stack.transmit = lambda data, flow: sent.append(flow) or True
    state = msgspec.structs.replace(call.out.state(), flow=flow, target="sip:b@intern.example", routes=())
    call.a.stack.adopt(state, Leg(call.a)).bye()
    assert [(one.remote[0], one.outside) for one in sent] == [("intern.example", outside)]


def test_the_operator_lets_peers_aim_at_what_he_allows(call):
    flow = Flow("UDP", ("44.1.2.3", 5060), ("192.0.2.1", 5060))
    sent = []
    call.a.stack.transmit = lambda data, flow: sent.append(flow) or True
    call.a.stack.is_inside = lambda host, address: host != "10.0.0.5"
    state = msgspec.structs.replace(call.out.state(), flow=flow, target="sip:b@10.0.0.5", routes=())
    call.a.stack.adopt(state, Leg(call.a)).bye()
    assert [one.remote[0] for one in sent] == ["10.0.0.5"]
