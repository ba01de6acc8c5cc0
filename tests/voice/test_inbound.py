"""Calls that come in: who is let in, what is refused and how; never a relay."""

import asyncio

import pytest

from tests.voice.world import ACCOUNT, CALLER, NUMBER, TRUNK, World, until, world
from trunkline.media import protocol
from trunkline.model.numbers import Application
from trunkline.settings import Sip, Trunk, Voice
from trunkline.settings.kinds import Secret
from trunkline.testing.clock import ManualClock
from trunkline.voice.bans import Bans
from trunkline.voice.sources import Sources

LOGIN = Trunk(name="pbx", username="pbx", password=Secret("s3cret"))


async def refused(here: World, caller) -> int:
    await caller.ended()
    assert here.app.requests == []
    assert here.accepted == []
    assert here.services.live == {}
    assert here.services.counts.trunk == {}
    assert len(here.media.free) == 100
    assert here.media.commands == []
    return caller.failed


@pytest.mark.parametrize(
    "number",
    ["+14155550101", "alice", "+1415555010", "%2B14155550101", "anonymous", "*11"],
)
async def test_what_is_not_ours_is_not_found(here: World, number: str) -> None:
    assert await refused(here, here.phone.dials(number)) == 404


@pytest.mark.parametrize("number", [NUMBER, NUMBER[1:], "00" + NUMBER[1:], "+1-415-555-0100", NUMBER + ";npdi"])
async def test_ways_to_write_a_number(here: World, number: str) -> None:
    here.app.answers("/voice", "<Hangup/>")
    await here.phone.dials(number).ended()
    assert here.app.requests[0][2]["To"] == NUMBER


async def test_a_number_bought_at_another_node_is_looked_for(here: World) -> None:
    here.app.answers("/voice", "<Hangup/>")
    known, looked = here.services.directory.number, []
    here.services.directory.number = lambda e164: None  # type: ignore[method-assign]

    async def look(number: str) -> None:
        looked.append(number)
        here.services.directory.number = known  # type: ignore[method-assign]

    here.inbound.held.look = look
    await here.phone.dials().ended()
    await here.phone.dials("+14155550177").ended()
    await here.phone.dials("alice").ended()
    assert looked == [NUMBER, "+14155550177"]
    assert len(here.accepted) == 1
    assert here.inbound.counters == {"taken": 1, "refused-404": 2}


async def test_a_call_waits_for_a_partition_of_the_queue(here: World) -> None:
    here.app.answers("/voice", "<Hangup/>")
    owned: list[int] = []
    here.inbound.held.can_begin = lambda: bool(owned)
    caller = here.phone.dials()
    await until(lambda: len(here.inbound.held) == 1)
    assert here.accepted == []
    owned.append(1)
    await caller.ended()
    assert len(here.accepted) == 1


async def test_a_stranger_is_forbidden(here: World) -> None:
    assert await refused(here, here.another("127.0.0.7").dials()) == 403


async def test_a_stranger_is_forbidden_whatever_it_asks_for(here: World) -> None:
    assert await refused(here, here.another("127.0.0.7").dials("+14155550101")) == 403


@pytest.mark.parametrize("addresses", [("127.0.0.0/29",), ("10.0.0.0/8", "127.0.0.7"), ("127.0.0.0/8",)])
async def test_networks(tmp_path, addresses) -> None:
    async with world(tmp_path, trunks=(Trunk(name="net", addresses=addresses), TRUNK)) as here:
        here.app.answers("/voice", "<Hangup/>")
        await here.another("127.0.0.7").dials().ended()
        await here.phone.dials().ended()
        trunks = sorted(flight.call.trunk for flight in here.accepted)
        assert trunks == ["carrier", "net"]  # the narrowest network names the trunk


async def test_a_login_opens_the_door(tmp_path, caplog) -> None:
    caplog.set_level("INFO", "trunkline.voice.doorkeeper")
    async with world(tmp_path, trunks=(LOGIN,)) as here:
        here.app.answers("/voice", "<Say>in</Say>")
        caller = here.phone.dials(credentials=("pbx", "s3cret"))
        await caller.ended()
        assert here.media.plays() == [["in"]]
        (flight,) = here.accepted
        assert flight.call.trunk == "pbx"
        assert here.inbound.counters == {"challenged": 1, "taken": 1}
        assert caplog.text.count("is asked for a login (401): no trunk has this address") == 1


@pytest.mark.parametrize("credentials", [("pbx", "wrong"), ("other", "s3cret")])
async def test_a_wrong_login_does_not(tmp_path, credentials) -> None:
    async with world(tmp_path, trunks=(LOGIN,)) as here:
        assert await refused(here, here.phone.dials(credentials=credentials)) == 403


async def test_without_a_login_one_is_asked_for(tmp_path) -> None:
    async with world(tmp_path, trunks=(LOGIN,)) as here:
        caller = here.phone.dials()
        assert await refused(here, caller) == 401
        assert 'realm="test"' in caller.failure.headers.get("WWW-Authenticate")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda here: setattr(here.number, "voice_enabled", False), 404),
        (lambda here: setattr(here.number, "account_sid", ""), 404),
        (lambda here: setattr(here.account, "status", "suspended"), 403),
        (lambda here: setattr(here.account, "status", "closed"), 403),
        (lambda here: setattr(here.inbound, "draining", True), 503),
    ],
)
async def test_numbers_that_take_no_calls(here: World, change, status: int) -> None:
    change(here)
    assert await refused(here, here.phone.dials()) == status


async def test_a_number_without_url_tells_its_owner(here: World) -> None:
    here.number.voice_url = ""
    assert await refused(here, here.phone.dials()) == 404
    assert here.alerts.codes == [11100]


@pytest.mark.parametrize(
    ("sdp", "status"),
    [
        (b"v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\ns=-\r\nc=IN IP4 1.2.3.4\r\nt=0 0\r\nm=audio 4000 RTP/AVP 18\r\n", 488),
        (b"v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\ns=-\r\nc=IN IP4 1.2.3.4\r\nt=0 0\r\nm=video 4000 RTP/AVP 31\r\n", 488),
        (b"this is no sdp", 400),
    ],
)
async def test_nothing_in_common(here: World, sdp: bytes, status: int) -> None:
    assert await refused(here, here.phone.dials(sdp=sdp)) == status


async def test_no_port_is_free(here: World) -> None:
    here.media.free.clear()
    caller = here.phone.dials()
    await caller.ended()
    assert caller.failed == 503
    assert caller.failure.headers.get("Retry-After")


async def test_no_media_process(here: World) -> None:
    here.media.available = False
    assert await refused(here, here.phone.dials()) == 503


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ({"trunks": (Trunk(name="small", addresses=("127.0.0.9",), calls_at_once=2),)}, 503),
        ({"voice": Voice(calls_at_once=2)}, 486),
    ],
)
async def test_calls_at_once(tmp_path, limits, status: int) -> None:
    async with world(tmp_path, **limits) as here:
        here.app.answers("/voice", "<Say>x</Say><Pause length='60'/>")
        callers = [here.phone.dials() for _ in range(2)]
        for caller in callers:
            await caller.answered()
        third = here.phone.dials()
        await third.ended()
        assert third.failed == status
        callers[0].hangs_up()
        await until(lambda: len(here.services.live) == 1, "the end of the first")
        fourth = here.phone.dials()
        await fourth.answered()


async def test_strangers_are_heard_only_so_often(tmp_path) -> None:
    async with world(tmp_path, sip=Sip(source_requests_per_second=5)) as here:
        stranger = here.another("127.0.0.7")
        callers = [stranger.dials() for _ in range(20)]
        await asyncio.sleep(0.1)
        assert sum(caller.failed == 403 for caller in callers) in (5, 6)
        here.app.answers("/voice", "<Hangup/>")
        known = [here.phone.dials() for _ in range(20)]
        for caller in known:
            await caller.ended()
        assert all(caller.dialog is not None for caller in known)


@pytest.mark.parametrize(("draining", "status"), [(False, 200), (True, 503)])
async def test_options_are_answered(here: World, draining: bool, status: int) -> None:
    """A node that stops says so, that edge proxies and carriers go elsewhere."""
    here.inbound.draining = draining
    answers: list[int] = []
    here.another("127.0.0.7").stack.request(
        "OPTIONS", "sip:127.0.0.1", from_="<sip:x@127.0.0.7>", target=here.phones["127.0.0.7"].flow,
        on_response=lambda status, response: answers.append(status),
    )  # fmt: skip
    await until(lambda: answers, "the answer")
    assert answers == [status]


@pytest.mark.parametrize(
    ("from_", "headers", "shown"),
    [
        (f"<sip:{CALLER}@x>", [], CALLER),
        ("<sip:anonymous@anonymous.invalid>", [], "+266696687"),
        ("<sip:bob@127.0.0.9>", [], "sip:bob@127.0.0.9"),
        ("<sip:bob@127.0.0.9>", [("P-Asserted-Identity", "<sip:+14155550123@x>")], "+14155550123"),
    ],
)
async def test_who_calls(here: World, from_: str, headers, shown: str) -> None:
    here.app.answers("/voice", "<Hangup/>")
    await here.phone.dials(from_=from_, headers=headers).ended()
    assert here.app.requests[0][2]["From"] == shown


async def test_the_record(here: World) -> None:
    here.number.status_callback = f"{here.app.url}/status"
    stored = await here.whole("<Say>x</Say>")
    assert (stored.account_sid, stored.direction, stored.phone_number_sid) == (ACCOUNT, "inbound", here.number.sid)
    assert (stored.url, stored.method, stored.token) == (here.number.voice_url, "POST", "")
    assert stored.started_ms <= stored.answered_ms <= stored.ended_ms
    assert [target.url for target in stored.status_callbacks] == [here.number.status_callback]


async def test_an_application_of_another_account_is_not_run(here: World) -> None:
    other = Application(sid="AP2", account_sid="AC" + "b" * 32, voice_url=f"{here.app.url}/theirs")
    here.applications["AP2"] = other
    here.number.voice_application_sid = "AP2"
    here.app.answers("/voice", "<Hangup/>")
    await here.phone.dials().ended()
    assert [path for _, path, _ in here.app.requests] == ["/voice"]


async def test_media_is_opened_only_when_answered(here: World) -> None:
    here.app.answers("/voice", "<Pause length='1'/><Say>x</Say>")
    caller = here.phone.dials()
    await until(lambda: caller.progress, "ringing")
    assert here.media.commands == []
    await caller.ended()
    opened = here.media.of(protocol.Open)[0]
    assert (opened.codec, opened.remote, opened.dtmf_payload_type) == ("PCMU", ("127.0.0.9", 40_000), 101)
    assert opened.latch_from == ("127.0.0.9",)


@pytest.mark.parametrize(
    ("headers", "verstat"),
    [
        (
            [("P-Asserted-Identity", "<sip:+14155550123@x;user=phone;verstat=TN-Validation-Passed-A>")],
            "TN-Validation-Passed-A",
        ),
        ([("P-Asserted-Identity", "<sip:+14155550123@x>;verstat=No-TN-Validation")], "No-TN-Validation"),
        ([], None),
    ],
)
async def test_what_the_carrier_verified(here: World, headers, verstat: str | None) -> None:
    here.app.answers("/voice", "<Hangup/>")
    await here.phone.dials(headers=headers).ended()
    assert here.app.requests[0][2].get("StirVerstat") == verstat


async def test_status_callbacks_know_the_places_that_documents_know(here: World) -> None:
    here.number.locality, here.number.region, here.number.status_callback = "Reno", "nv", f"{here.app.url}/status"
    here.app.answers("/voice", "<Hangup/>")
    await here.phone.dials().ended()
    stored = await here.landed()
    (hook,) = await here.reader.webhooks(ACCOUNT, stored.sid)
    told = dict(hook["request"]["params"])
    assert (told["ToCity"], told["CalledState"], told["FromCity"]) == ("RENO", "NV", "")


def watched(here: World) -> Bans:
    bans = Bans(here.services.settings.sip, here.memory, here.services.clock, here.sources.by_address)
    here.sources.bans, here.sources.scanners = bans, ("friendly-scanner",)
    return bans


async def test_who_calls_what_there_is_not_is_banned(here: World) -> None:
    bans, eve = watched(here), here.another("127.0.0.7")
    for number in range(9):
        assert await refused(here, eve.dials(f"+1415555{number:04d}")) == 403
    assert not bans.refuses("127.0.0.7")
    assert await refused(here, eve.dials(NUMBER)) == 403  # a number of ours tells no more
    (ban,) = bans.listed()
    assert (ban.address, ban.why, ban.proven) == ("127.0.0.7", "unknown-target", False)
    dropped = eve.dials(NUMBER)
    await until(lambda: here.stack.metrics.get("dropped"))
    assert dropped.failed == 0
    dropped.invite.cancel()


async def test_scanners_get_no_answer(here: World) -> None:
    bans, eve = watched(here), here.another("127.0.0.7")
    calls = [eve.dials(NUMBER, headers=[("User-Agent", "Friendly-Scanner/3")]) for _ in range(10)]
    await until(lambda: bans.listed())
    assert [call.failed for call in calls] == [0] * 10
    assert bans.counters == {"scanner": 1}
    for call in calls:
        call.invite.cancel()


async def test_a_trunk_may_call_what_it_likes(here: World) -> None:
    bans = watched(here)
    for _ in range(12):
        assert await refused(here, here.phone.dials("+14155550101")) == 404
    here.app.answers("/voice", "<Hangup/>")
    await here.phone.dials(headers=[("User-Agent", "friendly-scanner")]).ended()
    assert bans.listed() == []


@pytest.mark.parametrize("user", ["pbx", "nobody"])
async def test_passwords_of_trunks_are_not_guessed(tmp_path, user: str) -> None:
    async with world(tmp_path, trunks=(LOGIN,), sip=Sip(source_requests_per_second=1000)) as here:
        bans = watched(here)
        for _ in range(10):
            assert await refused(here, here.phone.dials(credentials=(user, "guess"))) == 403
        (ban,) = bans.listed()
        assert (ban.why, ban.proven) == ("wrong-login", True)


async def test_a_right_login_is_never_banned(tmp_path) -> None:
    async with world(tmp_path, trunks=(LOGIN,), sip=Sip(source_requests_per_second=1000)) as here:
        bans = watched(here)
        here.app.answers("/voice", "<Hangup/>")
        await here.phone.dials(credentials=("pbx", "s3cret")).ended()
        for _ in range(12):
            await here.phone.dials(credentials=("pbx", "guess")).ended()
        assert bans.listed() == []


def test_wrong_logins_use_up_a_strangers_requests() -> None:
    clock = ManualClock()
    sources = Sources((TRUNK,), "test", b"key", 50, clock)
    assert all(sources.permitted("127.0.0.7") for _ in range(10))
    for _ in range(20):
        sources.failed("127.0.0.7")
        sources.failed("127.0.0.9")
    assert not sources.permitted("127.0.0.7")
    assert sources.permitted("127.0.0.8")
    assert sources.permitted("127.0.0.9")  # a trunk's
    clock.advance(1.0)
    assert not sources.permitted("127.0.0.7")
    clock.advance(0.1)
    assert sources.permitted("127.0.0.7")
    assert sources.wrong_logins == 40
