"""Lists of calls over what is in flight and what has landed, with every filter, in tables and in segments."""

import pytest

from trunkline.model import call as codec
from trunkline.model.call import Call, Direction, Status
from trunkline.model.sid import new_sid
from trunkline.storage.archive import Document
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.storage.queue import Flight
from trunkline.voice.reader import CallReader

from ..postflight.harness import ALICE, NOW, FakeClock, archive_at

HOUR = 3_600_000


def call(at_ms, **changes):
    values = {
        "sid": new_sid("CA", at_ms), "account_sid": ALICE, "direction": Direction.OUTBOUND_API, "from_": "+12025550100",
        "to": "+14155550199", "created_ms": at_ms, "started_ms": at_ms + 100, "ended_ms": at_ms + 60_000,
    }  # fmt: skip
    return Call(**(values | changes))


def document(record, status="completed"):
    body = codec.encode(record)[:-1] + b',"kind":"call","status":"%s"}' % status.encode()
    return Document(sid=record.sid, account=ALICE, kind="call", rev=3, body=body)


PARENT = new_sid("CA", NOW - 9 * HOUR)
LANDED = [
    call(NOW - 10 * HOUR),
    call(NOW - 9 * HOUR + 2, parent_sid=PARENT, to="sip:bob@example.com"),
    call(NOW - 8 * HOUR, ended_ms=NOW - 5 * HOUR),
    call(NOW - 7 * HOUR, from_="+12025550177"),
]
FLYING = [
    call(NOW - HOUR, ended_ms=0),
    call(NOW - HOUR + 1, ended_ms=0, started_ms=0),
    call(NOW - HOUR + 2, ended_ms=0, parent_sid=PARENT),
]
STATUSES = ["in-progress", "initiated", "ringing"]


@pytest.fixture(params=["table", "segment"])
async def reader(request, tmp_path):
    queue = SqliteQueue(tmp_path / "queue.db")
    clock = FakeClock()
    async with archive_at(tmp_path, clock) as archive:
        filler = [call(NOW - 20 * HOUR + n, to="+4915112345678") for n in range(30)]
        await archive.land([document(one) for one in LANDED] + [document(one) for one in filler])
        if request.param == "segment":
            clock.now += 24 * HOUR
            await archive.roll(force=True)
            assert await archive._recent.counts("g") == (0, 0, "")
        for one, status in zip(FLYING, STATUSES, strict=True):
            await queue.accept(Flight(sid=one.sid, account=ALICE, kind="call", status=status, record=codec.encode(one)))
        yield CallReader(queue, archive)
    await queue.close()


async def listed(reader, limit=50, older_than=None, newer_than=None, **filters):
    found = await reader.page(ALICE, older_than=older_than, newer_than=newer_than, limit=limit, filters=filters)
    return [one.sid for one in found]


async def test_in_flight_and_landed_calls_are_one_list_newest_first(reader):
    found = await reader.page(ALICE, older_than=None, newer_than=None, limit=7, filters={})
    assert [one.sid for one in found] == [one.sid for one in reversed(LANDED + FLYING)]
    assert [one.shown_status for one in found[:3]] == ["ringing", "queued", "in-progress"]
    assert [one.landed for one in found] == [False] * 3 + [True] * 4


async def test_pages_meet(reader):
    everything = await listed(reader, 7)
    first = await listed(reader, 3)
    then = await listed(reader, 4, older_than=first[-1][2:])
    assert first + then == everything
    assert await listed(reader, 2, newer_than=then[0][2:]) == first[1:]


FILTERS = [
    ({"to": "sip:bob@example.com"}, [LANDED[1]]),
    ({"from": "+12025550177"}, [LANDED[3]]),
    ({"status": "queued"}, [FLYING[1]]),
    ({"status": "ringing"}, [FLYING[2]]),
    ({"parent": PARENT}, [FLYING[2], LANDED[1]]),
    ({"parent": new_sid("CA", NOW - 9 * HOUR)}, []),
    ({"started_ge_ms": NOW - 7 * HOUR}, [FLYING[2], FLYING[0], LANDED[3]]),
    ({"started_lt_ms": NOW - 9 * HOUR, "started_ge_ms": NOW - 11 * HOUR}, [LANDED[0]]),
    ({"ended_ge_ms": NOW - 6 * HOUR}, [LANDED[2]]),
    ({"ended_ge_ms": NOW - 11 * HOUR, "ended_lt_ms": NOW - 8 * HOUR}, [LANDED[1], LANDED[0]]),
    ({"parent": PARENT, "status": "ringing"}, [FLYING[2]]),
]
"""What is asked for, and who is found."""


async def test_filters(reader):
    for filters, expected in FILTERS:
        assert await listed(reader, **filters) == [one.sid for one in expected], filters


async def test_a_filter_that_is_none_is_refused(reader):
    with pytest.raises(KeyError):
        await listed(reader, colour="red")


async def test_one_call_is_found_wherever_it_is(reader):
    flying = await reader.get(ALICE, FLYING[0].sid)
    landed = await reader.get(ALICE, LANDED[0].sid)
    assert (flying.status, landed.status) == (Status.IN_PROGRESS, Status.COMPLETED)
    assert await reader.get("AC" + "f" * 32, LANDED[0].sid) is None
    assert await reader.get(ALICE, PARENT) is None
