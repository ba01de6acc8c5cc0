"""The guard: every special address refused, names resolved once, caches bounded."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address

import pytest
import pytest_asyncio

from trunkline.webhooks import guard as module
from trunkline.webhooks.failures import HostRefused, HostUnknown
from trunkline.webhooks.guard import Guard, refusal

SPECIAL = """0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 169.254.1.1 169.254.169.254
    168.63.129.16 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1
    198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 64:ff9b::7f00:1 64:ff9b::808:808 64:ff9b:1::1 100::1 2001::1
    2001:10::1 2001:db8::1 2002:7f00:1::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1
    ff02::1"""


@pytest.mark.parametrize("address", SPECIAL.split())
def test_special_addresses_are_refused(address: str) -> None:
    assert refusal(ip_address(address)) is not None


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"]
)
def test_public_addresses_are_not(address: str) -> None:
    assert refusal(ip_address(address)) is None


class Names:
    """A resolver that answers from a table and counts."""

    def __init__(self, **table: list[str]) -> None:
        self.table = table
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if self.gate is not None:
            await self.gate.wait()
        try:
            return self.table[host]
        except KeyError:
            raise OSError("no such host") from None


@pytest_asyncio.fixture
async def system() -> AsyncIterator[Guard]:
    made = Guard()
    yield made
    made.close()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "127.1", "0x7f.0.0.1", "017700000001", "::1", "0"]
)
async def test_loopback_in_every_spelling(system: Guard, host: str) -> None:
    with pytest.raises((HostRefused, HostUnknown)) as caught:
        await system.resolve(host)
    assert caught.value.code == 11210


async def test_the_development_guard_lets_loopback_through_and_nothing_else() -> None:
    guard = Guard.development()
    assert await guard.resolve("127.0.0.1") == "127.0.0.1"
    assert await guard.resolve("::1") == "::1"
    for host in ("10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1"):
        with pytest.raises(HostRefused):
            await guard.resolve(host)


async def test_allowed_networks() -> None:
    guard = Guard(["10.1.0.0/16", "fd00::/8"])
    assert await guard.resolve("10.1.2.3") == "10.1.2.3"
    assert await guard.resolve("fd00::5") == "fd00::5"
    with pytest.raises(HostRefused):
        await guard.resolve("10.2.0.1")


async def test_allowed_host_names_and_private_networks() -> None:
    guard = Guard(["App.internal", "10.0.0.7"], resolver=Names(**{"app.internal": ["10.1.2.3"], "b": ["10.1.2.3"]}))
    assert await guard.resolve("app.internal") == "10.1.2.3"
    assert await guard.resolve("10.0.0.7") == "10.0.0.7"
    with pytest.raises(HostRefused):
        await guard.resolve("b")
    guard = Guard(module.PRIVATE)
    for address in ("127.0.0.1", "192.168.1.1", "fd00::1"):
        assert await guard.resolve(address) == address
    for address in ("0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1"):
        with pytest.raises(HostRefused):
            await guard.resolve(address)


def test_a_bad_network_in_the_configuration_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="host bits"):
        Guard(["10.1.2.3/8"])


async def test_a_name_with_good_and_bad_addresses_is_pinned_to_a_good_one() -> None:
    guard = Guard(resolver=Names(mixed=["127.0.0.1", "1.1.1.1", "garbage", "8.8.8.8"]))
    assert await guard.resolve("mixed") == "1.1.1.1"
    guard.demote("mixed", "1.1.1.1")
    assert await guard.resolve("mixed") == "8.8.8.8"
    guard.demote("mixed", "1.1.1.1")
    assert await guard.resolve("mixed") == "8.8.8.8"


async def test_the_refusal_does_not_tell_the_address() -> None:
    guard = Guard(resolver=Names(inside=["10.9.8.7"]))
    with pytest.raises(HostRefused) as caught:
        await guard.resolve("inside")
    assert "10.9" not in str(caught.value)


async def test_answers_are_cached_for_their_time() -> None:
    names = Names(a=["1.1.1.1"])
    guard = Guard(resolver=names, ttl_s=60)
    now = asyncio.get_running_loop().time()
    assert guard.cached("a", now) is None
    await guard.resolve("a")
    names.table["a"] = ["127.0.0.1"]  # rebinding: must not matter while the answer is cached ...
    assert await guard.resolve("a") == "1.1.1.1"
    assert guard.cached("a", now) == "1.1.1.1"
    assert guard.cached("a", now + 61) is None
    assert names.asked == ["a"]
    guard = Guard(resolver=names, ttl_s=0)  # ... and is refused when it is asked again
    with pytest.raises(HostRefused):
        await guard.resolve("a")


async def test_failures_are_cached_too() -> None:
    names = Names()
    guard = Guard(resolver=names)
    for _ in range(3):
        with pytest.raises(HostUnknown, match="does not resolve"):
            await guard.resolve("gone")
    assert names.asked == ["gone"]


async def test_one_lookup_for_all_who_ask_at_once() -> None:
    names = Names(a=["1.1.1.1"])
    names.gate = asyncio.Event()
    guard = Guard(resolver=names)
    calls = [asyncio.ensure_future(guard.resolve("a")) for _ in range(10)]
    await asyncio.sleep(0)
    calls[0].cancel()  # must not take the others' answer away
    await asyncio.sleep(0)
    names.gate.set()
    assert await asyncio.gather(*calls[1:]) == ["1.1.1.1"] * 9
    assert names.asked == ["a"]


async def test_a_slow_name_server_is_given_up() -> None:
    names = Names(a=["1.1.1.1"])
    names.gate = asyncio.Event()
    guard = Guard(resolver=names, timeout_s=0.05)
    with pytest.raises(HostUnknown, match="longer than"):
        await guard.resolve("a")
    with pytest.raises(HostUnknown, match=r"0\.01"):
        await guard.resolve("b", timeout_s=0.01)
    guard.close()
    await asyncio.sleep(0)


async def test_while_no_name_server_answers_the_last_address_is_used_on() -> None:
    names = Names(shop=["1.1.1.1"])
    answers: list[BaseException] = []

    async def ask(host: str) -> Sequence[str]:
        if answers:
            raise answers[0]
        return await names(host)

    guard = Guard(resolver=ask, ttl_s=0)
    answers[:] = [socket.gaierror(socket.EAI_AGAIN, "silent")]
    with pytest.raises(HostUnknown):
        await guard.resolve("shop")
    answers.clear()
    assert await guard.resolve("shop") == "1.1.1.1"
    for silent in (socket.gaierror(socket.EAI_AGAIN, "silent"), TimeoutError()):
        answers[:] = [silent]
        assert await guard.resolve("shop") == "1.1.1.1"
    answers[:] = [socket.gaierror(socket.EAI_NONAME, "gone")]
    with pytest.raises(HostUnknown):
        await guard.resolve("shop")
    answers[:] = [TimeoutError()]
    with pytest.raises(HostUnknown):
        await guard.resolve("shop")


async def test_a_silent_name_server_is_not_waited_for_where_an_address_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STALE_AFTER_S", 0.01)
    names, silent = Names(shop=["1.1.1.1"]), asyncio.Event()

    async def ask(host: str) -> Sequence[str]:
        if silent.is_set():
            await asyncio.Event().wait()
        return await names(host)

    guard = Guard(resolver=ask, ttl_s=0, timeout_s=600)
    assert await guard.resolve("shop") == "1.1.1.1"
    silent.set()
    assert await asyncio.wait_for(guard.resolve("shop"), 20) == "1.1.1.1"
    guard.close()


async def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED_HOSTS", 3)
    monkeypatch.setattr(module, "MAX_PENDING_LOOKUPS", 2)
    names = Names(**{f"h{n}": ["1.1.1.1"] for n in range(5)})
    guard = Guard(resolver=names)
    for n in range(5):
        await guard.resolve(f"h{n}")
    now = asyncio.get_running_loop().time()
    assert [guard.cached(f"h{n}", now) is not None for n in range(5)] == [False, False, True, True, True]
    names.gate = asyncio.Event()
    calls = [asyncio.ensure_future(guard.resolve(f"x{n}")) for n in range(3)]
    with pytest.raises(HostUnknown, match="too many"):
        await calls[2]
    names.gate.set()
    await asyncio.gather(*calls, return_exceptions=True)


def test_what_a_known_address_of_a_host_is() -> None:
    guard = Guard(("10.1.0.0/16", "pbx.example"))
    assert not guard.refuses("a.example", "8.8.8.8")
    assert not guard.refuses("a.example", "10.1.2.3")
    assert not guard.refuses("pbx.example", "10.9.9.9")
    for address in ("10.9.9.9", "127.0.0.1", "[::1]", "169.254.169.254", "none"):
        assert guard.refuses("a.example", address), address
