"""A carrier's binds and the fence of the node that has them: without sockets, and with an SMSC that takes one bind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.messaging.connectors.contract import MemorySink, Outcomes, message
from tests.messaging.connectors.smsc import Smsc
from trunkline import bootstrap_owned
from trunkline.bootstrap_owned import ConnectorHooks
from trunkline.cluster.fence import Fence
from trunkline.messaging.connectors.base import Receipt, Submission, Unavailable
from trunkline.messaging.connectors.smpp import SmppConnector
from trunkline.messaging.connectors.table import Context
from trunkline.messaging.leased import LeasedConnector
from trunkline.settings import Smpp
from trunkline.settings.kinds import Secret
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.transport import Connection

CARRIER = "connector/carrier"
LEASE_MS = 1000
NEVER_S = 3600.0


class Time:
    """A CLOCK_BOOTTIME of the test's."""

    def __init__(self) -> None:
        self.ns = 1

    def __call__(self) -> int:
        return self.ns


class Binds:
    """A connector that notes how it ended."""

    def __init__(self) -> None:
        self.was: list[str] = []

    def start(self, sink: Any, wake: Callable[[], None]) -> None:
        self.was.append("started")

    def cut(self, reason: str) -> None:
        self.was.append("cut")

    async def stop(self, grace_s: float) -> None:
        self.was.append("stopped")


class Node:
    """A node of a cluster, as far as its carrier goes."""

    def __init__(self, make: Callable[["Node"], Any]) -> None:
        self.time = Time()
        self.fence = Fence(self.time)
        self.made: list[Any] = []

        def made() -> Any:
            self.made.append(make(self))
            return self.made[-1]

        self.leased = LeasedConnector("carrier", made, self)
        self.hooks = ConnectorHooks({"carrier": self.leased}, lambda: 1.0, self.fence)
        self.sink = MemorySink()
        self.leased.start(self.sink, lambda: None)
        self.renew()

    def renew(self) -> None:
        self.fence.extend(self.time.ns, LEASE_MS)

    def cut_off(self) -> None:
        """No renewal comes through for a lease."""
        self.time.ns += LEASE_MS * 1_000_000
        self.fence.check()

    # trunkline.messaging.leased.Holders

    def holder(self, connector: str) -> str | None:
        return None

    def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> Any:
        raise AssertionError("there is nobody to call")

    def open(self) -> bool:
        return self.fence.passes()


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.002)


# -- without sockets ------------------------------------------------------------------------------------------


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    made = Node(lambda node: Binds())
    await made.hooks.gained(CARRIER, "")
    yield made
    await made.leased.stop(1.0)


async def test_binds_are_cut_once_the_fence_is_shut_for_a_while_and_come_back_with_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap_owned, "FENCED_S", 0.01)
    node.cut_off()
    assert node.made[0].was == ["started"], "not at once"
    await until(lambda: node.leased.real is None)
    assert node.made[0].was[:2] == ["started", "cut"]
    assert node.leased.capacity() == 0
    node.renew()
    assert [one.was[:1] for one in node.made] == [["started"], ["started"]]
    assert node.leased.real is node.made[1]


async def test_a_node_that_was_only_slow_keeps_its_binds(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap_owned, "FENCED_S", NEVER_S)
    node.cut_off()
    node.renew()
    assert node.hooks._shut is None, "nothing is to come"
    assert node.made[0].was == ["started"]
    assert node.leased.real is node.made[0]


async def test_a_fence_that_opens_just_then_saves_the_binds(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap_owned, "FENCED_S", NEVER_S)
    node.cut_off()
    node.fence.deadline_ns = node.time.ns + 1  # extended, and not told yet
    node.hooks._cut()
    assert node.made[0].was == ["started"]


async def test_what_was_lost_meanwhile_is_not_bound_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap_owned, "FENCED_S", 0.01)
    node.cut_off()
    await until(lambda: node.leased.real is None)
    node.hooks.lost(CARRIER)
    node.renew()
    assert len(node.made) == 1
    await node.hooks.gained(CARRIER, "")
    assert len(node.made) == 2


async def test_a_lease_that_is_anothers_ends_without_a_word_and_one_handed_over_with_one(node: Node) -> None:
    node.hooks.lost(CARRIER)
    assert node.made[0].was == ["started", "cut"]
    await node.hooks.gained(CARRIER, "")
    await node.hooks.released(CARRIER)
    assert node.made[1].was == ["started", "stopped"]


# -- with an SMSC ---------------------------------------------------------------------------------------------


class OneBind(Smsc):
    """It takes one bind of a system_id, and notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []

    def on_bind_request(self, connection: Connection, sequence: int, pdu: p.Bind) -> None:
        self.bind_status = c.ESME_RALYBND if self.bound else c.ESME_ROK
        super().on_bind_request(connection, sequence, pdu)

    def on_closed(self, connection: Connection, reason: str) -> None:
        if connection in self.bound:
            self.reasons.append(reason)
        super().on_closed(connection, reason)


@pytest.fixture
async def smsc() -> AsyncIterator[OneBind]:
    made = OneBind()
    await made.start()
    yield made
    await made.stop()


def over_smpp(smsc: Smsc) -> Callable[[Node], SmppConnector]:
    own = Smpp(
        name="carrier", host="127.0.0.1", port=smsc.port, system_id="trunk", password=Secret("secret"),
        reconnect_first_s=0.02, reconnect_longest_s=0.1,
    )  # fmt: skip
    return lambda node: SmppConnector(own, Context(may_send=node.open))


async def test_a_carrier_of_one_bind_gives_to_the_heir_what_the_cut_off_node_did_not_acknowledge(
    smsc: OneBind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partial cut: the node has its carrier, and nobody else."""
    monkeypatch.setattr(bootstrap_owned, "FENCED_S", NEVER_S)
    cut_off, heir = Node(over_smpp(smsc)), Node(over_smpp(smsc))
    await cut_off.hooks.gained(CARRIER, "")
    await smsc.until(lambda: smsc.bound)
    await until(lambda: cut_off.leased.capacity() > 0)
    first = Outcomes()
    smsc.answer = lambda pdu: None
    cut_off.leased.submit(Submission(message("+15555550123", "Hello"), "+12025550142", first.done))
    await smsc.until(lambda: smsc.held)

    cut_off.cut_off()
    receipt = asyncio.ensure_future(smsc.receipt("id-1"))
    await until(lambda: cut_off.sink.receipts)  # it comes in, and is even kept: its answer must not leave
    await heir.hooks.gained(CARRIER, "cut-off")
    await until(lambda: len(smsc.binds) >= 2)  # the heir tries
    assert not receipt.done()
    assert smsc.reasons == []

    cut_off.hooks._cut()
    await until(lambda: receipt.done())
    assert receipt.exception() is not None, "it was not answered"
    assert "reset" in smsc.reasons[0].lower(), "no unbind, no answer"
    (outcome,) = await first.first()
    assert isinstance(outcome, Unavailable)
    assert outcome.in_doubt
    await until(lambda: heir.leased.capacity() > 0)
    assert await smsc.receipt("id-1") == c.ESME_ROK
    assert isinstance(heir.sink.receipts[0], Receipt)
    for node in (cut_off, heir):
        await node.leased.stop(1.0)


async def test_a_fence_that_opens_in_time_lets_the_answer_pass(smsc: OneBind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap_owned, "FENCED_S", NEVER_S)
    node = Node(over_smpp(smsc))
    await node.hooks.gained(CARRIER, "")
    await until(lambda: node.leased.capacity() > 0)
    node.cut_off()
    receipt = asyncio.ensure_future(smsc.receipt("id-1"))
    await until(lambda: node.sink.receipts)
    assert not receipt.done()
    node.renew()
    async with asyncio.timeout(60):
        assert await receipt == c.ESME_ROK
    assert len(smsc.binds) == 1
    await node.leased.stop(1.0)
