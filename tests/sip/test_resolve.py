"""The order of RFC 3263, the weights of RFC 2782, what is kept and what bounds it."""

import asyncio
import random
from collections import Counter

import pytest

from trunkline.sip import resolve as resolve_module
from trunkline.sip.flow import Target
from trunkline.sip.resolve import Found, Naptr, Resolver, Srv, in_order

DOMAIN = "example.com"
HOSTS = {("a.example.com", "HOST"): ["192.0.2.1"], ("b.example.com", "HOST"): ["192.0.2.2", "192.0.2.3"]}


class Dns:
    """Answers from a table; what is not in it does not exist. `down`: nobody answers."""

    def __init__(self, records, ttl_s=60.0):
        self.records = records
        self.ttl_s = ttl_s
        self.asked = []
        self.down = False
        self.now_s = 1000.0
        self.gate = None

    async def __call__(self, name, kind):
        self.asked.append((name, kind))
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise OSError("DNS does not answer")
        found = self.records.get((name, kind), [])
        if not found and kind == "HOST":
            raise OSError(f"{name} has no address")
        return Found(found, self.ttl_s)

    def resolver(self):
        return Resolver(self, lambda: self.now_s, random.Random(1))


def places(targets):
    return [(target.transport, target.host, target.port) for target in targets]


@pytest.mark.parametrize(
    ("host", "port", "transport", "secure", "expected"),
    [
        ("192.0.2.9", None, "", False, ("", "192.0.2.9", 5060)),
        ("192.0.2.9", 5070, "tcp", False, ("TCP", "192.0.2.9", 5070)),
        ("192.0.2.9", None, "tls", False, ("TLS", "192.0.2.9", 5061)),
        ("192.0.2.9", None, "tcp", True, ("TLS", "192.0.2.9", 5061)),
        ("[2001:db8::1]", None, "", False, ("", "2001:db8::1", 5060)),
    ],
)
async def test_an_address_is_not_asked_for(host, port, transport, secure, expected):
    dns = Dns({})
    assert places(await dns.resolver().resolve(host, port, transport, secure)) == [expected]
    assert not dns.asked


async def test_naptr_comes_first_in_its_order_with_what_we_can_do():
    dns = Dns({
        **HOSTS,
        (DOMAIN, "NAPTR"): [
            Naptr(90, 50, "s", "SIP+D2T", "_sip._tcp.example.com"),
            Naptr(50, 90, "s", "SIP+D2U", "_sip._udp.example.com"),
            Naptr(50, 50, "s", "SIPS+D2T", "_sips._tcp.example.com"),
            Naptr(10, 10, "s", "SIP+D2S", "_sip._sctp.example.com"),
            Naptr(10, 10, "u", "E2U+sip", "!x!y!"),
        ],
        ("_sip._tcp.example.com", "SRV"): [Srv(0, 0, 5080, "a.example.com")],
        ("_sip._udp.example.com", "SRV"): [Srv(0, 0, 5060, "a.example.com")],
        ("_sips._tcp.example.com", "SRV"): [Srv(0, 0, 5061, "b.example.com")],
    })  # fmt: skip
    found = await dns.resolver().resolve("Example.COM.", None)
    assert places(found) == [
        ("TLS", "192.0.2.2", 5061), ("TLS", "192.0.2.3", 5061), ("UDP", "192.0.2.1", 5060), ("TCP", "192.0.2.1", 5080),
    ]  # fmt: skip
    assert found[0].domain == DOMAIN, "the certificate names the domain, not the server that DNS named"
    assert found[2].domain == ""


async def test_a_sips_uri_goes_by_tls_alone():
    dns = Dns({
        **HOSTS,
        ("_sip._udp.example.com", "SRV"): [Srv(0, 0, 5060, "a.example.com")],
        ("_sips._tcp.example.com", "SRV"): [Srv(0, 0, 5065, "a.example.com")],
        ("other.example.com", "HOST"): ["192.0.2.7"],
    })  # fmt: skip
    resolver = dns.resolver()
    assert places(await resolver.resolve(DOMAIN, None, secure=True)) == [("TLS", "192.0.2.1", 5065)]
    assert await resolver.resolve("other.example.com", None, secure=True) == [
        Target("TLS", "192.0.2.7", 5061, "other.example.com")
    ]


async def test_without_naptr_srv_of_every_transport_is_asked():
    dns = Dns({**HOSTS, ("_sip._tcp.example.com", "SRV"): [Srv(0, 0, 5062, "a.example.com")]})
    assert places(await dns.resolver().resolve(DOMAIN, None)) == [("TCP", "192.0.2.1", 5062)]
    assert [one for one in dns.asked if one[1] != "HOST"] == [
        (DOMAIN, "NAPTR"), ("_sip._udp.example.com", "SRV"), ("_sip._tcp.example.com", "SRV"),
        ("_sips._tcp.example.com", "SRV"),
    ]  # fmt: skip


async def test_a_transport_or_port_shortens_the_way():
    srv = {("_sip._tcp.example.com", "SRV"): [Srv(0, 0, 5062, "a.example.com")]}
    dns = Dns({**HOSTS, **srv, (DOMAIN, "HOST"): ["192.0.2.8"]})
    resolver = dns.resolver()
    assert places(await resolver.resolve(DOMAIN, None, "TCP")) == [("TCP", "192.0.2.1", 5062)]
    assert places(await resolver.resolve(DOMAIN, 5070, "TCP")) == [("TCP", "192.0.2.8", 5070)]
    assert places(await resolver.resolve(DOMAIN, 5070)) == [("", "192.0.2.8", 5070)]
    assert not [one for one in dns.asked if one[1] == "NAPTR"]
    assert places(await resolver.resolve(DOMAIN, None, "TLS")) == [("TLS", "192.0.2.8", 5061)]


async def test_a_zone_may_say_that_there_is_nothing():
    """RFC 2782: a target of "." says that the service is decidedly not available."""
    dns = Dns({(DOMAIN, "HOST"): ["192.0.2.8"], ("_sip._udp.example.com", "SRV"): [Srv(0, 0, 0, "")]})
    assert await dns.resolver().resolve(DOMAIN, None, "UDP") == []


async def test_servers_by_priority_and_one_without_address_is_passed_over():
    dns = Dns({
        **HOSTS,
        ("_sip._udp.example.com", "SRV"): [
            Srv(20, 1, 5060, "b.example.com"), Srv(10, 1, 5060, "gone.example.com"), Srv(10, 1, 5060, "a.example.com"),
        ],
    })  # fmt: skip
    assert [one.host for one in await dns.resolver().resolve(DOMAIN, None)] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_weights_are_shares():
    """RFC 2782; one of weight 0 is seldom first beside others."""
    dice = random.Random(1)
    records = [Srv(0, 60, 1, "big"), Srv(0, 30, 1, "small"), Srv(0, 0, 1, "none"), Srv(1, 99, 1, "later")]
    firsts = Counter()
    for _ in range(3000):
        ordered = in_order(records, dice)
        assert sorted(ordered) == sorted(records)
        assert ordered[-1].target == "later"
        firsts[ordered[0].target] += 1
    assert 0.60 < firsts["big"] / 3000 < 0.72
    assert firsts["none"] < 100
    assert in_order([Srv(0, 0, 1, "x"), Srv(0, 0, 1, "y")], dice)


async def test_answers_are_kept_as_long_as_they_say_and_longer_while_dns_is_down():
    dns = Dns({(DOMAIN, "HOST"): ["192.0.2.8"]}, ttl_s=30)
    resolver = dns.resolver()
    for _ in range(3):
        await resolver.resolve(DOMAIN, 5060)
    assert len(dns.asked) == 1
    dns.now_s += 31
    dns.records[DOMAIN, "HOST"] = ["192.0.2.9"]
    assert (await resolver.resolve(DOMAIN, 5060))[0].host == "192.0.2.9"
    dns.down = True
    dns.now_s += 3600
    assert (await resolver.resolve(DOMAIN, 5060))[0].host == "192.0.2.9"
    dns.now_s += resolve_module.STALE_S
    with pytest.raises(OSError, match="does not answer"):
        await resolver.resolve(DOMAIN, 5060)


async def test_that_there_is_nothing_is_kept_too():
    dns = Dns({(DOMAIN, "HOST"): ["192.0.2.8"]}, ttl_s=30)
    resolver = dns.resolver()
    await resolver.resolve(DOMAIN, None)
    asked = len(dns.asked)
    await resolver.resolve(DOMAIN, None)
    assert len(dns.asked) == asked


async def test_dns_that_fails_on_srv_still_leaves_the_address():
    class Odd(Dns):
        async def __call__(self, name, kind):
            if kind != "HOST":
                raise OSError("SERVFAIL")
            return await super().__call__(name, kind)

    dns = Odd({(DOMAIN, "HOST"): ["192.0.2.8"]})
    assert places(await dns.resolver().resolve(DOMAIN, None)) == [("", "192.0.2.8", 5060)]


async def test_one_question_is_asked_once_at_a_time_and_too_many_are_refused(monkeypatch):
    dns = Dns(HOSTS)
    dns.gate = asyncio.Event()
    resolver = dns.resolver()
    monkeypatch.setattr(resolve_module, "MAX_ASKING", 2)
    same = [asyncio.create_task(resolver.resolve("a.example.com", 5060)) for _ in range(5)]
    other = asyncio.create_task(resolver.resolve("b.example.com", 5060))
    await asyncio.sleep(0.01)
    with pytest.raises(OSError, match="too many"):
        await resolver.resolve("c.example.com", 5060)
    same[0].cancel()
    dns.gate.set()
    assert [(await one)[0].host for one in same[1:]] == ["192.0.2.1"] * 4
    assert len(await other) == 2
    assert len(dns.asked) == 2


async def test_a_silent_server_is_given_up(monkeypatch):
    monkeypatch.setattr(resolve_module, "RESOLVE_S", 0.05)
    dns = Dns(HOSTS)
    dns.gate = asyncio.Event()
    with pytest.raises(OSError, match="does not answer"):
        await dns.resolver().resolve("a.example.com", 5060)


async def test_a_hostile_zone_is_bounded(monkeypatch):
    many = [Srv(number, 0, 5060, f"h{number}.example.com") for number in range(1000)]
    records = {
        (DOMAIN, "NAPTR"): [Naptr(number, 0, "s", "SIP+D2U", f"_{number}.example.com") for number in range(1000)]
    }
    for number in range(250):
        records[f"h{number}.example.com", "HOST"] = [f"192.0.{number}.{last}" for last in range(250)]
        records[f"_{number}.example.com", "SRV"] = many
    dns = Dns(records)
    resolver = dns.resolver()
    found = await resolver.resolve(DOMAIN, None)
    assert len(found) <= resolve_module.MAX_TARGETS
    assert len(dns.asked) <= resolve_module.MAX_LOOKUPS
    monkeypatch.setattr(resolve_module, "MAX_CACHED", 20)
    for number in range(200):
        await resolver.resolve(f"h{number}.example.com", 5060)
    assert len(resolver._cache) <= 20 + resolve_module.MAX_LOOKUPS
