"""Calls that are followed: real documents and the real session, with production's outcomes."""

import msgspec
import pytest

from trunkline.learning import views
from trunkline.learning.calls import Calls, followable, stand_ins
from trunkline.learning.messages import SetClock
from trunkline.learning.wire import CallStep, Page
from trunkline.model import call as codec
from trunkline.model.call import Call, Direction, StatusTarget, TimelineEntry
from trunkline.settings import Settings
from trunkline.storage.queue import Owed
from trunkline.voice import callbacks
from trunkline.voice.verbs import VERBS

XML = "text/xml"
MENU = b"<Response><Say>Welcome</Say><Gather action='/key'/><Say>Nothing heard</Say></Response>"
DIAL = b"<Response><Say>One moment</Say><Dial action='/done'>+12025550199</Dial></Response>"
BYE = b"<Response><Say>Bye</Say><Hangup/></Response>"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    for name, row in stand_ins().items():
        monkeypatch.setitem(VERBS, name, row)
    return Calls(Settings(), SetClock())


def page(number: int, body: bytes, verbs: int, asked: str, **more: object) -> Page:
    url = f"http://app.example{asked}"
    given = {"method": "POST", **more}
    url = str(more.pop("url", url))
    given.pop("url", None)
    return Page("CA" + "1" * 32, number, url, XML, body, [], verbs, asked=url if number == 1 else asked, **given)


def ended(*ran: str, **more: object) -> CallStep:
    record = Call(
        sid="CA" + "1" * 32, account_sid="AC" + "2" * 32, direction=Direction.INBOUND, from_="+12025550100",
        to="+12025550101", timeline=[TimelineEntry(0, "twiml", f"<{one}>", {}) for one in ran], **more,
    )  # fmt: skip
    return CallStep(record.sid, "completed", codec.encode(record), [])


async def test_a_call_is_run_to_the_verb_in_which_it_ended(calls: Calls) -> None:
    pages = [
        page(1, MENU, 0, "/menu"),
        page(2, DIAL, 2, "/key", params=[("Digits", "1")]),
        page(3, BYE, 4, "/done", params=[("DialCallStatus", "completed")]),
    ]
    found = await calls.follow(ended("Say", "Gather", "Say", "Dial", "Say", "Hangup"), pages)
    assert found is not None
    assert found[views.STEPS] == ["<Say>", "<Gather>", "<Say>", "<Dial>", "<Say>", "<Hangup>"]
    assert found[views.REQUESTS] == [["POST", f"http://app.example/{one}"] for one in ("menu", "key", "done")]


async def test_a_caller_who_leaves_in_a_prompt_hears_no_more(calls: Calls) -> None:
    found = await calls.follow(ended("Say"), [page(1, MENU, 0, "/menu")])
    assert found is not None
    assert found[views.STEPS] == ["<Say>"]


async def test_a_gather_without_keys_goes_on(calls: Calls) -> None:
    found = await calls.follow(ended("Say", "Gather", "Say"), [page(1, MENU, 0, "/menu")])
    assert found is not None
    assert found[views.STEPS] == ["<Say>", "<Gather>", "<Say>"]


async def test_a_live_update_is_followed(calls: Calls) -> None:
    pages = [page(1, MENU, 0, "/menu"), page(2, BYE, 1, "http://app.example/now")]
    found = await calls.follow(ended("Say", "Say", "Hangup"), pages)
    assert found is not None
    assert found[views.STEPS] == ["<Say>", "<Say>", "<Hangup>"]


async def test_a_document_that_the_api_gave_is_followed(calls: Calls) -> None:
    found = await calls.follow(ended("Say", "Hangup"), [page(1, BYE, 0, "/", method="", url="")])
    assert found is not None
    assert found[views.STEPS] == ["<Say>", "<Hangup>"]
    assert found[views.REQUESTS] == []


async def test_only_callbacks_are_told_of_a_call_whose_documents_are_missing(calls: Calls) -> None:
    assert not followable([page(2, BYE, 3, "/key")])
    found = await calls.follow(ended("Say"), [page(2, BYE, 3, "/key")])
    assert found is not None
    assert set(found) == {views.CALLBACKS}


async def test_the_last_callback_is_made_again(calls: Calls) -> None:
    target = StatusTarget("http://app.example/status", "POST", ("completed",))
    item = ended(status_callbacks=[target], started_ms=1000, answered_ms=2000, ended_ms=9000, callback_sequence=3)
    call = codec.decode(item.record)
    owed: list[Owed] = callbacks.status_events(call, codec.Status.COMPLETED, 12345)
    after = msgspec.structs.replace(item, record=codec.encode(call), owed=[one.request for one in owed])
    found = await calls.follow(after, [])
    assert found is not None
    assert found[views.CALLBACKS] == views.callbacks(after.owed, views.GEOGRAPHY)
    assert ["SequenceNumber", "3"] in found[views.CALLBACKS][0]["params"]


def test_documents_are_told_by_their_verbs(calls: Calls) -> None:
    told = calls.read(page(1, MENU, 0, "/menu"))[views.TWIML]
    assert [msgspec.json.decode(one)["verb"] for one in told] == ["Say", "Gather", "Say"]
    spaced = MENU.replace(b"<Gather", b"\n  <Gather")
    assert calls.read(page(1, spaced, 0, "/menu"))[views.TWIML] == told
    assert calls.read(page(1, b"<Response><Say>", 0, "/menu"))[views.TWIML] == ["error 12100"]
