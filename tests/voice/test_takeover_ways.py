"""What an operator reads of each trunk."""

import pytest

from trunkline.settings import Sip, Trunk
from trunkline.voice import takeover_ways
from trunkline.voice.takeover_ways import takeover_of, takeover_of_phones

EDGE = "sip:192.0.2.10:5060;transport=tcp"
UDP, TCP, TLS = "sip:10.0.0.5", "sip:10.0.0.5:5070;transport=tcp", "sips:carrier.example.com"


@pytest.mark.parametrize(
    ("trunk", "sip", "expected"),
    [
        ({"simulated": True}, {}, takeover_ways.SIMULATED),
        ({"gateways": (UDP,), "username": "us"}, {}, takeover_ways.BY_LOGIN),
        ({"gateways": (UDP,)}, {}, takeover_ways.BY_ADDRESS),
        ({"gateways": (UDP,)}, {"advertised": "192.0.2.1"}, takeover_ways.MOVES.format("192.0.2.1")),
        ({"gateways": (EDGE,)}, {"edges": ("192.0.2.10",)}, takeover_ways.BY_EDGE.format("192.0.2.10")),
        (
            {"gateways": (UDP, EDGE), "username": "us"},
            {"edges": ("192.0.2.10", "192.0.2.20")},
            takeover_ways.BY_LOGIN + takeover_ways.BESIDE_EDGE.format("192.0.2.10 or 192.0.2.20"),
        ),
        (
            {"addresses": ("10.0.0.5",)},
            {"edges": ("192.0.2.10",)},
            takeover_ways.BY_ADDRESS + takeover_ways.BESIDE_EDGE.format("192.0.2.10"),
        ),
        ({"advertised": "192.0.2.7"}, {"advertised": "192.0.2.1"}, takeover_ways.MOVES.format("192.0.2.7")),
    ],
)
def test_one_line_for_each_kind_of_trunk(trunk: dict, sip: dict, expected: str) -> None:
    assert takeover_of(Trunk(name="carrier", **trunk), Sip(**sip)) == expected


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"gateways": (TCP,)}, "over TCP "),
        ({"gateways": (UDP, TLS, TCP)}, "over TCP and TLS "),
        ({"tls_names": ("*.carrier.example",)}, "over TLS "),
    ],
)
def test_connections_end_with_their_host(fields: dict, named: str) -> None:
    line = takeover_of(Trunk(name="carrier", username="us", **fields))
    assert line.startswith(takeover_ways.BY_LOGIN)
    assert named in line
    assert "\n" not in line


def test_phones() -> None:
    assert takeover_of_phones(Sip()) == takeover_ways.PHONES
    assert takeover_of_phones(Sip(edges=("192.0.2.10",))) == takeover_ways.PHONES_BY_EDGE.format("192.0.2.10")
