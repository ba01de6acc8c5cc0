"""Questions to a real name server on loopback."""

import socket

import pytest

from tests.sip.zone import Zone
from trunkline.sip.resolve import Found, Naptr, Srv
from trunkline.sip.transport_dns import Names

RECORDS = {
    ("example.com", "NAPTR"): ['10 20 "s" "SIP+D2T" "" _sip._tcp.example.com.'],
    ("_sip._tcp.example.com", "SRV"): ["0 5 5062 a.example.com."],
    ("_sip._udp.example.com", "SRV"): ["0 5 0 ."],
    ("a.example.com", "A"): ["192.0.2.1", "192.0.2.2"],
    ("a.example.com", "AAAA"): ["2001:db8::1"],
    ("empty.example.com", "TXT"): ["x"],
}


@pytest.fixture
async def zone():
    zone = await Zone(RECORDS, ttl=77).start()
    yield zone
    zone.close()


def names(zone, family=socket.AF_INET):
    return Names([zone.server], lambda: family)


async def test_records_are_read(zone):
    ask = names(zone)
    assert await ask("example.com", "NAPTR") == Found([Naptr(10, 20, "s", "SIP+D2T", "_sip._tcp.example.com")], 77.0)
    assert await ask("_sip._tcp.example.com", "SRV") == Found([Srv(0, 5, 5062, "a.example.com")], 77.0)
    assert (await ask("_sip._udp.example.com", "SRV")).records == [Srv(0, 5, 0, "")]
    assert sorted((await ask("a.example.com", "HOST")).records) == ["192.0.2.1", "192.0.2.2"]
    six = await names(zone, socket.AF_INET6)("a.example.com", "HOST")
    assert six.records[0] == "2001:db8::1"
    assert len(six.records) == 3


async def test_what_does_not_exist_is_empty_and_a_host_without_address_an_error(zone):
    ask = names(zone)
    assert not (await ask("nobody.example.com", "SRV")).records
    assert not (await ask("empty.example.com", "SRV")).records
    with pytest.raises(OSError, match="no address"):
        await ask("nobody.example.com", "HOST")


async def test_a_server_that_fails_or_is_silent_is_an_error(zone, monkeypatch):
    zone.broken.add("example.com")
    with pytest.raises(OSError, match=r"example\.com"):
        await names(zone)("example.com", "NAPTR")
    monkeypatch.setattr("trunkline.sip.transport_dns.QUERY_S", 0.2)
    zone.deaf = True
    with pytest.raises(OSError, match="LifetimeTimeout"):
        await names(zone)("example.com", "NAPTR")


async def test_names_that_are_none_are_errors(zone):
    for name in ("a" * 64 + ".example.com", "a..example.com", "x." * 200 + "com"):
        with pytest.raises(OSError, match=r"."):
            await names(zone)(name, "SRV")


async def test_localhost_is_never_asked_for(zone):
    assert (await names(zone)("localhost", "HOST")).records == ("127.0.0.1",)
    assert not zone.asked


async def test_without_servers_the_system_finds_addresses():
    ask = Names((), lambda: socket.AF_INET)
    assert (await ask(socket.gethostname(), "HOST")).records or True
    with pytest.raises(OSError, match=r"."):
        await ask("a" * 64, "HOST")


@pytest.mark.parametrize("text", ["192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:53"])
def test_servers_are_written_as_usual(text):
    (server,) = Names([text], lambda: socket.AF_INET)._servers
    assert str(server.address) in text
    assert server.port in (53, 5353)
