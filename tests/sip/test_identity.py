"""Who calls, as headers tell it."""

import pytest

from tests.sip.samples import invite
from trunkline.sip.headers import NameAddr
from trunkline.sip.identity import (
    MAX_IDENTITIES,
    MAX_IDENTITY_CHARACTERS,
    asserted,
    diverted,
    identities,
    name_addr,
    passport,
    sip_uri,
    verification,
)
from trunkline.sip.message import Request, parse
from trunkline.sip.number import forwarded_from

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJhdHRlc3QiOiJBIn0.c2lnbmF0dXJl"


def request(*lines: str) -> Request:
    message = parse(invite(*lines, drop=("P-Asserted-Identity",)))
    assert isinstance(message, Request)
    return message


def test_uris_of_numbers_and_names() -> None:
    assert sip_uri("+4930123456", "pbx.example") == "sip:+4930123456@pbx.example"
    assert sip_uri("+4930123456", "2001:db8::1", phone=True) == "sip:+4930123456@[2001:db8::1];user=phone"
    assert sip_uri("a b#", "x") == "sip:a%20b%23@x"


@pytest.mark.parametrize(
    ("display", "written"),
    [("", "<sip:a@b>"), ("Ann", '"Ann" <sip:a@b>'), ('A"n\\n\r\nX: y<>', '"AnnX: y" <sip:a@b>')],
)
def test_a_name_cannot_leave_its_quotes(display: str, written: str) -> None:
    assert name_addr(display, "sip:a@b") == written
    assert NameAddr.parse(written).uri.user == "a"


def test_the_caller_besides_from() -> None:
    assert asserted(("pai", "ppi"), "sip:+1@x", private=False) == [
        ("P-Asserted-Identity", "<sip:+1@x>"), ("P-Preferred-Identity", "<sip:+1@x>"),
    ]  # fmt: skip
    assert asserted(("rpid",), "sip:+1@x", private=True) == [
        ("Remote-Party-ID", "<sip:+1@x>;party=calling;screen=yes;privacy=full"), ("Privacy", "id"),
    ]  # fmt: skip
    assert asserted(("pai",), "", private=True) == [("Privacy", "id")]


@pytest.mark.parametrize("kind", ["diversion", "history-info"])
def test_what_we_say_of_diverted_calls_is_what_we_read(kind: str) -> None:
    ((name, value),) = diverted(kind, "sip:+14155550100@us.example", "sip:+14155550199@them.example")
    assert forwarded_from(request(f"{name}: {value}")) == "+14155550100"


def test_nothing_is_said_where_nothing_is_wanted() -> None:
    assert diverted("none", "sip:a@b", "sip:c@d") == []


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["P-Asserted-Identity: <sip:+1@x;verstat=TN-Validation-Passed>"], "TN-Validation-Passed"),
        (
            ["P-Asserted-Identity: <sip:+1@x;verstat=TN-Validation-Passed>", "P-Attestation-Indicator: b"],
            "TN-Validation-Passed-B",
        ),
        (
            ["P-Asserted-Identity: <sip:+1@x;verstat=No-TN-Validation>", "P-Attestation-Indicator: A"],
            "No-TN-Validation",
        ),
        (["P-Asserted-Identity: <sip:+1@x>"], ""),
    ],
)
def test_what_was_verified(lines: list[str], status: str) -> None:
    assert verification(request(*lines)) == status


def test_signed_identities_are_kept_within_bounds() -> None:
    value = f"{TOKEN};info=<https://x/c.pem>;alg=ES256;ppt=shaken"
    many = [f"Identity: {value}"] * (MAX_IDENTITIES + 2)
    assert identities(request(*many)) == [value] * MAX_IDENTITIES
    assert identities(request("Identity: " + "x" * (MAX_IDENTITY_CHARACTERS + 1))) == []


@pytest.mark.parametrize(
    ("values", "token"),
    [([f"{TOKEN};info=<https://x>"], TOKEN), (["..sig;info=<https://x>", TOKEN], TOKEN), (["rubbish"], ""), ([], "")],
)
def test_the_passport_of_an_identity(values: list[str], token: str) -> None:
    assert passport(values) == token
