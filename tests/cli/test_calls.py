"""Calls by the command line, in a data folder without a server."""

import asyncio
from pathlib import Path

import pytest

from trunkline import bootstrap
from trunkline.model.call import Call, Direction, MediaQuality, Status, TimelineEntry
from trunkline.model.clock import SystemClock
from trunkline.model.sid import new_sid
from trunkline.postflight.landing import document
from trunkline.settings import load
from trunkline.storage.queue import Owed
from trunkline.voice.flights import CallFlights

from .conftest import Command

JUNE_MS = 1_780_300_800_000
"""2026-06-01 08:00 UTC."""
ATTEMPT = b'{"url":"https://example.com/s","method":"POST","started_ms":%d,"status":204,"total_ms":3.2}'


@pytest.fixture
def made(data: Path, account: str) -> list[str]:
    """A call that has landed and one that is up."""

    async def make() -> list[str]:
        settings = load(environment={}, overrides={"data": {"path": str(data)}})
        queue, archive = bootstrap.open_queue(settings), bootstrap.open_archive(settings)
        flights = CallFlights(queue, SystemClock())
        sids = []
        for at, status in enumerate((Status.COMPLETED, Status.IN_PROGRESS)):
            began = JUNE_MS + at * 1000
            call = Call(
                sid=new_sid("CA", began), account_sid=account, direction=Direction.INBOUND, from_="+14155550123",
                to="+12025550142", created_ms=began, started_ms=began, answered_ms=began + 1000, trunk="acme",
                sip_call_id="abc@phone", ended_ms=began + 11_000 if status is Status.COMPLETED else 0,
                hangup_cause="caller", timeline=[TimelineEntry(began, "sip", "<- INVITE", {"from": "192.0.2.1"})],
                quality=MediaQuality(codec="PCMU", packets_received=990, packets_sent=1000, lost=10, mos=4.2),
            )  # fmt: skip
            flight, written = flights.accept(call, status)
            await written
            owed = Owed(
                flight=flight.id, sid=call.sid, account=account, kind="status", host="https://example.com",
                attempts=b"[" + ATTEMPT % (began + 1500) + b"]", state="delivered",
            )  # fmt: skip
            await queue.owe([owed])
            sids.append(call.sid)
            if status is Status.COMPLETED:
                stored = await queue.get(account, call.sid)
                assert stored is not None
                await archive.land([document(*stored)])
                await flights.erase(flight)
        await archive.close()
        await queue.close()
        return sids

    return asyncio.run(make())


def test_the_newest_calls(trunkline: Command, made: list[str], account: str) -> None:
    ran = trunkline("calls")
    assert ran.code == 0, ran.err
    assert [row[1] for row in ran.rows] == made[::-1]
    assert ran.rows[1] == [
        "2026-06-01 08:00:00", made[0], "inbound", "+14155550123", "+12025550142", "completed", "10", "acme", "", "4.2",
    ]  # fmt: skip
    assert [row[1] for row in trunkline("calls", "--status", "in-progress").rows] == [made[1]]
    assert [row[1] for row in trunkline("calls", "--account", account, "--limit", "1").rows] == [made[1]]
    assert trunkline("calls", "--to", "+14155550123").rows == []
    assert len(trunkline("calls", "--from", "(415) 555-0123").rows) == 2


@pytest.mark.parametrize("at", [0, 1])
def test_a_calls_timeline(trunkline: Command, made: list[str], at: int) -> None:
    ran = trunkline("call", made[at])
    assert ran.code == 0, ran.err
    facts, _, table = ran.out.partition("\n\n")
    said = dict(line.split(None, 1) for line in facts.splitlines())
    assert said["status"] == ("completed", "in-progress")[at]
    assert (said["ended_by"], said["sip_call_id"]) == ("caller", "abc@phone")
    assert said["media"] == "PCMU, 990 packets in, 1000 out, 10 lost (1.0 %), jitter 0 ms (at most 0), MOS 4.2"
    assert table.splitlines() == [
        "seconds\tkind\twhat",
        "+0.000\tsip\t<- INVITE",
        "+1.500\twebhook\tPOST https://example.com/s 204 in 3 ms (status callback)",
    ]
    assert '{"from":"192.0.2.1"}' in trunkline("call", made[at], "--details").out


def test_what_is_not_there_is_said_in_one_line(trunkline: Command, made: list[str]) -> None:
    for sid, text in (("CA" + "0" * 32, "there is no call CA000"), ("CA1", "CA1 is no SID of a call")):
        ran = trunkline("call", sid)
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert text in ran.err
    assert trunkline("calls", "--account", "AC" + "0" * 32).code == 1


def test_without_data(trunkline: Command) -> None:
    ran = trunkline("calls")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
