"""What a trunk is told of a call, and what is believed of what it tells."""

import pytest

from tests.sip.samples import invite
from trunkline.settings import Gateway, Trunk
from trunkline.sip.message import Request, parse
from trunkline.sip.number import ANONYMOUS
from trunkline.sip.uri import Uri
from trunkline.voice.params import IDENTITY, PASSPORT, VERSTAT
from trunkline.voice.trunk_dialect import Dialect, PassedOn, again, registrar_host

US, THEM, OTHER = "+4930123456", "+33142685300", "+4989987654"
GATEWAY = Uri.parse("sip:sbc.carrier.example:5070;transport=tcp")
TO = Uri.parse(f"sip:{THEM}@sbc.carrier.example")
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJhdHRlc3QiOiJBIn0.c2lnbmF0dXJl"


def dialect(**changes: object) -> Dialect:
    return Dialect(Trunk(**{"name": "acme", "gateways": (str(GATEWAY),), **changes}))  # type: ignore[arg-type]


def request(*lines: str) -> Request:
    drop = {line.partition(":")[0] for line in lines} | {"P-Asserted-Identity"}
    message = parse(invite(*lines, drop=tuple(drop)))
    assert isinstance(message, Request)
    return message


@pytest.mark.parametrize(
    ("changes", "uri"),
    [
        ({}, f"sip:{THEM}@sbc.carrier.example:5070;transport=tcp"),
        ({"user_phone": True}, f"sip:{THEM}@sbc.carrier.example:5070;transport=tcp;user=phone"),
        ({"domain": "ims.carrier.example"}, f"sip:{THEM}@ims.carrier.example"),
        ({"called_format": "international"}, "sip:0033142685300@sbc.carrier.example:5070;transport=tcp"),
        ({"called_format": "e164", "called_add": "9#"}, "sip:9%2333142685300@sbc.carrier.example:5070;transport=tcp"),
    ],
)
def test_whom_an_invite_asks_for(changes: dict[str, object], uri: str) -> None:
    assert str(dialect(**changes).request_uri(GATEWAY, THEM)) == uri


@pytest.mark.parametrize(
    ("changes", "caller", "from_"),
    [
        ({}, US, f"<sip:{US}@us.example>"),
        ({"caller_format": "national", "country_code": "49"}, US, "<sip:030123456@us.example>"),
        ({"user_phone": True}, US, f"<sip:{US}@us.example;user=phone>"),
        ({"domain": "carrier.example"}, US, f"<sip:{US}@carrier.example>"),
        (
            {"register": True, "username": "u", "password": "p", "registrars": ("sip:reg.carrier.example:5070",)},
            US, f"<sip:{US}@reg.carrier.example>",
        ),
        ({"register": True, "username": "u", "password": "p"}, US, f"<sip:{US}@sbc.carrier.example>"),
        ({"from_user": "username", "username": "acct7", "password": "p"}, US, "<sip:acct7@us.example>"),
        ({}, ANONYMOUS, '"Anonymous" <sip:anonymous@anonymous.invalid>'),
        ({}, "alice", "<sip:alice@us.example>"),
        ({}, "sip:alice@10.0.0.9:5062", "<sip:alice@us.example>"),
    ],
)  # fmt: skip
def test_who_stands_in_from(changes: dict[str, object], caller: str, from_: str) -> None:
    assert dialect(**changes).from_(caller, "", "us.example") == from_


@pytest.mark.parametrize(
    ("changes", "caller", "fields"),
    [
        ({}, US, [("P-Asserted-Identity", f"<sip:{US}@us.example>")]),
        ({"identity_headers": ()}, US, []),
        (
            {"identity_headers": ("ppi", "rpid")}, US,
            [
                ("P-Preferred-Identity", f"<sip:{US}@us.example>"),
                ("Remote-Party-ID", f"<sip:{US}@us.example>;party=calling;screen=yes;privacy=off"),
            ],
        ),
        ({}, ANONYMOUS, [("Privacy", "id")]),
        (
            {"asserted_number": OTHER}, ANONYMOUS,
            [("P-Asserted-Identity", f"<sip:{OTHER}@us.example>"), ("Privacy", "id")],
        ),
        ({"asserted_number": OTHER}, "alice", [("P-Asserted-Identity", f"<sip:{OTHER}@us.example>")]),
        ({}, "sip:alice@10.0.0.9", []),
    ],
)  # fmt: skip
def test_who_is_asserted(changes: dict[str, object], caller: str, fields: list[tuple[str, str]]) -> None:
    assert dialect(**changes).headers(caller, TO, None, "us.example") == fields


def test_a_call_that_is_passed_on_says_so_where_that_is_wanted() -> None:
    passed = PassedOn(OTHER, [f"{TOKEN};info=<https://x>"])
    names = [name for name, _ in dialect().headers(US, TO, passed, "us.example")]
    assert names == ["P-Asserted-Identity"]
    fields = dialect(diversion="diversion", identity=True).headers(US, TO, passed, "us.example")[1:]
    assert fields == [
        ("Diversion", f"<sip:{OTHER}@us.example>;reason=unconditional;counter=1;privacy=off"),
        ("Identity", f"{TOKEN};info=<https://x>"),
    ]


def test_whom_a_call_is_for() -> None:
    plan = dialect(country_code="49")
    assert plan.called(request("To: <sip:x@y>")) == plan.called(request())
    message = request("To: <sip:030123456@carrier.example>")
    assert plan.called(message, "acme-1") == US
    message = request("P-Called-Party-ID: <tel:+4989987654>", "To: <sip:030123456@carrier.example>")
    assert plan.called(message, "acme-1") == OTHER


def test_an_untrusted_trunk_asserts_nothing() -> None:
    lines = [
        "From: <sip:alice@x>;tag=1",
        f"P-Asserted-Identity: <sip:{THEM}@x;verstat=TN-Validation-Passed-A>",
        f"Identity: {TOKEN};info=<https://x>",
    ]
    trusted, untrusted = dialect(), dialect(trusted=False)
    assert trusted.caller(request(*lines)).number_or_uri == THEM
    assert trusted.vouched(request(*lines)) == {
        VERSTAT: "TN-Validation-Passed-A", IDENTITY: [f"{TOKEN};info=<https://x>"], PASSPORT: TOKEN,
    }  # fmt: skip
    assert untrusted.caller(request(*lines)).number_or_uri == "sip:alice@x"
    assert untrusted.vouched(request(*lines)) == {}


def test_the_network_may_know_better_than_from() -> None:
    message = request(f'From: "Ann" <sip:{OTHER}@x>;tag=1', f"P-Asserted-Identity: <sip:{THEM}@x>")
    assert dialect().caller(message).number_or_uri == OTHER
    found = dialect(caller_from="asserted").caller(message)
    assert (found.number_or_uri, found.display) == (THEM, "Ann")
    assert dialect(trusted=False).caller_name(found) == ""


@pytest.mark.parametrize(
    ("patterns", "yes", "no"),
    [
        (("408", "5xx"), {408, 500, 599}, {404, 486, 487, 603, 600}),
        (("404", "4xx"), {404, 400, 480, 499}, {486, 487, 503, 600, 603}),
        ((), set(), {408, 503}),
    ],
)
def test_after_which_answers_another_way_is_tried(patterns: tuple[str, ...], yes: set[int], no: set[int]) -> None:
    found = again(patterns)
    assert yes <= found
    assert not no & found


def test_the_host_that_is_registered_with() -> None:
    assert registrar_host(Trunk(name="a", gateways=(Gateway(uri="sip:one.example"),))) == "one.example"
    assert registrar_host(Trunk(name="a")) == ""
