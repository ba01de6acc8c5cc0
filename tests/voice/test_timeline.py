"""The timeline: bounded, its middle is left out."""

import pytest

from tests.voice.world import until, world
from trunkline.model.call import MAX_TIMELINE, TimelineEntry
from trunkline.voice.timeline import MAX_WHAT, Timeline, masked


def test_the_middle_is_left_out_and_an_entry_says_so() -> None:
    entries: list[TimelineEntry] = []
    log = Timeline(entries)
    for number in range(MAX_TIMELINE + 1000):
        log.add(number, "sip", f"entry {number}", {"n": number})
    assert len(entries) == MAX_TIMELINE
    whats = [entry.what for entry in entries]
    assert whats[0] == "entry 0"
    assert whats[-1] == f"entry {MAX_TIMELINE + 999}"
    assert whats[MAX_TIMELINE // 2] == "... 1001 entries are left out here ..."
    kept = {int(what.split()[1]) for what in whats if what.startswith("entry")}
    assert len(kept) == MAX_TIMELINE - 1
    assert len(kept) + 1001 == MAX_TIMELINE + 1000


def test_it_counts_on_in_a_record_that_was_read_again() -> None:
    entries: list[TimelineEntry] = []
    log = Timeline(entries)
    for number in range(MAX_TIMELINE + 10):
        log.add(number, "sip", "x")
    again = Timeline(entries)
    again.add(0, "sip", "y")
    assert entries[MAX_TIMELINE // 2].details == {"dropped": 12}


def test_lines_are_cut() -> None:
    entries: list[TimelineEntry] = []
    Timeline(entries).add(1, "webhook", "x" * 10_000)
    assert len(entries[0].what) == MAX_WHAT


def test_a_login_over_the_cut_is_left_out() -> None:
    entries: list[TimelineEntry] = []
    url = "https://ada:" + "secret" * 20 + "@example.com/"
    Timeline(entries).add(1, "webhook", "x" * (MAX_WHAT - 60) + url)
    assert "secret" not in entries[0].what


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("POST https://ada:se/cret@h/x?y=a@b 200", "POST https://ada:se/cret@h/x?y=a@b 200"),  # no login, but a path
        ("POST https://ada:secret@h/x?y=a@b 200", "POST https://h/x?y=a@b 200"),
        (
            "<Play>http://u:p@h/a.wav</Play> <Play>http://u@g/</Play>",
            "<Play>http://h/a.wav</Play> <Play>http://g/</Play>",
        ),
        ('<Sip username="u" password = "a&quot;b">sip:a@h</Sip>', '<Sip username="u" password = "***">sip:a@h</Sip>'),
        ("<Sip password='x y'>", '<Sip password="***">'),
        ('<Sip password="cut o', '<Sip password="***"'),
        ("sip:ada@example.com", "sip:ada@example.com"),
    ],
)
def test_what_is_secret_is_left_out(text: str, shown: str) -> None:
    assert masked(text) == shown
    entries: list[TimelineEntry] = []
    Timeline(entries).add(1, "webhook", text)
    assert entries[0].what == shown


async def test_a_call_id_that_is_another_calls_brings_none_of_its_messages(tmp_path) -> None:
    async with world(tmp_path) as here:
        _, first = await here.up("<Say>hi</Say><Pause length='9'/>")
        here.phone.dials()
        second = (await until(lambda: [one for one in here.services.live.values() if one is not first], "it"))[0]
        call_id = first.record.sip_call_id
        second.trace(call_id)
        here.services.trace(call_id, False, "INFO sip:secret")
        second.hangup("test")
        await second.settled.wait()
        here.services.trace(call_id, False, "BYE sip:secret")
        told = [one.what for one in first.record.timeline if "secret" in one.what]
        assert told == ["<- INFO sip:secret", "<- BYE sip:secret"]
        assert not any("secret" in one.what for one in second.record.timeline)
