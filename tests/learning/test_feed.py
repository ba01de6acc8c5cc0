"""The feed: what is handed over, what is shed, and that nobody waits."""

import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trunkline.learning import run
from trunkline.learning.feed import Feed
from trunkline.learning.sampling import Sampling
from trunkline.learning.wire import CallStep, Item, Page, Step, Submit, decode_batch
from trunkline.model.call import Call
from trunkline.model.call import Direction as CallDirection
from trunkline.model.message import Direction, Message, encode
from trunkline.settings.learning import Learning
from trunkline.smpp.pdu import SubmitSm
from trunkline.storage.queue import Advance, Owed
from trunkline.twiml.document import Verb
from trunkline.voice.checkpoints import Position
from trunkline.voice.documents import Found
from trunkline.voice.steps import Goto, Inline

ACCOUNT, OTHER = "AC" + "1" * 32, "AC" + "2" * 32
PDU = SubmitSm(source="1", destination="2", message=b"hello")


class World:
    """A feed, and a run that listens."""

    def __init__(self, folder: Path, sampling: Sampling | None = None, **settings: float) -> None:
        self.switched: list[bool] = []
        self.folder = folder / "learning" / "one"
        self.folder.mkdir(parents=True)
        self.folder.joinpath(run.RUN_FILE).write_bytes(msgspec.json.encode({"sampling": sampling or Sampling()}))
        self.listener = self.listen()
        self.feed = Feed(
            folder, msgspec.convert(settings, Learning), switch=self.switched.append, bound=lambda number: "bound",
            avoid=lambda: frozenset({"b", "a"}),
        )  # fmt: skip
        self.line: socket.socket | None = None

    def listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        place = self.folder / run.SOCKET
        place.unlink(missing_ok=True)
        folder = os.open(self.folder, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{folder}/{run.SOCKET}")  # the path itself may be too long for a socket
        os.close(folder)
        listener.listen()
        listener.settimeout(30)
        return listener

    async def close(self) -> None:
        await self.feed.stop()
        self.listener.close()
        if self.line is not None:
            self.line.close()

    def found(self) -> "World":
        self.feed.look()
        self.line, _ = self.listener.accept()
        self.line.setblocking(False)
        return self

    def got(self) -> list[Item]:
        """What was handed over."""
        self.feed._flush()
        items: list[Item] = []
        assert self.line is not None
        while True:
            try:
                packet = self.line.recv(1 << 18)
            except BlockingIOError:
                return items
            items += decode_batch(packet).items

    def message(self, number: int = 1, account: str = ACCOUNT, to: str = "+12025550101", size: int = 5) -> Message:
        return Message(
            sid=f"SM{number:032x}", account_sid=account, direction=Direction.OUTBOUND_API, from_="+12025550100", to=to,
            body="x" * size, connector="carrier",
        )  # fmt: skip

    def step(self, message: Message, status: str = "sent") -> None:
        owed = [Owed(sid="", account="", kind="status", host="", request=b"{}")]
        step = Advance(
            id=1, sid=message.sid, account="", rev=1, status=status, record=encode(message), owed=owed,
            carrier_ids=[("carrier", "7")] if status == "sent" else (),
        )  # fmt: skip
        self.feed.stepped(message, step)


Make = Callable[..., World]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes worlds in this test's folder."""
    made: list[World] = []

    def one(*given: Any, **settings: float) -> World:
        made.append(World(tmp_path, *given, **settings))
        return made[-1]

    yield one
    for world in made:
        await world.close()


@pytest.fixture
async def world(make: Make) -> World:
    return make().found()


async def test_nothing_is_tapped_until_somebody_learns(make: Make) -> None:
    world = make()
    world.listener.close()
    world.feed.look()
    assert world.switched == []
    assert world.feed.runs == []


async def test_a_message_is_handed_over_as_it_was_written_and_committed(world: World) -> None:
    message = world.message()
    world.feed.submitted(message, 12, [PDU])
    world.step(message)
    world.step(message, "delivered")
    assert world.switched == [True]
    submit, sent, delivered = world.got()
    assert isinstance(submit, Submit)
    assert (submit.sid, submit.connector, submit.now_ms) == (message.sid, "carrier", 12)
    assert b"hello" in submit.pdus[0]
    assert sent == Step(message.sid, "sent", encode(message), [b"{}"], "bound", ["a", "b"])
    assert isinstance(delivered, Step)
    assert delivered.status == "delivered"


async def test_a_message_whose_beginning_was_not_seen_is_left_alone(world: World) -> None:
    world.step(world.message(), "delivered")
    world.step(world.message(2), "queued")
    assert world.got() == []


async def test_a_call_is_handed_over_with_its_documents(world: World) -> None:
    call = Call(sid="CA" + "0" * 32, account_sid=ACCOUNT, direction=CallDirection.INBOUND, from_="+1", to="+2")
    found = Found((Verb(line=1),), "http://app/menu", "text/xml", b"<Response/>")
    world.feed.fetched(call, Position(documents=1), Goto("/menu", "GET", (("Digits", "1"),)), found)
    world.feed.fetched(call, Position(documents=2, verbs=3), Inline("<Response/>"), found)
    step = Advance(id=1, sid=call.sid, account="", rev=1, status="completed", record=b"{}", owed=[])
    world.feed.call_ended(call, step)
    menu, inline, ended = world.got()
    assert isinstance(menu, Page)
    assert (menu.number, menu.method, menu.asked, menu.params) == (1, "GET", "/menu", [("Digits", "1")])
    assert menu.steps == ['{"verb":"Verb"}']
    assert isinstance(inline, Page)
    assert (inline.verbs, inline.method) == (3, "")
    assert ended == CallStep(call.sid, "completed", b"{}", [])


@pytest.mark.parametrize(
    ("sampling", "numbers"),
    [
        (Sampling(accounts=frozenset({ACCOUNT})), [1, 3]),
        (Sampling(numbers=frozenset({"+4930555"})), [3]),
        (Sampling(percent=0.01), []),
        (Sampling(), [1, 2, 3]),
    ],
)
async def test_only_what_is_sampled_is_handed_over(make: Make, sampling: Sampling, numbers: list[int]) -> None:
    world = make(sampling).found()
    for number, account, to in ((1, ACCOUNT, "+1"), (2, OTHER, "+1"), (3, ACCOUNT, "+4930555")):
        world.step(world.message(number, account, to))
    assert [int(item.sid[2:], 16) for item in world.got()] == numbers


async def test_a_share_is_always_the_same() -> None:
    half = Sampling(percent=50)
    sids = [f"SM{number * 7919:032x}" for number in range(2000)]
    taken = [sid for sid in sids if half.takes(sid, ACCOUNT, "", "")]
    assert 800 < len(taken) < 1200
    assert all(half.takes(sid, ACCOUNT, "", "") for sid in taken)


async def test_what_comes_too_fast_is_shed_and_what_follows_a_message_is_not(make: Make) -> None:
    world = make(per_second=10).found()
    for number in range(100):
        world.step(world.message(number + 1))
    got = world.got()
    assert 10 <= len(got) < 100  # the second's worth, and what came while the test ran
    assert world.feed.shed == 100 - len(got)
    world.step(world.message(int(got[0].sid[2:], 16)), "delivered")
    assert [item.sid for item in world.got()] == [got[0].sid]


async def test_a_full_buffer_sheds(make: Make) -> None:
    world = make(per_second=1000, buffer=20).found()
    for number in range(50):
        world.step(world.message(number + 1))
    assert len(world.got()) == 20
    assert world.feed.shed == 30


async def test_a_learner_that_does_not_read_is_shed_and_never_waited_for(make: Make) -> None:
    world = make(per_second=10_000, buffer=10_000).found()
    for number in range(2000):
        world.step(world.message(number + 1, size=1500))
        if not number % 20:
            world.feed._flush()
    world.feed._flush()
    got = world.got()
    assert 0 < len(got) < 2000
    assert len(got) + world.feed.shed == 2000


async def test_what_is_too_large_is_shed(world: World) -> None:
    world.step(world.message(size=100_000))
    assert world.got() == []
    assert world.feed.shed == 1


async def test_a_learner_that_is_gone_is_fed_no_more_until_it_comes_back(world: World) -> None:
    assert world.line is not None
    world.line.close()
    world.listener.close()
    world.step(world.message())
    world.feed._flush()
    assert world.feed.runs == []
    assert world.switched == [True, False]
    world.feed.look()
    assert world.feed.runs == []
    world.listener = world.listen()
    world.found()
    world.step(world.message(2))
    assert len(world.got()) == 1


async def test_taps_are_set_again_at_each_look(world: World) -> None:
    world.feed.look()
    assert world.switched == [True, True]
    await world.feed.stop()
    assert world.switched == [True, True, False]
