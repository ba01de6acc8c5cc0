"""One line a flight, without what is the customer's own."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.model import call, message
from trunkline.telemetry import events
from trunkline.telemetry.events import Events

MESSAGE = message.Message(
    sid="SM1", account_sid="AC1", direction=message.Direction.OUTBOUND_API, from_="+12025550142", to="+14155550199",
    body="a secret", connector="acme", route="all", token="key-1", created_ms=1000, updated_ms=1500, error_code=30005,
    status_callback="https://customer.example/x", stages={"accept": 3, "lane": 9},
)  # fmt: skip
CALL = call.Call(
    sid="CA1", account_sid="AC1", direction=call.Direction.INBOUND, url="https://customer.example/voice", trunk="acme",
    created_ms=1000, answered_ms=1100, ended_ms=9000, sip_response_code=200, hangup_cause="caller",
)  # fmt: skip


def landed(kind: str, status: str, record: bytes) -> Any:
    return SimpleNamespace(kind=kind, status=status, record=record)


def writer(path: str) -> Events:
    return Events(path, "node-1", 1.0, lambda: 12_345)


async def test_a_message_and_a_call(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    own = writer(str(file))
    owed = [SimpleNamespace(state="delivered", tries=1), SimpleNamespace(state="exhausted", tries=3)]
    own.landed([(landed("message", "undelivered", message.encode(MESSAGE)), owed)])
    await own.flush()
    own.landed([(landed("call", "completed", call.encode(CALL)), [])])
    await own.flush()
    text = file.read_text()
    for private in ("secret", "+1", "customer.example"):
        assert private not in text
    first, second = map(json.loads, text.splitlines())
    assert first == {
        "at_ms": 12_345, "node": "node-1", "kind": "message", "status": "undelivered", "sid": "SM1",
        "account_sid": "AC1", "direction": "outbound-api", "token": "key-1", "created_ms": 1000, "updated_ms": 1500,
        "stages": {"accept": 3, "lane": 9}, "connector": "acme", "route": "all", "error_code": 30005,
        "callbacks": 2, "callback_tries": 4, "callbacks_exhausted": 1,
    }  # fmt: skip
    assert (second["kind"], second["trunk"], second["hangup_cause"]) == ("call", "acme", "caller")
    assert file.stat().st_mode & 0o777 == 0o600
    assert (own.written, own.dropped) == (2, 0)


async def test_a_file_that_was_renamed_is_left(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    own = writer(str(file))
    for _ in range(2):
        own.landed([(landed("message", "delivered", message.encode(MESSAGE)), [])])
        await own.flush()
        file.rename(tmp_path / f"{own.written}")
    assert (tmp_path / "1").read_text().count("\n") == (tmp_path / "2").read_text().count("\n") == 1


async def test_what_cannot_be_written_is_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = writer(str(tmp_path / "missing" / "events.jsonl"))
    own.landed([(landed("message", "delivered", message.encode(MESSAGE)), [])])
    own.landed([(landed("message", "delivered", b"no record"), [])])
    await own.flush()
    await own.flush()
    assert (own.written, own.dropped) == (0, 2)
    assert "events are dropped" in caplog.text


async def test_lines_wait_in_a_bounded_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_LINES", 3)
    own = writer(str(tmp_path / "events.jsonl"))
    one = landed("message", "delivered", message.encode(MESSAGE))
    own.landed([(one, [])] * 5)
    await own.flush()
    assert (own.written, own.dropped) == (3, 2)


async def test_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    own = writer("stderr")
    own.landed([(landed("message", "delivered", message.encode(MESSAGE)), [])])
    await own.flush()
    assert json.loads(capfd.readouterr().err)["sid"] == "SM1"
