"""RFC 4475: each message, with what the RFC asks for."""

import inspect
from types import ModuleType

import pytest

from tests.sip.rfc4475 import behaviour, invalid, valid
from trunkline.sip import sdp
from trunkline.sip.message import MalformedMessage, Request, Response, parse
from trunkline.sip.number import called_of, caller_of
from trunkline.sip.stream import StreamParser
from trunkline.sip.uri import Uri, same


def messages(module: ModuleType) -> dict[str, bytes]:
    return {name: value for name, value in inspect.getmembers(module) if isinstance(value, bytes) and name.isupper()}


INVALID = {name: value for name, value in messages(invalid).items() if not name.startswith("_")}
BEHAVIOUR = {name: value for name, value in messages(behaviour).items() if not name.startswith("_")}
VALID = {name: value for name, value in messages(valid).items() if not name.startswith("_")}

REFUSED = {
    "BADINV01": (400, False),  # its Via is what is broken: nobody to answer
    "CLERR": (400, True),
    "NCL": (400, True),
    "SCALAR02": (400, True),
    "SCALARLG": (400, False),  # a response: dropped
    "QUOTBAL": (400, True),
    "LTGTRURI": (400, True),
    "LWSRURI": (400, True),
    "LWSSTART": (400, True),
    "TRWS": (400, True),
    "ESCRURI": (400, True),
    "REGBADCT": (400, True),
    "BADVERS": (505, True),
    "MISMATCH01": (400, True),
    "MISMATCH02": (400, True),
    "BIGCODE": (400, False),
    "INSUF": (400, True),
    "MULTI01": (400, True),
    "MCL01": (400, True),
}
"""Status to answer, and whether it can be answered."""
TOLERATED = {"BADDATE", "BADASPEC", "BADDN", "BADBRANCH"}
"""Invalid ones that the RFC allows to take: the intent is clear, or the header is not needed."""


def test_all_of_them_are_here() -> None:
    assert len(VALID) == 13
    assert len(INVALID) == 20
    assert len(BEHAVIOUR) == 16
    assert set(INVALID) - REFUSED.keys() == TOLERATED


def fingerprint(message: Request | Response) -> tuple[object, ...]:
    start = (message.method, message.uri) if isinstance(message, Request) else (message.status, message.reason)
    fields = [(name.lower(), value) for name, value in message.headers if name != "Content-Length"]
    return (*start, fields, message.body, message.via, message.from_, message.to, message.cseq, message.call_id)


@pytest.mark.parametrize("name", sorted((VALID | BEHAVIOUR | INVALID).keys() - REFUSED.keys()))
def test_what_is_taken_comes_out_equivalent(name: str) -> None:
    message = parse((VALID | BEHAVIOUR | INVALID)[name])
    again = parse(message.encode())
    assert fingerprint(again) == fingerprint(message)
    assert again.headers.get("Content-Length") == str(len(message.body))


@pytest.mark.parametrize(("name", "status", "answerable"), [(name, *want) for name, want in REFUSED.items()])
def test_what_is_refused_has_its_status(name: str, status: int, answerable: bool) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse((INVALID | BEHAVIOUR)[name])
    assert caught.value.status == status
    partial = caught.value.partial
    if answerable:
        assert partial is not None
        response = Response.make(partial, status, to_tag="ours").encode()
        assert response.startswith(f"SIP/2.0 {status} ".encode())
        assert f"\r\nCSeq: {partial.headers.get('CSeq')}\r\n".encode() in response
    else:
        assert partial is None


def test_wsinv_is_read_through_its_folds() -> None:
    message = parse(valid.WSINV)
    assert isinstance(message, Request)
    assert message.method == "INVITE"
    assert message.request_uri.params == {"unknownparam": None}
    assert message.to.uri.user == "vivekg"
    assert message.to_tag == "1918181833n"
    assert message.from_.display == 'J Rosenberg \\"'
    assert message.from_tag == "98asjd8"
    assert int(message.headers.get("Max-Forwards")) == 68
    assert message.cseq == (9, "INVITE")
    assert [(via.transport, via.host, via.branch) for via in message.vias] == [
        ("UDP", "192.0.2.2", "390skdjuw"),
        ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
        ("UDP", "192.168.255.111", "z9hG4bK30239"),
    ]
    assert "Subject" in message.headers
    assert message.headers.get("Subject", "none") == ""
    assert message.headers.get("NewFangledHeader") == "newfangled value continued newfangled value"
    assert message.headers.get("unknownheaderwithunusualvalue") == ";;,,;;,;"
    assert message.contact is not None
    assert message.contact.display == 'Quoted string ""'
    assert message.contact.params == {"newparam": "newvalue", "secondparam": None, "q": "0.33"}
    assert message.headers.get("Route").startswith("<sip:services.example.com;lr")
    assert [media.kind for media in sdp.parse(message.body).media] == ["audio", "video"]


def test_intmeth_keeps_every_valid_character() -> None:
    message = parse(valid.INTMETH)
    assert isinstance(message, Request)
    assert message.method == "!interesting-Method0123456789_*+`.%indeed'~"
    uri = message.request_uri
    assert uri.user == "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
    assert uri.password == "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"
    assert message.to.display == "BEL:\x07 NUL:\x00 DEL:\x7f"
    assert message.from_.params["fromparam''~+*_!.-%"] == "работающий"
    assert message.from_tag == "_token~1'+`*%!-."
    assert caller_of(message).display == "token1~` token2'+_ token3*%!.-"
    assert message.headers.get("extensionHeader-!.%*+_`'~") == "\ufeff大停電"


def test_escapes_are_resolved_in_uris_only() -> None:
    message = parse(valid.ESC01)
    assert isinstance(message, Request)
    assert message.request_uri.user == "sips:user@example.com"
    assert called_of(message) == "sip:sips%3Auser%40example.com@example.net"
    assert same(message.to.uri, Uri.parse("sip:user@example.com"))
    assert message.contact is not None
    assert message.contact.uri.user == "caller"
    assert message.contact.uri.params == {"lr": None, "name": "value%41"}
    registers = parse(valid.ESC02)
    assert isinstance(registers, Request)
    assert registers.method == "RE%47IST%45R"
    assert registers.to.display == "%Z%45"
    assert len(registers.headers.all("Contact")) == 2
    nulls = parse(valid.ESCNULL)
    assert nulls.to.uri.user == "null-\x00-null"
    assert str(nulls.to.uri.replace(port=5070)) == "sip:null-%00-null@example.com:5070"


def test_two_requests_in_one_datagram_are_one_and_in_a_stream_two() -> None:
    only = parse(valid.DBLREQ)
    assert isinstance(only, Request)
    assert (only.method, only.body) == ("REGISTER", b"")
    first, second = StreamParser().feed(valid.DBLREQ)
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert (first.method, second.method) == ("REGISTER", "INVITE")
    assert len(second.body) == 150


def test_what_the_layers_above_judge_is_handed_to_them() -> None:
    assert str(parse(behaviour.UNKSM2).to.uri) == "isbn:2983792873"
    unknown = parse(behaviour.UNKSCM)
    assert isinstance(unknown, Request)
    assert unknown.request_uri.scheme == "nobodyknowsthisscheme"
    assert parse(behaviour.BEXT01).headers.get("Require") == "nothingSupportsThis, nothingSupportsThisEither"
    assert parse(behaviour.INVUT).content_type == "application/unknownformat"
    assert [via.host for via in parse(behaviour.BCAST).vias] == ["192.0.2.198", "255.255.255.255"]
    assert parse(behaviour.ZEROMF).headers.get("max-forwards") == "0"
    param = parse(behaviour.CPARAM01).contact
    assert param is not None
    assert (param.params, param.uri.params) == ({"unknownparam": None}, {})
    param = parse(behaviour.CPARAM02).contact
    assert param is not None
    assert (param.params, param.uri.params) == ({}, {"unknownparam": None})
    embedded = parse(behaviour.REGESCRT).contact
    assert embedded is not None
    assert embedded.uri.headers == {"route": "<sip:sip.example.com>"}
    assert parse(invalid.BADBRANCH).via.branch == "z9hG4bK"
    old = parse(behaviour.INV2543)
    assert (old.via.branch, old.from_tag, len(old.body)) == ("", "", 105)
    assert parse(invalid.BADDN).from_.uri.user == "a.g.bell"
    assert parse(invalid.BADASPEC).to.uri.user == "t.watson"
    assert parse(valid.UNREASON).body.startswith(b"v=0")
    no_reason = parse(valid.NOREASON)
    assert isinstance(no_reason, Response)
    assert (no_reason.status, no_reason.reason) == (100, "")
