"""baresip with SRTP (libsrtp's relative, keys in the SDP) at the whole server: over TLS, and over UDP where that is
allowed."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.certificates import Authority
from tests.interop.phone_calls import GREETING, Start, a_held_call, an_ivr, says, starts  # noqa: F401  (fixtures)
from tests.interop.switch import HOST, NUMBER, Switch
from tests.ports import free_port

TO_UDP, TO_TLS = "+120255541", "+120255542"
SLOW = pytest.mark.slow
SUITE = "AES_CM_128_HMAC_SHA1_80"


class Ports(NamedTuple):
    """Of those who are called, and of the server's TLS; the phone's own TLS is on the port after its own."""

    udp: int
    tls: int
    server: int
    certificate: str


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Ports:
    folder = tmp_path_factory.mktemp("certificates")
    files = Authority(folder).issue("both")
    both = folder / "both-in-one.pem"
    both.write_bytes(files.chain.read_bytes() + files.key.read_bytes())
    return Ports(free_port(span=2), free_port(span=2), free_port(), str(both))


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> Iterator[Switch]:
    trunks: list[dict[str, Any]] = [
        {"name": "near", "addresses": [f"{HOST}/32"], "prefixes": []},
        {"name": "udp", "gateways": [f"sip:{HOST}:{ports.udp}"], "prefixes": [TO_UDP], "srtp": "required"},
        {
            "name": "tls", "gateways": [f"sip:{HOST}:{ports.tls + 1};transport=tls"], "prefixes": [TO_TLS],
            "srtp": "optional",
        },
    ]  # fmt: skip
    sip = {
        "srtp_without_tls": True, "tls_port": ports.server, "tls_certificate": ports.certificate, "tls_verify": False,
    }  # fmt: skip
    running = Switch(tmp_path_factory.mktemp("switch"), trunks, sip=sip)
    try:
        yield running.start()
        assert not running.errors()
        text = running.server.tail()
        assert "inline:" not in text
    finally:
        running.close()


def secured(switch: Switch) -> bool:
    """Whether the last call's timeline tells that its audio was encrypted."""
    last = switch.client.calls.list(limit=1)[0]
    told = switch.fetch(f"{switch.url}/2010-04-01/Accounts/{switch.account.sid}/Calls/{last.sid}/Timeline.json")
    assert b"inline:" not in told
    return SUITE.encode() in told


@pytest.mark.parametrize(
    ("transport", "srtp"),
    [
        ("UDP", "srtp"),
        ("TLS", "srtp-mand"),
        pytest.param("UDP", "srtp-mand", marks=SLOW),
        pytest.param("TLS", "srtp", marks=SLOW),
    ],
)
def test_it_calls_with_keys(switch: Switch, start: Start, ports: Ports, transport: str, srtp: str) -> None:
    port = switch.sip_port if transport == "UDP" else ports.server
    phone = start(transport=transport, srtp=srtp, certificate=ports.certificate)
    an_ivr(switch, phone, f"sip:{NUMBER}@{switch.host}:{port};transport={transport.lower()}")
    assert secured(switch)


@pytest.mark.parametrize("transport", [pytest.param("UDP", marks=SLOW), "TLS"])
def test_it_is_called_with_keys_and_holds(switch: Switch, start: Start, ports: Ports, transport: str) -> None:
    number = f"{TO_UDP if transport == 'UDP' else TO_TLS}77"
    port = ports.udp if transport == "UDP" else ports.tls
    phone = start(transport=transport, srtp="srtp-mand", port=port, user=number, certificate=ports.certificate)
    a_held_call(switch, phone, number)
    assert secured(switch)


def test_a_phone_without_srtp_is_called_without_where_it_is_optional(
    switch: Switch, start: Start, ports: Ports
) -> None:
    number = f"{TO_TLS}78"
    phone = start(transport="TLS", port=ports.tls, user=number, certificate=ports.certificate)
    switch.app.hooks.clear()
    switch.calls(number, f"<Play loop='0'>{switch.app.url}/greeting.wav</Play>")
    phone.hears(GREETING)
    phone.does("hangup")
    assert switch.ends() == ["completed"]
    assert not secured(switch)
