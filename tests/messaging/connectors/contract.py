"""What every connector promises, as tests. A connector's own test file derives a class and gives it a `rig` fixture."""

import asyncio
from asyncio import Future
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Protocol

import pytest

from trunkline.messaging.connectors.base import (
    Connector,
    InboundPart,
    Outcome,
    Receipt,
    Rejected,
    Submission,
    Submitted,
    Unavailable,
)
from trunkline.model.message import Direction, Message
from trunkline.model.sid import new_sid
from trunkline.sms import segment

PATIENCE_S = 60.0
"""Bound of everything that a test waits for."""
WINDOW = 2
"""The window that every rig configures."""
OUR_NUMBER = "+12025550142"


async def soon(awaitable: Any) -> Any:
    """The result, within the bound."""
    return await asyncio.wait_for(awaitable, PATIENCE_S)


class MemorySink:
    """A sink that keeps (`keep`), waits for `commit()` (`hold`), fails (`fail`) or raises (`raise`)."""

    def __init__(self) -> None:
        self.mode = "keep"
        self.receipts: list[Receipt] = []
        self.parts: list[InboundPart] = []
        self.held: list[Future[Any]] = []
        self._heard = asyncio.Event()

    def receipt(self, receipt: Receipt) -> "Future[Any]":
        self.receipts.append(receipt)
        return self._future()

    def inbound(self, part: InboundPart) -> "Future[Any]":
        self.parts.append(part)
        return self._future()

    def _future(self) -> "Future[Any]":
        self._heard.set()
        if self.mode == "raise":
            raise RuntimeError("the sink is broken")
        future = asyncio.get_running_loop().create_future()
        if self.mode == "keep":
            future.set_result(None)
        elif self.mode == "fail":
            future.set_exception(OSError("disk full"))
        else:
            self.held.append(future)
        return future

    def commit(self) -> None:
        """Everything held is kept now."""
        held, self.held = self.held, []
        for future in held:
            if not future.done():
                future.set_result(None)

    async def heard(self, check: Callable[[], bool]) -> None:
        """Wait until `check` holds; asked after everything that comes."""
        async with asyncio.timeout(PATIENCE_S):
            while not check():
                self._heard.clear()
                await self._heard.wait()


class Rig(Protocol):
    """A connector and the carrier it speaks to, under the test's control."""

    connector: Connector
    features: frozenset[str]
    """What the carrier can be made to do: refuse, busy, lose, hold, down."""
    to: str
    """Where messages go so that the carrier treats them as it was told."""
    sink: MemorySink

    def treat(self, how: str) -> None:
        """Submits from now on: `take`, `refuse`, `busy`, `lose` (cut without an answer), `hold`, `down`."""

    def release(self) -> None:
        """Answer what was held."""

    def receipt(self, carrier_id: str) -> Coroutine[Any, Any, bool]:
        """The carrier sends a receipt (or, where it does so by itself, waits for it): whether it was acknowledged."""

    def inbound(self, text: str) -> Coroutine[Any, Any, bool]:
        """The carrier hands over a message to OUR_NUMBER: whether it was acknowledged."""


class Outcomes:
    """Takes the outcomes of submissions."""

    def __init__(self) -> None:
        self.all: list[Outcome] = []
        self._event = asyncio.Event()

    def done(self, outcome: Outcome) -> None:
        self.all.append(outcome)
        self._event.set()

    async def first(self, count: int = 1) -> list[Outcome]:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.all) < count:
                self._event.clear()
                await self._event.wait()
        return self.all[:count]


def message(to: str, body: str = "Hello") -> Message:
    sid = new_sid("SM")
    return Message(
        sid=sid,
        account_sid="AC" + "0" * 32,
        direction=Direction.OUTBOUND_API,
        from_=OUR_NUMBER,
        to=to,
        body=body,
        num_segments=segment.count_segments(body),
        token=f"token-{sid}",
    )


class ConnectorContract:
    """Derive from this and define the fixture `rig`, with a connector that is not started yet."""

    WAKES: ClassVar[str] = "wakes"

    @pytest.fixture
    async def started(self, rig: Rig) -> Any:
        wakes: list[None] = []
        rig.connector.start(rig.sink, lambda: wakes.append(None))
        rig.wakes = wakes  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE_S):
            while not rig.connector.capacity():
                await asyncio.sleep(0)
        yield rig
        await rig.connector.stop(0.1)

    def submit(self, rig: Rig, body: str = "Hello") -> Outcomes:
        outcomes = Outcomes()
        rig.connector.submit(Submission(message(rig.to, body), OUR_NUMBER, outcomes.done))
        return outcomes

    def needs(self, rig: Rig, feature: str) -> None:
        if feature not in rig.features:
            pytest.skip(f"this carrier cannot {feature}")
        rig.treat(feature)

    async def test_taken(self, started: Rig) -> None:
        outcomes = self.submit(started)
        assert outcomes.all == [], "the outcome must not come from within submit"
        (outcome,) = await outcomes.first()
        assert isinstance(outcome, Submitted)
        assert all(outcome.ids)
        assert len(outcome.ids) == 1

    async def test_refused(self, started: Rig) -> None:
        self.needs(started, "refuse")
        (outcome,) = await self.submit(started).first()
        assert isinstance(outcome, Rejected)
        assert 10_000 <= outcome.error_code <= 99_999
        assert outcome.carrier_error

    async def test_throttled(self, started: Rig) -> None:
        self.needs(started, "busy")
        (outcome,) = await self.submit(started).first()
        assert isinstance(outcome, Unavailable)
        assert not outcome.in_doubt
        assert not outcome.burns_attempt, "throttling is pacing, not failure"

    async def test_a_lost_answer_is_in_doubt(self, started: Rig) -> None:
        self.needs(started, "lose")
        (outcome,) = await self.submit(started).first()
        assert isinstance(outcome, Unavailable)
        assert outcome.in_doubt

    async def test_what_never_left_is_not_in_doubt(self, started: Rig) -> None:
        self.needs(started, "down")
        (outcome,) = await self.submit(started).first()
        assert isinstance(outcome, Unavailable)
        assert not outcome.in_doubt
        assert not outcome.burns_attempt
        healthy, line = started.connector.health()
        assert not healthy
        assert line
        assert started.connector.capacity() == 0, "a carrier that cannot be reached takes nothing for a while"

    async def test_the_window_bounds_what_is_under_way(self, started: Rig) -> None:
        self.needs(started, "hold")
        assert started.connector.capacity() == WINDOW
        outcomes = [self.submit(started) for _ in range(WINDOW)]
        assert started.connector.capacity() == 0
        started.wakes.clear()  # type: ignore[attr-defined]
        started.release()
        for each in outcomes:
            assert isinstance((await each.first())[0], Submitted)
        assert started.wakes, "room again: the dispatcher must be told"  # type: ignore[attr-defined]
        assert started.connector.capacity() == WINDOW

    async def test_nothing_is_taken_before_the_start(self, rig: Rig) -> None:
        assert rig.connector.capacity() == 0
        (outcome,) = await self.submit(rig).first()
        assert isinstance(outcome, Unavailable)
        assert not outcome.in_doubt
        assert not outcome.burns_attempt

    async def test_the_start_wakes(self, started: Rig) -> None:
        assert started.wakes  # type: ignore[attr-defined]

    async def test_stop_waits_for_answers(self, started: Rig) -> None:
        self.needs(started, "hold")
        outcomes = self.submit(started)
        await started.reached()  # type: ignore[attr-defined]
        stopping = asyncio.ensure_future(started.connector.stop(PATIENCE_S))
        await asyncio.sleep(0)
        assert started.connector.capacity() == 0
        assert not stopping.done()
        started.release()
        await soon(stopping)
        assert isinstance(outcomes.all[0], Submitted)

    async def test_stop_gives_up_after_the_grace(self, started: Rig) -> None:
        self.needs(started, "hold")
        outcomes = self.submit(started)
        await started.reached()  # type: ignore[attr-defined]
        await soon(started.connector.stop(0.01))
        (outcome,) = await outcomes.first()
        assert isinstance(outcome, Unavailable)
        assert outcome.in_doubt
        assert len(outcomes.all) == 1, "told once"

    async def test_nothing_is_taken_after_the_stop(self, started: Rig) -> None:
        await soon(started.connector.stop(0.1))
        assert started.connector.capacity() == 0
        (outcome,) = await self.submit(started).first()
        assert isinstance(outcome, Unavailable)
        assert not outcome.in_doubt

    async def test_a_receipt_is_acknowledged_after_the_commit(self, started: Rig) -> None:
        (outcome,) = await self.submit(started).first()
        assert isinstance(outcome, Submitted)
        started.sink.mode = "hold"
        receipt = asyncio.ensure_future(started.receipt(outcome.ids[0]))
        await started.sink.heard(lambda: bool(started.sink.receipts))
        await asyncio.sleep(0.02)  # nothing may come in this time, and nothing tells that nothing comes
        assert not receipt.done(), "acknowledged before the commit"
        started.sink.commit()
        assert await soon(receipt)
        got = started.sink.receipts[0]
        assert got.connector == started.connector.name
        assert got.carrier_id == outcome.ids[0], "receipts must name the ids of the submit"
        assert got.state == "delivered"

    @pytest.mark.parametrize("mode", ["fail", "raise"])
    async def test_a_receipt_that_is_not_kept_is_not_acknowledged(self, started: Rig, mode: str) -> None:
        (outcome,) = await self.submit(started).first()
        assert isinstance(outcome, Submitted)
        started.sink.mode = mode
        assert not await soon(started.receipt(outcome.ids[0]))
        started.sink.mode = "keep"
        assert await soon(started.receipt(outcome.ids[0])), "sent again, it is taken"

    async def test_an_inbound_message_is_acknowledged_after_the_commit(self, started: Rig) -> None:
        started.sink.mode = "hold"
        inbound = asyncio.ensure_future(started.inbound("Grüße"))
        await started.sink.heard(lambda: bool(started.sink.parts))
        await asyncio.sleep(0.02)  # as above
        assert not inbound.done()
        started.sink.commit()
        assert await soon(inbound)
        (part,) = started.sink.parts
        assert (part.connector, part.to, part.text) == (started.connector.name, OUR_NUMBER, "Grüße")
        assert part.from_.startswith("+")
        assert part.carrier_id

    @pytest.mark.parametrize("mode", ["fail", "raise"])
    async def test_an_inbound_message_that_is_not_kept_is_not_acknowledged(self, started: Rig, mode: str) -> None:
        started.sink.mode = mode
        assert not await soon(started.inbound("Hello"))

    @pytest.mark.parametrize("body", ["", "\x00\r\n\t", "\ud800", "{to}{nothing}", "x" * 4000, "😀" * 800])
    async def test_whatever_the_text_there_is_one_outcome(self, started: Rig, body: str) -> None:
        outcomes = self.submit(started, body)
        await outcomes.first()
        await asyncio.sleep(0)
        assert len(outcomes.all) == 1

    async def test_an_error_of_the_one_told_harms_nobody(self, started: Rig, caplog: pytest.LogCaptureFixture) -> None:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))

        def broken(outcome: Outcome) -> None:
            raise RuntimeError("not our fault")

        started.connector.submit(Submission(message(started.to), OUR_NUMBER, broken))
        assert isinstance((await self.submit(started).first())[0], Submitted)
        async with asyncio.timeout(PATIENCE_S):
            while started.connector.capacity() < WINDOW:
                await asyncio.sleep(0)
        assert reports or caplog.records, "it must be told somewhere"

    async def test_health_is_one_line(self, rig: Rig) -> None:
        for state in ("made", "started", "stopped"):
            if state == "started":
                rig.connector.start(rig.sink, lambda: None)
            elif state == "stopped":
                await rig.connector.stop(0.1)
            healthy, line = rig.connector.health()
            assert line
            assert "\n" not in line
            assert isinstance(healthy, bool)
        assert not rig.connector.health()[0]
