"""The peers' user agent and the verdict on calls."""

import socket
import time
from collections.abc import Iterator

import pytest
from lab.ledgers import Told, Webhooks
from lab.phones import Leg, Message, Phones

from lab import calls

INVITE = (
    b"INVITE sip:lab@10.77.200.4:5060 SIP/2.0\r\nv: SIP/2.0/UDP 10.77.1.1;branch=z9hG4bK1\r\n"
    b"Via: SIP/2.0/UDP 10.77.9.9;branch=z9hG4bK0\r\nf: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\ni: x@lab\r\n"
    b"CSeq: 7 INVITE\r\nContact: <sip:10.77.2.1:5060>\r\n\r\n"
    b"v=0\r\nc=IN IP4 10.77.2.1\r\nm=audio 20004 RTP/AVP 0\r\n"
)
STRUCK, ENDED = 100.0, 130.0


@pytest.fixture
def rtp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


def leg(rtp: socket.socket, name: str = "x", *, heard: float = ENDED, caller: bool = True, **facts: object) -> Leg:
    made = Leg(name, "ivr" if caller else "callee", caller, ("10.77.1.1", 5060), rtp)
    made.answered, made.heard, made.hang_up_answered, made.why = 90.0, heard, True, "ours"
    for key, value in facts.items():
        setattr(made, key, value)
    return made


def judge(*legs: Leg, before: float = 0.0, told: dict[str, list[Told]] | None = None) -> calls.Heard:
    webhooks = Webhooks()
    webhooks.calls = {one.call_id: [Told(ENDED, "completed", one.call_id)] for one in legs if one.caller}
    webhooks.calls |= told or {}
    return calls.verdict(list(legs), {one.call_id: before for one in legs}, STRUCK, ENDED, webhooks)


def test_a_message_is_parsed_with_short_names() -> None:
    message = Message.parse(INVITE)
    assert message is not None
    assert message.get("call-id") == "x@lab"
    assert message.media() == ("10.77.2.1", 20004)
    assert message.echo().index("branch=z9hG4bK1") < message.echo().index("branch=z9hG4bK0")
    assert "cseq: 7 INVITE" in message.echo()
    assert Message.parse(b"") is None


def test_what_follows_in_a_call_goes_through_its_proxies(rtp: socket.socket) -> None:
    recorded = b"Record-Route: <sip:10.77.200.6;lr>, <sip:10.77.200.7:5070;lr>\r\nRecord-Route: <sip:10.77.9.9;lr>\r\n"
    message = Message.parse(INVITE.replace(b"CSeq", recorded + b"CSeq"))
    assert message is not None
    called = leg(rtp, caller=False, route=message.route(), target="sip:10.77.2.1:5060")
    phones = Phones(["10.77.1.1"])
    assert phones._where(called) == ("10.77.200.6", 5060)
    lines = phones._request(called, "BYE", 2).split("\r\n")
    assert lines[0] == "BYE sip:10.77.2.1:5060 SIP/2.0"
    assert [line for line in lines if line.startswith("Route: ")] == [
        "Route: <sip:10.77.200.6;lr>", "Route: <sip:10.77.200.7:5070;lr>", "Route: <sip:10.77.9.9;lr>",
    ]  # fmt: skip


def test_a_call_that_nothing_happened_to(rtp: socket.socket) -> None:
    found = judge(leg(rtp))
    assert (found.up, found.struck, found.survived, found.stuck, found.wrong_final) == (1, 0, 1, 0, 0)


def test_a_call_that_went_on_elsewhere(rtp: socket.socket) -> None:
    found = judge(leg(rtp, reinvites=1, silences=[(50.0, 9.0), (100.5, 1.25)]))
    assert (found.struck, found.survived, found.reinvited, found.silence_max) == (1, 1, 1, 1.25)


def test_a_call_that_fell_silent_for_good_has_not_survived(rtp: socket.socket) -> None:
    found = judge(leg(rtp, heard=101.0))
    assert (found.struck, found.survived) == (1, 0)


def test_a_call_that_was_ended_by_the_other_side_has_not_survived(rtp: socket.socket) -> None:
    gone = leg(rtp, why="theirs", ended=105.0, trace=["BYE"])
    found = judge(gone, before=105.0, told={"x": [Told(105.0, "completed", "x")]})
    assert (found.survived, found.ends, found.wrong_final, found.trace) == (0, {"theirs": 1}, 0, ["BYE"])


def test_final_callbacks_that_are_missing_or_wrong(rtp: socket.socket) -> None:
    assert judge(leg(rtp), told={"x": []}).stuck == 1
    assert judge(leg(rtp), told={"x": [Told(ENDED, "failed", "x")]}).wrong_final == 1
    early = judge(leg(rtp), told={"x": [Told(ENDED - 20, "completed", "x")]})
    assert early.wrong_final == 1, "told as ended while it was up"


def test_the_other_leg_of_a_bridge_is_heard_too(rtp: socket.socket) -> None:
    found = judge(
        leg(rtp), leg(rtp, "y", caller=False, sources={"a": (1.0, 1), "b": (2.0, 1)}, silences=[(101.0, 2.0)])
    )
    assert (found.calls, found.silence_max) == (1, 2.0)


def test_legs_know_when_they_are_up(rtp: socket.socket) -> None:
    assert leg(rtp).up
    assert not leg(rtp, ended=time.monotonic()).up
    assert not leg(rtp, answered=0.0).up
