"""Where a customer's URLs may lead a call: nowhere inside. Every URL that a call requests goes by the guard."""

from pathlib import Path

import pytest

from tests.voice.world import World, until
from tests.webhooks.servers import answer, running
from trunkline.model.clock import SystemClock
from trunkline.settings import Settings
from trunkline.voice.audio_fetch import AudioFetch
from trunkline.webhooks.guard import LOOPBACK, Guard
from trunkline.webhooks.http import Client

INSIDE = "http://169.254.169.254/latest/meta-data/"
REFUSED = 11210
KEYS = "<Gather numDigits='1' timeout='9' action='{}'/>"
DOCUMENTS = {
    "redirect": f"<Redirect>{INSIDE}</Redirect>",
    "action": KEYS.format(INSIDE),
    "redirect by GET": f"<Redirect method='GET'>{INSIDE}</Redirect>",
    "an answer that leads there": "<Redirect>/moved</Redirect>",
    "another spelling": "<Redirect>http://0xa9fea9fe/</Redirect>",
    "a mapped address": "<Redirect>http://[::ffff:169.254.169.254]/</Redirect>",
}


async def refused(here: World) -> None:
    """The call ends with the alert, and nothing was connected to."""
    await until(lambda: REFUSED in here.alerts.codes, "the alert")
    stored = await here.landed()
    webhooks = [entry.details for entry in stored.timeline if entry.kind == "webhook"]
    (last,) = [one for one in webhooks if one.get("failure") == "host-refused"]
    assert last["status"] in (0, 302), "not more than the answer that led there"
    assert last["response_body"] == ""


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
async def test_documents(here: World, document: str) -> None:
    here.app.moved["/moved"] = INSIDE
    here.app.answers("/voice", document)
    caller = here.phone.dials()
    if "Gather" in document:
        await caller.answered()
        await until(lambda: here.call.on_digit is not None)
        here.media.press(here.call.sid, "1")
    await caller.ended()
    await refused(here)


async def test_the_first_document(here: World) -> None:
    here.number.voice_url = INSIDE
    await here.phone.dials().ended()
    await refused(here)


async def test_the_fallback(here: World) -> None:
    here.number.voice_fallback_url = INSIDE
    await here.phone.dials().ended()
    await refused(here)


async def test_a_live_update(here: World) -> None:
    caller, call = await here.up("<Gather timeout='60'/>")
    call.redirect(url=INSIDE)
    await caller.ended()
    await refused(here)


async def test_audio_files() -> None:
    client = Client()
    fetch = AudioFetch(client, Guard(LOOPBACK), SystemClock(), Settings())
    async with running(lambda request: answer(b"", 302, f"Location: {INSIDE}")) as server:
        for url in (INSIDE, f"http://127.0.0.1:{server.port}/a.wav", "http://10.0.0.1/a.wav", "file:///etc/passwd"):
            got = await fetch(url, into=Path("/nowhere"), etag="", last_modified="")
            assert got.error_code
            assert not got.body
    await client.close()
