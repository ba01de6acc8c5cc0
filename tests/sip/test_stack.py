"""What happens to messages that belong to nothing: RFC 3261 sections 8.2, 9.2, 11 and 18; and the stack's limits."""

import pytest

from tests.sip.link import OFFER, Network, Phone, flow_of, pair
from trunkline.sip.flow import Flow
from trunkline.sip.message import Request, Response, parse


class Stranger:
    """Sends what it likes to a phone, and keeps what comes back."""

    def __init__(self, host="10.0.0.9", port=5099, **config):
        self.network, _, self.phone = pair(**config)
        self.flow = Flow("UDP", (host, port), self.phone.address, 0)
        self.branch = 0

    def sends(self, method="OPTIONS", uri="sip:bob@10.0.0.2", *, headers=(), via="", tag="", body=b"", cseq=1):
        """One request; returns the messages that go out because of it."""
        self.branch += 1
        fields = {
            "Via": via or f"SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bK-{self.branch};rport",
            "From": "<sip:x@10.0.0.9>;tag=x",
            "To": f"<sip:bob@10.0.0.2>{tag}",
            "Call-ID": "c1",
            "CSeq": f"{cseq} {method}",
            "Contact": "<sip:x@10.0.0.9:5060>",
            **dict(headers),
        }
        return self.sends_bytes(Request.make(method, uri, headers=list(fields.items()), body=body).encode())

    def sends_bytes(self, data):
        before = len(self.network.log)
        self.phone.stack.receive(data, self.flow)
        return [message for _, _, message in self.network.log[before:]]


@pytest.fixture
def stranger():
    return Stranger()


def test_options_tells_what_we_can_do(stranger):
    (response,) = stranger.sends()
    assert response.status == 200
    assert response.headers.get("Allow") == "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, PRACK, UPDATE, REFER, NOTIFY"
    assert response.headers.get("Accept") == "application/sdp"
    assert response.headers.get("Supported") == "100rel, timer, replaces, norefersub"
    assert response.to_tag


def test_the_core_answers_other_requests_as_it_likes(stranger):
    stranger.phone.on_request = lambda request, flow: (403, [("Reason", "x")]) if request.method == "REGISTER" else None
    assert [response.status for response in stranger.sends("REGISTER")] == [403]
    assert [response.status for response in stranger.sends("MESSAGE", cseq=2)] == [405]


@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("MESSAGE", 405),
        ("REFER", 403),
        ("NEWMETHOD", 501),
        ("BYE", 481),
        ("PRACK", 481),
        ("UPDATE", 481),
        ("NOTIFY", 481),
    ],
)
def test_methods_that_are_not_for_us(stranger, method, status):
    (response,) = stranger.sends(method)
    assert response.status == status
    assert ("Allow" in response.headers) == (status == 405)


def test_an_extension_that_we_lack_is_named(stranger):
    trying = stranger.sends("INVITE", headers=[("Require", "100rel, foo")], body=OFFER)
    (response,) = trying
    assert response.status == 420
    assert response.headers.get("Unsupported") == "foo"
    assert stranger.phone.invites == []


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ([("Content-Type", "text/plain")], b"hello", 415),
        ([("Content-Type", "application/sdp"), ("Content-Encoding", "gzip")], b"x", 415),
        ([("Contact", "<mailto:x@y>")], b"", 400),
        ([("Record-Route", "nonsense")], b"", 400),
    ],
)
def test_invites_that_cannot_be_taken(stranger, headers, body, status):
    (response,) = stranger.sends("INVITE", headers=headers, body=body)
    assert response.status == status
    assert stranger.phone.quiet, "nothing is kept of it"


def test_an_unknown_scheme_is_416(stranger):
    (response,) = stranger.sends("INVITE", "nobodyKnowsThisScheme:totallyopaquecontent")
    assert response.status == 416


def test_sdp_is_found_in_a_multipart_body(stranger):
    body = (
        b"--b1\r\nContent-Type: application/isup;version=itu-t92+\r\n\r\n\x01\x02\r\n"
        b"--b1\r\nContent-Type: Application/SDP\r\nContent-Disposition: session\r\n\r\nv=0 in a part\r\n--b1--\r\n"
    )
    stranger.sends("INVITE", headers=[("Content-Type", 'multipart/mixed;boundary="b1"')], body=body)
    assert stranger.phone.invites[0].offer == b"v=0 in a part"


def test_max_forwards_0_is_for_proxies(stranger):
    """We are the destination (section 16.3 binds proxies only)."""
    (response,) = stranger.sends(headers=[("Max-Forwards", "0")])
    assert response.status == 200


def test_100_is_for_users_that_take_their_time(stranger):
    """Section 17.2.1: nothing else has left when the user returns, so that the caller does not send it again."""
    stranger.phone.on_call = lambda invite: None
    assert [each.status for each in stranger.sends("INVITE")] == [100]
    stranger.phone.on_call = lambda invite: invite.ring(183)
    assert [each.status for each in stranger.sends("INVITE", cseq=2)] == [183]


def test_a_request_that_came_two_ways_is_merged(stranger):
    stranger.phone.on_call = lambda invite: invite.ring()
    assert [each.status for each in stranger.sends("INVITE")] == [180]
    assert [each.status for each in stranger.sends("INVITE")] == [482]
    assert len(stranger.phone.invites) == 1
    assert [each.status for each in stranger.sends("INVITE", cseq=2)] == [180], "another CSeq is another request"


def test_a_dialog_that_we_do_not_know(stranger):
    for method in ("INVITE", "INFO", "BYE"):
        assert [each.status for each in stranger.sends(method, tag=";tag=gone")] == [481]
    assert stranger.sends("ACK", tag=";tag=gone") == []
    assert stranger.phone.quiet


def test_cancel_of_nothing_is_481(stranger):
    assert [each.status for each in stranger.sends("CANCEL")] == [481]


def test_stateless_responses_repeat_their_tag(stranger):
    via = "SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKsame"
    first, second = stranger.sends("NEW", via=via) + stranger.sends("NEW", via=via)
    assert first.to_tag == second.to_tag != ""


def test_responses_go_back_by_the_rules_of_the_via(stranger):
    """Section 18.2.2 and RFC 3581."""
    cases = {
        "SIP/2.0/UDP 10.0.0.9:5060;rport;branch=z9hG4bKa": ("10.0.0.9", 5099),
        "SIP/2.0/UDP 10.0.0.9:5061;branch=z9hG4bKb": ("10.0.0.9", 5061),
        "SIP/2.0/UDP client.example;branch=z9hG4bKc": ("10.0.0.9", 5060),
        "SIP/2.0/UDP 10.0.0.9;maddr=10.9.9.9;branch=z9hG4bKd": ("10.0.0.9", 5060),
    }
    for number, (via, expected) in enumerate(cases.items()):
        stranger.sends(via=via, cseq=number)
        assert stranger.network.log[-1][1] == expected, via


def test_the_via_tells_where_a_request_came_from(stranger):
    (response,) = stranger.sends(via="SIP/2.0/UDP client.example;rport;branch=z9hG4bKa, SIP/2.0/TCP upper;branch=1")
    top, below = response.vias
    assert top.received == "10.0.0.9"
    assert top.rport == 5099
    assert below.host == "upper"
    (response,) = stranger.sends(via="SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKb", cseq=2)
    assert response.via.received == ""


def test_a_response_over_tcp_opens_a_connection_if_its_own_is_gone():
    network = Network()
    phone = Phone(network, "10.0.0.2")
    phone.stack._send = lambda data, flow: not flow.id and network.send(data, flow)
    phone.on_call = lambda invite: invite.reject(486)
    request = Request.make(
        "INVITE",
        "sip:bob@10.0.0.2",
        headers=[
            ("Via", "SIP/2.0/TCP 10.0.0.9:5070;branch=z9hG4bK1"),
            ("From", "<sip:x@x>;tag=1"),
            ("To", "<sip:bob@10.0.0.2>"),
            ("Call-ID", "1"),
            ("CSeq", "1 INVITE"),
            ("Contact", "<sip:x@10.0.0.9:5070;transport=tcp>"),
        ],
    )
    phone.stack.receive(request.encode(), Flow("TCP", ("10.0.0.9", 43210), phone.address, 5))
    assert [remote for _, remote, _ in network.log] == [("10.0.0.9", 5070)]
    assert network.sent() == [486]


def test_an_invite_of_rfc_2543_without_a_contact_leads_back_to_its_from():
    stranger = Stranger()
    fields = [("Via", "SIP/2.0/UDP 10.0.0.9"), ("From", "<sip:x@10.0.0.9:5077>;tag=1"), ("To", "<sip:bob@10.0.0.2>")]
    fields += [("Call-ID", "old"), ("CSeq", "1 INVITE")]
    stranger.sends_bytes(Request.make("INVITE", "sip:bob@10.0.0.2", headers=fields).encode())
    assert stranger.phone.dialogs[0].remote_target == "sip:x@10.0.0.9:5077"


def test_what_is_not_permitted_is_dropped_without_a_word(stranger):
    stranger.phone.permits = False
    assert stranger.sends("INVITE") == []
    assert stranger.sends_bytes(b"OPTIONS sip:b@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\r\n") == []
    assert stranger.phone.stack.metrics == {"dropped": 1, "malformed": 1}


def test_malformed_requests_are_answered_and_other_garbage_is_not(stranger):
    (response,) = stranger.sends_bytes(
        b"INVITE sip:b@b SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1\r\nFrom: <sip:x@x>;tag=1\r\n"
        b"To: <sip:b@b>\r\nCall-ID: 1\r\nCSeq: 1 BYE\r\n\r\n"
    )
    assert response.status == 400
    for data in (b"", b"\r\n\r\n", b"\x00\xff" * 100, b"SIP/2.0 200 OK\r\n\r\n", b"ACK sip:b SIP/2.0\r\n\r\n"):
        assert stranger.sends_bytes(data) == []
    assert stranger.phone.quiet


def test_stray_responses_are_dropped(stranger):
    invite = Request.make(
        "INVITE",
        "sip:b@b",
        headers=[
            ("Via", "SIP/2.0/UDP 10.0.0.2:5062;branch=z9hG4bKnobody"),
            ("From", "<sip:a@a>;tag=1"),
            ("To", "<sip:b@b>"),
            ("Call-ID", "1"),
            ("CSeq", "1 INVITE"),
        ],
    )
    for status in (100, 180, 200, 486):
        assert stranger.sends_bytes(Response.make(invite, status, to_tag="t").encode()) == []
    assert stranger.phone.stack.metrics["stray"] == 4


def test_a_response_with_two_vias_went_astray():
    network, a, b = pair()
    b.on_call = lambda invite: invite.ring()
    caller = a.call(b)
    network.run(0.5)
    response = Response.make(network.of("INVITE")[0], 486, to_tag="x")
    response.headers.add("Via", "SIP/2.0/UDP elsewhere;branch=z9hG4bK2")
    a.stack.receive(response.encode(), flow_of(a))
    assert caller.failure is None


def test_beyond_the_limit_of_transactions_requests_get_503_but_a_bye_is_heard():
    network, a, b = pair(max_transactions=6)
    caller = a.call(b)
    network.run(40)
    stranger = Stranger.__new__(Stranger)
    stranger.network, stranger.phone, stranger.flow, stranger.branch = network, b, flow_of(b), 0
    statuses = [stranger.sends(cseq=number)[0].status for number in range(8)]
    assert statuses == [200] * 6 + [503] * 2
    assert network.log[-1][2].headers.get("Retry-After") == "5"
    caller.dialog.bye()
    network.run(1)
    assert b.legs[0].heard[-1] == "bye"


def test_calls_beyond_the_limit_fail_with_503():
    network, a, b = pair(max_transactions=3)
    b.on_call = lambda invite: invite.ring()
    callers = [a.call(b) for _ in range(5)]
    network.run(1)
    assert [caller.failure and caller.failure[0] for caller in callers] == [None, None, None, 503, 503]


def test_a_fault_of_the_core_is_answered_with_500(stranger, caplog):
    def broken(*_):
        raise RuntimeError("broken")

    stranger.phone.on_call = broken
    assert [each.status for each in stranger.sends("INVITE")] == [500]
    stranger.phone.on_request = broken
    assert [each.status for each in stranger.sends("OPTIONS", cseq=2)] == [500]
    assert stranger.phone.stack.metrics["errors"] == 2
    assert "SIP handler failed" in caplog.text


def test_large_requests_go_by_tcp_where_the_target_leaves_the_choice():
    """Section 18.1.1."""
    network, a, b = pair()
    big = b"v=0 " + b"x" * 1400
    flows = []
    a.stack._send = lambda data, flow: flows.append((parse(data), flow)) or network.send(data, flow)
    a.call(b, sdp=big, target=("", *b.address))
    a.call(b, sdp=big, target=("UDP", *b.address))
    a.call(b, target=("", *b.address))
    assert [flow.transport for _, flow in flows] == ["TCP", "UDP", "UDP"]
    assert [message.via.transport for message, _ in flows] == ["TCP", "UDP", "UDP"]


def test_a_target_without_tcp_gets_large_requests_by_udp_and_is_remembered():
    network, a, b = pair()
    big = b"v=0 " + b"x" * 1400
    used = []

    def send(data, flow):
        used.append(flow.transport)
        return flow.transport == "UDP" and network.send(data, flow)

    a.stack._send = send
    first = a.call(b, sdp=big, target=("", *b.address))
    network.run(1)
    assert first.dialog is not None
    assert network.of("INVITE")[0].via.transport == "UDP"
    assert used[:2] == ["TCP", "UDP"]
    used.clear()
    second = a.call(b, sdp=big, target=("", *b.address))
    network.run(1)
    assert second.dialog is not None
    assert "TCP" not in used


def test_the_trace_tells_each_message_once():
    network, a, b = pair()
    lines = []
    b.stack.trace = lambda call_id, sent, line: lines.append(("->" if sent else "<-") + " " + line)
    network.fate = lambda data, source, destination: [0.01, 0.02]
    caller = a.call(b)
    network.run(1)
    caller.dialog.bye()
    network.run(1)
    assert [line.split(" sip:")[0] for line in lines] == [
        "<- INVITE", "-> 200 OK", "<- ACK", "<- BYE", "-> 200 OK",
    ]  # fmt: skip


def test_timeout_says_when_to_tick():
    network, a, b = pair()
    assert a.stack.timeout() is None
    network.stacks.clear()
    a.call(b)
    assert a.stack.timeout() == pytest.approx(0.5)
    network.now_s += 0.7
    assert a.stack.timeout() == 0
    a.stack.tick()
    assert network.sent() == ["INVITE", "INVITE"]


def test_ipv6_addresses_are_bracketed_where_they_must_be():
    network = Network()
    a, b = Phone(network, "2001:db8::1"), Phone(network, "2001:db8::2")
    caller = a.call(b, target=("UDP", "2001:db8::2", 5060))
    network.run(1)
    assert caller.dialog is not None
    caller.dialog.bye()
    network.run(1)
    assert b.legs[0].heard[-1] == "bye"
    assert network.of("INVITE")[0].headers.get("Contact") == "<sip:[2001:db8::1]:5060>"
    assert network.of("BYE")[0].uri == "sip:[2001:db8::2]:5060"
