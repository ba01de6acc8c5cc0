"""Which legs have SRTP."""

import pytest

from trunkline.settings import Sip, Trunk
from trunkline.sip import sdes
from trunkline.sip.errors import NotAcceptable
from trunkline.sip.offer_answer import Local
from trunkline.voice import securing

OPEN = Sip(srtp_without_tls=True)


def trunk(srtp: str) -> Trunk:
    return Trunk(name="t", srtp=srtp)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("srtp", "transport", "expected"),
    [
        ("off", "TLS", "optional"),
        ("optional", "TLS", "optional"),
        ("required", "TLS", "required"),
        ("off", "UDP", "off"),
        ("optional", "TCP", "off"),
    ],
)
def test_calls_that_come_in(srtp: str, transport: str, expected: str) -> None:
    assert securing.incoming(trunk(srtp), transport, Sip()) == expected
    assert securing.incoming(trunk(srtp), transport, OPEN) == ("optional" if expected == "off" else expected)


def test_a_phone_over_tls_may_have_it() -> None:
    assert securing.incoming(None, "TLS", Sip()) == "optional"
    assert securing.incoming(None, "TCP", Sip()) == "off"


@pytest.mark.parametrize(
    ("srtp", "transport", "expected"),
    [
        ("off", "TLS", "off"),
        ("optional", "TLS", "required"),
        ("required", "TLS", "required"),
        ("off", "UDP", "off"),
        ("optional", "", "off"),
    ],
)
def test_calls_that_go_out(srtp: str, transport: str, expected: str) -> None:
    assert securing.outgoing(trunk(srtp), transport, Sip()) == expected
    assert securing.outgoing(trunk("optional"), transport, OPEN) == "required"


@pytest.mark.parametrize("transport", ["UDP", "TCP", ""])
def test_keys_that_are_required_never_travel_in_the_open(transport: str) -> None:
    with pytest.raises(NotAcceptable):
        securing.incoming(trunk("required"), transport, Sip())
    with pytest.raises(NotAcceptable):
        securing.outgoing(trunk("required"), transport, Sip())
    assert securing.incoming(trunk("required"), transport, OPEN) == "required"
    assert securing.outgoing(trunk("required"), transport, OPEN) == "required"


def test_only_where_it_is_optional_a_refusal_leads_to_plain_audio() -> None:
    assert securing.may_be_plain(trunk("optional"), 488, "required")
    assert securing.outgoing(trunk("optional"), "TLS", Sip(), refused=True) == "off"
    assert not securing.may_be_plain(trunk("optional"), 488, "off")
    assert not securing.may_be_plain(trunk("optional"), 486, "required")
    assert not securing.may_be_plain(trunk("required"), 488, "required")
    assert securing.outgoing(trunk("required"), "TLS", Sip(), refused=True) == "required"


def test_every_leg_has_keys_of_its_own() -> None:
    first, second = securing.keys("optional"), securing.keys("optional")
    assert len({*first, *second}) == 2 * len(sdes.SUITES)
    assert securing.keys("off") == ()


def test_another_phone_in_the_peers_place_gets_keys_of_its_own() -> None:
    local = Local(address="192.0.2.1", port=4000, session_id=1, version=3, srtp="optional", srtp_keys=("a", "b"))
    fresh = securing.renewed(local, trunk("off"), "TLS", Sip())
    assert not {*fresh.srtp_keys} & {*local.srtp_keys}
    assert (fresh.port, fresh.version, fresh.srtp) == (4000, 3, "optional")
    assert securing.renewed(local, trunk("off"), "UDP", Sip()).srtp_keys == ()
    with pytest.raises(NotAcceptable):
        securing.renewed(local, trunk("required"), "UDP", Sip())
