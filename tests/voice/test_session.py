"""Sessions: documents, fallback, content types, bounds, live updates, the end in the middle of everything."""

import asyncio

import msgspec
import pytest

from tests.voice.world import ACCOUNT, CALLER, NUMBER, World, until, world
from trunkline.media import protocol
from trunkline.model.call import Status
from trunkline.model.clock import SystemClock
from trunkline.model.numbers import Application
from trunkline.settings import Voice
from trunkline.voice import session as module
from trunkline.voice.checkpoints import (
    DOCUMENT,
    LEG,
    POSITION,
    DocumentCheckpoint,
    LegCheckpoint,
    Position,
    key,
)
from trunkline.webhooks.sign import signer


async def test_a_whole_call(here: World) -> None:
    here.app.answers("/voice", "<Say>hello</Say><Hangup/>")
    caller = here.phone.dials()
    await caller.ended()
    stored = await here.landed()
    assert stored.status == "completed"
    assert here.media.plays() == [["hello"]]
    assert caller.progress[-1] == 180
    assert [type(c).__name__ for c in here.media.commands] == ["Open", "Play", "Close"]
    kinds = [entry.kind for entry in stored.timeline]
    assert {"sip", "webhook", "twiml", "status"} <= set(kinds)
    sip = [entry.what.partition(" sip:")[0] for entry in stored.timeline if entry.kind == "sip"]
    assert sip[:5] == ["<- INVITE", "-> 180 Ringing", "-> 200 OK", "<- ACK", "-> BYE"]
    assert stored.quality is not None
    assert (stored.quality.codec, stored.quality.mos, stored.quality.lost) == ("PCMU", 4.1, 1)
    assert (stored.hangup_cause, stored.trunk, stored.sip_response_code) == ("hangup", "carrier", 200)


async def test_the_first_request(here: World) -> None:
    headers = [("X-Color", "blue"), ("User-to-User", "abc"), ("Diversion", "<sip:+14155550122@x>")]
    here.number.locality, here.number.region, here.number.postal_code = "San Jose", "ca", "95110"
    here.app.answers("/voice", "<Hangup/>")
    caller = here.phone.dials(headers=headers)
    await caller.ended()
    method, _, params = here.app.requests[0]
    assert method == "POST"
    assert params.pop("CallSid").startswith("CA")
    assert params.pop("SipCallId")
    assert params == {
        "AccountSid": ACCOUNT, "From": CALLER, "To": NUMBER, "Caller": CALLER, "Called": NUMBER,
        "CallStatus": "ringing", "ApiVersion": "2010-04-01", "Direction": "inbound", "ForwardedFrom": "+14155550122",
        "FromCountry": "US", "FromCity": "", "FromState": "", "FromZip": "",
        "CallerCountry": "US", "CallerCity": "", "CallerState": "", "CallerZip": "",
        "ToCity": "SAN JOSE", "ToState": "CA", "ToZip": "95110", "ToCountry": "US",
        "CalledCity": "SAN JOSE", "CalledState": "CA", "CalledZip": "95110", "CalledCountry": "US",
        "SipHeader_X-Color": "blue", "SipHeader_User-to-User": "abc",
    }  # fmt: skip
    assert here.app.raw[0].headers["x-twilio-signature"]


async def test_requests_are_signed_with_the_token_that_the_account_has_now(here: World) -> None:
    _, call = await here.up("<Gather timeout='60'/>")
    here.account = msgspec.structs.replace(here.account, auth_token="rotated")
    here.app.answers("/new", "<Pause length='60'/>")
    call.redirect(url=f"{here.app.url}/new")
    await until(lambda: here.app.asked("/new"))
    request = here.app.raw[-1]
    params = list(here.app.asked("/new")[0].items())
    assert request.headers["x-twilio-signature"] == signer("rotated").sign(f"{here.app.url}/new", params)


async def test_cookies_stay_with_the_call(here: World) -> None:
    here.media.holds = True
    here.app.headers.append("Set-Cookie: id=7; Path=/")
    here.app.answers("/next", "<Say>x</Say>")
    caller, call = await here.up("<Redirect>/next</Redirect>")
    await until(lambda: here.media.playing, "the prompt")
    stored = msgspec.msgpack.decode(await here.memory.get(key(call.sid, DOCUMENT)), type=DocumentCheckpoint)
    assert stored.web is not None
    assert [cookie.name for cookie in stored.web.cookies.cookies] == ["id"]
    here.media.end(call.sid)
    await caller.ended()
    assert "cookie" not in here.app.raw[0].headers
    assert here.app.raw[1].headers["cookie"] == "id=7"


XML = "<Response><Say>one</Say></Response>"


@pytest.mark.parametrize(
    ("content_type", "body", "played", "alerts"),
    [
        ("text/xml", XML, ["one"], []),
        ("application/xml; charset=utf-8", XML, ["one"], []),
        ("text/html", XML, ["one"], []),
        ("text/plain", "\n" + XML, ["one"], []),
        ("text/plain", "just talk", ["just talk"], []),
        ("text/plain; charset=ISO-8859-1", "grüß".encode("latin-1"), ["grüß"], []),
        ("audio/mpeg", b"\xff\xfb" * 50_000, ["/voice"], []),
        ("audio/x-wav", b"RIFF", ["audio/x-wav: 4"], []),
        ("application/json", "{}", [module.APOLOGY], [12300]),
        ("", XML, [module.APOLOGY], [12300]),
        ("text/xml", "<Response><Say>", [module.APOLOGY], [12100]),
        ("text/xml", "<Html/>", [module.APOLOGY], [12102]),
        ("text/xml", b"<Response>" + b" " * 70_000 + b"</Response>", [module.APOLOGY], [11750]),
        ("text/xml", "", [], []),
        ("text/xml", "<Response/>", [], []),
        ("text/xml", "<Response><Bogus/><Say tempo='9'>one</Say></Response>", ["one"], [12200, 12200]),
    ],
)
async def test_content_types(
    here: World, content_type: str, body: str | bytes, played: list[str], alerts: list[int]
) -> None:
    here.app.answers("/voice", body if isinstance(body, bytes) else body.encode(), content_type)
    caller = here.phone.dials()
    await caller.ended()
    stored = await here.landed()
    heard = [item.removeprefix(here.app.url) for items in here.media.plays() for item in items]
    assert heard == played
    assert here.alerts.codes == alerts
    assert stored.status == "completed"  # nothing but <Reject> keeps a call from being answered


async def test_the_fallback_url_is_told_what_was_wrong(here: World) -> None:
    here.number.voice_fallback_url = f"{here.app.url}/fallback"
    here.app.answers("/fallback", "<Say>sorry</Say>")
    stored = await here.whole("<Redirect>/gone</Redirect>")
    assert here.media.plays() == [["sorry"]]
    (params,) = here.app.asked("/fallback")
    assert (params["ErrorCode"], params["ErrorUrl"]) == ("11200", f"{here.app.url}/gone")
    assert params["CallStatus"] == "in-progress"
    assert stored.status == "completed"
    assert here.alerts.codes == [11200]


async def test_a_failing_fallback_ends_the_call(here: World) -> None:
    here.number.voice_fallback_url = f"{here.app.url}/gone"
    here.number.voice_url = f"{here.app.url}/gone-too"
    caller = here.phone.dials()
    await caller.ended()
    assert here.media.plays() == [[module.APOLOGY]]
    stored = await here.landed()
    assert (stored.status, stored.hangup_cause) == ("completed", "application-error")
    assert len(here.app.requests) == 2
    assert here.alerts.codes == [11200, 11200]


async def test_a_call_that_is_up_hears_an_apology(here: World) -> None:
    stored = await here.whole("<Say>hello</Say><Redirect>/gone</Redirect>")
    assert here.media.plays() == [["hello"], [module.APOLOGY]]
    assert stored.status == "completed"


async def test_the_application_overrides_the_number(here: World) -> None:
    here.applications["AP1"] = Application(
        sid="AP1", account_sid=ACCOUNT, voice_url=f"{here.app.url}/app", voice_method="GET"
    )
    here.number.voice_application_sid = "AP1"
    here.app.answers("/app", "<Hangup/>")
    await here.phone.dials().ended()
    method, path, params = here.app.requests[0]
    assert (method, path, params["ApplicationSid"]) == ("GET", "/app", "AP1")


async def test_gets_are_cached_by_their_tag_and_posts_never(here: World) -> None:
    here.number.voice_method = "GET"
    here.app.answers("/voice", "<Hangup/>")
    await here.phone.dials().ended()
    await here.phone.dials().ended()
    assert [method for method, _, _ in here.app.requests] == ["GET", "GET"]


@pytest.mark.parametrize(
    ("redirect", "path"),
    [
        ("next", "/menus/next"),
        ("/next?a=1&amp;b=2", "/next"),
        ("../next", "/next"),
        ("", "/menus/voice"),
    ],
)
async def test_relative_urls(here: World, redirect: str, path: str) -> None:
    here.number.voice_url = f"{here.app.url}/menus/voice?x=1"
    here.app.answers("/menus/voice", [f"<Redirect>{redirect}</Redirect>", "<Hangup/>"])
    here.app.answers(path, "<Hangup/>") if path != "/menus/voice" else None
    await here.phone.dials().ended()
    assert here.app.requests[1][1] == path
    assert here.app.requests[1][2]["CallStatus"] == "in-progress"


async def test_urls_are_relative_to_where_the_document_came_from(here: World) -> None:
    here.app.moved["/voice"] = "/deep/voice"
    here.app.answers("/deep/voice", "<Redirect>next</Redirect>")
    here.app.answers("/deep/next", "<Hangup/>")
    await here.phone.dials().ended()
    assert [path for _, path, _ in here.app.requests] == ["/voice", "/deep/voice", "/deep/next"]


async def test_loops_of_documents_end(tmp_path) -> None:
    async with world(tmp_path, voice=Voice(documents=7)) as here:
        stored = await here.whole("<Redirect/>")
        assert len(here.app.requests) == 7
        assert here.alerts.codes == [12400]
        assert (stored.status, stored.hangup_cause) == ("completed", "application-error")


async def test_loops_of_verbs_end(tmp_path) -> None:
    async with world(tmp_path, voice=Voice(verbs=5)) as here:
        stored = await here.whole("<Say>x</Say><Say>y</Say><Redirect/>")
        assert here.media.plays() == [["x"], ["y"], ["x"], ["y"]][:4]
        assert here.alerts.codes == [12400]
        assert stored.status == "completed"


# -- updates and endings in the middle -----------------------------------------------------------------------------

MIDDLE = {
    "say": "<Say loop='0'>for ever</Say>",
    "play": "<Play loop='0'>/music.mp3</Play>",
    "pause": "<Say>x</Say><Pause length='60'/>",
    "gather": "<Gather timeout='60'/>",
    "gather-prompt": "<Gather><Say loop='0'>press</Say></Gather>",
    "fetch": "<Say>x</Say><Redirect>/slow</Redirect>",
    "digits": "<Play digits='1w2'/>",
}


async def middle(here: World, name: str) -> tuple:
    """A call in the middle of a verb."""
    here.media.holds = name == "digits"
    if name == "fetch":
        here.app.hold.clear()
    caller, call = await here.up(MIDDLE[name])
    if name == "fetch":
        await until(lambda: here.app.asked("/slow"), "the slow request")
    elif name in ("pause", "gather"):
        await until(lambda: call.session.position.state, "the verb")
    else:
        await until(lambda: here.media.playing, "the prompt")
    return caller, call


@pytest.mark.parametrize("name", MIDDLE)
async def test_every_verb_is_left_at_once_for_another_document(here: World, name: str) -> None:
    caller, call = await middle(here, name)
    here.media.holds = False
    here.app.answers("/other", "<Say>other</Say>")
    here.app.hold.set() if name != "fetch" else None
    assert call.redirect(url=f"{here.app.url}/other", method="GET")
    await asyncio.sleep(0)
    here.app.hold.set()
    await caller.ended()
    assert here.media.plays()[-1] == ["other"]
    assert here.app.requests[-1][:2] == ("GET", "/other")
    assert (await here.landed()).hangup_cause == "end-of-document"


@pytest.mark.parametrize("name", MIDDLE)
async def test_every_verb_ends_with_the_call(here: World, name: str) -> None:
    caller, call = await middle(here, name)
    session = call.session
    caller.hangs_up(("Reason", "Q.850;cause=16"))
    await until(lambda: session.done, "the session's end")
    stored = await here.landed()
    assert (stored.status, stored.hangup_cause) == ("completed", "caller")
    assert not here.media.playing
    assert call.on_digit is None
    here.app.hold.set()


@pytest.mark.parametrize("name", MIDDLE)
async def test_every_verb_can_be_ended_by_the_api(here: World, name: str) -> None:
    caller, call = await middle(here, name)
    call.hangup("api")
    await caller.ended()
    assert caller.bye is not None
    assert (await here.landed()).hangup_cause == "api"
    here.app.hold.set()


async def test_a_document_given_by_the_api_has_no_url(here: World) -> None:
    caller, call = await middle(here, "pause")
    call.redirect(twiml="<Response><Say>given</Say><Redirect>next</Redirect><Say>never</Say></Response>")
    await caller.ended()
    assert here.media.plays()[1:] == [["given"], [module.APOLOGY]]
    assert here.alerts.codes == [11100]


async def test_the_last_of_many_updates_counts(here: World) -> None:
    caller, call = await middle(here, "pause")
    for number in range(5):
        call.redirect(twiml=f"<Response><Say>{number}</Say></Response>")
    await caller.ended()
    assert here.media.plays()[-1] == ["4"]


async def test_no_update_without_a_session(here: World) -> None:
    caller, call = await middle(here, "pause")
    call.hangup("api")
    assert not call.redirect(twiml="<Response/>")
    await caller.ended()


async def test_what_is_not_there_yet_says_so_once_and_the_call_goes_on(here: World) -> None:
    stored = await here.whole(
        "<Connect><Stream url='wss://x'/></Connect><Enqueue waitUrl='/w'>q</Enqueue><Connect/><Say>on</Say>"
    )
    assert here.alerts.raised == [
        (13750, "<Connect> is not supported yet; the call goes on without it"),
        (13750, "<Enqueue> is not supported yet; the call goes on without it"),
    ]
    assert here.media.plays() == [["on"]]
    assert stored.status == "completed"


async def test_a_verb_that_fails_is_told_and_the_call_goes_on(here: World, monkeypatch, caplog) -> None:
    from trunkline.voice.verbs import VERBS, say

    async def broken(verb, session, state):
        raise ZeroDivisionError

    monkeypatch.setitem(VERBS, "Say", VERBS["Say"]._replace(run=broken))
    await here.whole("<Say>x</Say><Play>/y.mp3</Play>")
    assert here.alerts.raised == [(12400, "<Say> failed; the call goes on with the next verb")]
    assert len(here.media.plays()) == 1
    assert "ZeroDivisionError" in caplog.text
    assert say.run is not broken


async def test_whisper_documents_run_without_dial(here: World) -> None:
    here.app.answers("/whisper", "<Say>psst</Say><Say>second</Say>")
    caller, call = await middle(here, "pause")
    main = call.session
    other = main.on(call, without={"Say"})
    ending = await other.run(module.Goto(f"{here.app.url}/whisper"))
    assert ending == module.END
    assert here.alerts.codes == [13201, 13201]
    assert call.is_up
    call.hangup("test")
    await caller.ended()


async def test_checkpoints_lead_on_where_it_was(here: World) -> None:
    here.media.holds = True
    caller, call = await here.up("<Say>one</Say><Say>two</Say><Say>three</Say>")
    await until(lambda: here.media.plays() == [["one"]], "the first prompt")
    here.media.end(call.sid)
    await until(lambda: here.media.plays()[1:] == [["two"]], "the second prompt")
    kept = {part: await here.memory.get(key(call.sid, part)) for part in (LEG, DOCUMENT, POSITION)}
    leg = msgspec.msgpack.decode(kept[LEG], type=LegCheckpoint)
    assert leg.dialog is not None
    assert (leg.dialog.call_id, leg.slot, leg.negotiated.codec) == (caller.invite.call_id, call.audio.slot, "PCMU")
    document = msgspec.msgpack.decode(kept[DOCUMENT], type=DocumentCheckpoint)
    assert document.web is None
    position = msgspec.msgpack.decode(kept[POSITION], type=Position)
    assert (position.verb, position.state["play"], document.url) == (1, "2", f"{here.app.url}/voice")
    assert 0 <= SystemClock().now_ms() - position.state["since"] < 5000
    # Another process: the play goes on in the media process, and is only waited for.
    first = call.session
    first.cancel()
    await until(lambda: first.done, "the first session's end")
    assert call.is_up
    call.audio.adopted = "2"
    module.Session(call).resume(document, position)
    await until(lambda: call.session is not None and call.session.position.verb == 1, "the second session")
    await asyncio.sleep(0.01)
    assert here.media.plays() == [["one"], ["two"]]
    here.media.end(call.sid)
    await until(lambda: here.media.plays()[2:] == [["three"]], "the third prompt")
    here.media.end(call.sid)
    await caller.ended()
    assert len(here.app.requests) == 1
    await until(lambda: not here.services.live, "the end")
    assert await here.memory.get(key(call.sid, LEG)) is None


async def test_a_store_that_takes_nothing_refuses_the_call(here: World, monkeypatch) -> None:
    from trunkline.storage.unavailable import StoreUnavailable

    def broken(*_, **__):
        future = asyncio.get_running_loop().create_future()
        future.set_exception(StoreUnavailable("full"))
        return future

    monkeypatch.setattr(here.queue, "accept", broken)
    here.app.answers("/voice", "<Say>x</Say>")
    caller = here.phone.dials()
    await caller.ended()
    assert caller.failed == 503
    assert here.media.plays() == []
    assert Status.FAILED in [call.status for call in here.services.live.values()] or not here.services.live
    assert here.media.of(protocol.Open) == []
