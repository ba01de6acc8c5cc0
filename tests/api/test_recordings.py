"""Recordings of an account.

| property | |
|---|---|
| sid, account_sid, call_sid, conference_sid | SIDs |
| status | in-progress, paused, stopped, processing, completed, absent |
| duration, price | text, null while it runs |
| channels, source, error_code, encryption_details | |
| date_created, date_updated, start_time | RFC 2822 |
| uri, subresource_uris, media_url | |
"""

import asyncio
from pathlib import Path

import pytest

from tests.api.call_world import CallWorld
from trunkline.accounts.directory import create_account
from trunkline.api.asgi import Api
from trunkline.api.auth import Authenticator
from trunkline.api.idempotency import Idempotency
from trunkline.api.resources import all_routes
from trunkline.model.recording import Recording

WAV = b"RIFF" + bytes(range(200))
NO_RECORDING = "RE" + "0" * 32


class Audio:
    """Instead of the audio worker: says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.fails = False

    async def convert(self, source: Path, target: Path, *, form: str, channels: int) -> None:
        self.asked.append((form, channels))
        await asyncio.sleep(0)
        if self.fails:
            raise OSError("no decoder")
        target.write_bytes(f"{form} {channels} ".encode() + source.read_bytes())


@pytest.fixture
def audio(calls: CallWorld) -> Audio:
    made = calls.world.services.audio = Audio()
    return made


async def test_a_recording_as_it_is_shown(calls: CallWorld) -> None:
    call = await calls.landed()
    made = await calls.recording(call.sid, WAV, channels=2)
    uri = calls.world.path(f"Recordings/{made.sid}")
    shown = (await calls.world.get(uri + ".json")).json
    assert shown == {
        "account_sid": calls.world.owner.sid, "api_version": "2010-04-01", "call_sid": call.sid,
        "conference_sid": None, "channels": 2, "date_created": "Tue, 14 Nov 2023 22:13:20 +0000",
        "date_updated": "Tue, 14 Nov 2023 22:13:20 +0000", "start_time": "Tue, 14 Nov 2023 22:13:20 +0000",
        "price": "-0.00250", "price_unit": "USD", "duration": "4", "sid": made.sid, "source": "OutboundAPI",
        "status": "completed", "error_code": None, "encryption_details": None, "uri": uri + ".json",
        "subresource_uris": {
            "add_on_results": uri + "/AddOnResults.json", "transcriptions": uri + "/Transcriptions.json",
        },
        "media_url": "http://localhost:8080" + uri,
    }  # fmt: skip
    listed = (await calls.world.get(calls.world.path("Recordings.json"))).json
    assert listed["recordings"] == [shown]
    xml = await calls.world.get(uri + ".xml")
    assert b"<Recording><AccountSid>" in xml.body


async def test_of_one_that_runs_some_things_are_not_known_yet(calls: CallWorld) -> None:
    made = await calls.recording("CA1", status="in-progress", price="", price_unit="", duration_ms=0)
    shown = (await calls.world.get(calls.world.path(f"Recordings/{made.sid}.json"))).json
    assert (shown["status"], shown["price"], shown["price_unit"], shown["duration"]) == (
        "in-progress", None, None, None,
    )  # fmt: skip


async def test_one_that_could_not_be_kept_is_absent_with_its_reason(calls: CallWorld) -> None:
    made = await calls.recording("CA1", status="failed", error_code=31000, duration_ms=0)
    shown = (await calls.world.get(calls.world.path(f"Recordings/{made.sid}.json"))).json
    assert (shown["status"], shown["error_code"], shown["duration"]) == ("absent", 31000, "0")


async def test_filters_and_pages(calls: CallWorld) -> None:
    one, two = [await calls.landed(), await calls.landed()]
    old = [(await calls.recording(call.sid)).sid for call in (one, one, two)]
    calls.world.clock.ms += 86_400_000
    new = (await calls.recording(two.sid)).sid

    async def listed(query: str) -> list[str]:
        reply = await calls.world.get(calls.world.path(f"Recordings.json?{query}"))
        assert reply.status == 200, reply.body
        return [one["sid"] for one in reply.json["recordings"]]

    assert (await listed(""))[0] == new
    assert set(await listed("")) == {new, *old}
    assert set(await listed(f"CallSid={one.sid}")) == set(old[:2])
    assert await listed("DateCreated=2023-11-15") == [new]
    assert set(await listed("DateCreated%3C=2023-11-15")) == set(old)
    assert await listed("DateCreated%3E=2023-11-15") == [new]
    assert await listed(f"ConferenceSid=CF{'0' * 32}") == []
    page = (await calls.world.get(calls.world.path("Recordings.json?PageSize=3"))).json
    rest = (await calls.world.get(page["next_page_uri"])).json
    assert {one["sid"] for one in page["recordings"] + rest["recordings"]} == {new, *old}


# -- audio -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".wav"])
async def test_the_wav_file(calls: CallWorld, suffix: str) -> None:
    made = await calls.recording("CA1", WAV)
    path = calls.world.path(f"Recordings/{made.sid}{suffix}")
    reply = await calls.world.get(path)
    assert (reply.status, reply.body) == (200, WAV)
    assert reply.headers["content-type"] == "audio/x-wav"
    assert reply.headers["content-length"] == str(len(WAV))
    assert reply.headers["content-disposition"] == f'inline; filename="{made.sid}.wav"'
    head = await calls.world.call("HEAD", path)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(WAV)))


@pytest.mark.parametrize(
    ("sent", "status", "content"),
    [
        ("bytes=0-3", 206, b"RIFF"),
        ("bytes=4-", 206, WAV[4:]),
        ("bytes=-4", 206, WAV[-4:]),
        ("bytes=0-99999", 206, WAV),
        ("bytes=-99999", 206, WAV),
        ("bytes=0-1,4-5", 200, WAV),
        ("bytes=-", 200, WAV),
        ("words=0-1", 200, WAV),
        (f"bytes={len(WAV)}-", 416, None),
        ("bytes=5-4", 416, None),
        ("bytes=-0", 416, None),
    ],
)
async def test_ranges(calls: CallWorld, sent: str, status: int, content: bytes | None) -> None:
    made = await calls.recording("CA1", WAV)
    path = calls.world.path(f"Recordings/{made.sid}.wav")
    reply = await calls.world.get(path, headers={"Range": sent})
    assert reply.status == status
    if content is None:
        assert reply.headers["content-range"] == f"bytes */{len(WAV)}"
        return
    assert reply.body == content
    assert reply.headers["content-length"] == str(len(content))
    if status == 206:
        start = WAV.index(content)
        assert reply.headers["content-range"] == f"bytes {start}-{start + len(content) - 1}/{len(WAV)}"
        assert (await calls.world.get(path, headers={"Range": sent, "If-Range": '"other"'})).body == WAV
        same = {"Range": sent, "If-Range": reply.headers["etag"]}
        assert (await calls.world.get(path, headers=same)).body == content


async def test_mp3_is_made_once_and_kept(calls: CallWorld, audio: Audio) -> None:
    made = await calls.recording("CA1", WAV)
    path = calls.world.path(f"Recordings/{made.sid}.mp3")
    first, second = await asyncio.gather(calls.world.get(path), calls.world.get(path))
    assert first.body == second.body == b"mp3 1 " + WAV
    assert first.headers["content-type"] == "audio/mpeg"
    assert (await calls.world.get(path, headers={"Range": "bytes=0-2"})).body == b"mp3"
    assert audio.asked == [("mp3", 1)]


async def test_channels(calls: CallWorld, audio: Audio) -> None:
    dual, mono = await calls.recording("CA1", WAV, channels=2), await calls.recording("CA1", WAV)

    async def get(recording: Recording, query: str) -> bytes:
        return (await calls.world.get(calls.world.path(f"Recordings/{recording.sid}{query}"))).body

    assert await get(dual, ".wav") == WAV, "as it was asked for when it was made"
    assert await get(dual, ".wav?RequestedChannels=2") == WAV
    assert await get(dual, "?RequestedChannels=1") == b"wav 1 " + WAV
    assert await get(dual, ".mp3") == b"mp3 2 " + WAV
    assert await get(dual, ".mp3?RequestedChannels=1") == b"mp3 1 " + WAV
    assert await get(mono, ".wav?RequestedChannels=1") == WAV
    refused = await calls.world.get(calls.world.path(f"Recordings/{mono.sid}.wav?RequestedChannels=2"))
    assert refused.status == 400


async def test_a_conversion_that_fails_is_tried_again(calls: CallWorld, audio: Audio) -> None:
    made = await calls.recording("CA1", WAV)
    path = calls.world.path(f"Recordings/{made.sid}.mp3")
    audio.fails = True
    failed = await calls.world.get(path)
    assert (failed.status, failed.headers["retry-after"]) == (503, "5")
    audio.fails = False
    assert (await calls.world.get(path)).status == 200


async def test_without_a_worker_there_is_the_wav_file_alone(calls: CallWorld) -> None:
    made = await calls.recording("CA1", WAV, channels=2)
    for query in (".mp3", ".wav?RequestedChannels=1"):
        assert (await calls.world.get(calls.world.path(f"Recordings/{made.sid}{query}"))).status == 501
    assert (await calls.world.get(calls.world.path(f"Recordings/{made.sid}"))).body == WAV


async def test_no_audio_yet(calls: CallWorld) -> None:
    for status in ("in-progress", "absent", "failed"):
        made = await calls.recording("CA1", status=status)
        assert (await calls.world.get(calls.world.path(f"Recordings/{made.sid}.wav"))).status == 404
    kept = await calls.recording("CA1", WAV)
    await calls.recordings.blobs.delete(kept.sid)
    assert (await calls.world.get(calls.world.path(f"Recordings/{kept.sid}.wav"))).status == 404


# -- who may hear it ---------------------------------------------------------------------------------------------


async def test_audio_asks_for_a_login_unless_the_operator_says_otherwise(calls: CallWorld) -> None:
    world = calls.world
    made = await calls.recording("CA1", WAV)
    path = world.path(f"Recordings/{made.sid}")
    assert (await world.get(path + ".wav", auth=None)).status == 401
    services = world.services
    world.api = Api(
        all_routes(), services, Authenticator(services.directory, services.secrets.pepper, world.clock.monotonic),
        Idempotency(services.queue, world.clock.now_ms), public=True,
    )  # fmt: skip
    assert (await world.get(path + ".wav", auth=None)).body == WAV
    assert (await world.get(path, auth=None, headers={"Range": "bytes=0-3"})).body == b"RIFF"
    assert (await world.get(path + ".json", auth=None)).status == 401, "the resource is not public"
    assert (await world.get(world.path("Recordings.json"), auth=None)).status == 401
    assert (await world.call("DELETE", path, auth=None)).status == 401
    assert (await world.get(path + ".wav", auth=(world.owner.sid, "wrong"))).status == 401, "a wrong login is wrong"
    nobody = world.path(f"Recordings/{made.sid}.wav", "AC" + "0" * 32)
    assert (await world.get(nobody, auth=None)).status == 404


async def test_another_accounts_recording_is_not_there(calls: CallWorld) -> None:
    made = await calls.recording("CA1", WAV)
    stranger = await create_account(calls.world.database, calls.world.clock, "Stranger")
    login = (stranger.sid, stranger.auth_token)
    for suffix in ("", ".wav", ".json"):
        path = calls.world.path(f"Recordings/{made.sid}{suffix}", stranger.sid)
        assert (await calls.world.get(path, auth=login)).status == 404
    assert (
        await calls.world.call("DELETE", calls.world.path(f"Recordings/{made.sid}", stranger.sid), auth=login)
    ).status == 404


@pytest.mark.parametrize("name", [NO_RECORDING, "RE12", "RE12.wav", NO_RECORDING + ".ogg", NO_RECORDING + ".wav"])
async def test_what_is_not_there(calls: CallWorld, name: str) -> None:
    assert (await calls.world.get(calls.world.path(f"Recordings/{name}"))).status == 404


# -- delete ------------------------------------------------------------------------------------------------------


async def test_deletion_takes_the_audio_and_all_that_was_made_of_it(calls: CallWorld, audio: Audio) -> None:
    made = await calls.recording("CA1", WAV)
    blobs = calls.recordings.blobs
    path = calls.world.path(f"Recordings/{made.sid}")
    await calls.world.get(path + ".mp3")
    assert (await calls.world.call("DELETE", path + ".json")).status == 204
    assert (await calls.world.get(path + ".json")).code == 20404
    assert (await calls.world.get(path + ".mp3")).status == 404
    assert await blobs.get(made.sid) is None
    assert blobs.stored_bytes == 0  # type: ignore[attr-defined]
    assert (await calls.world.call("DELETE", path + ".json")).code == 20404


async def test_who_asks_for_deleted_ones_is_told_of_them(calls: CallWorld) -> None:
    call = await calls.landed()
    gone, there = await calls.recording(call.sid, WAV), await calls.recording(call.sid, WAV)
    path = calls.world.path(f"Recordings/{gone.sid}")
    assert (await calls.world.call("DELETE", path + ".json")).status == 204

    async def listed(query: str) -> dict[str, str]:
        reply = await calls.world.get(calls.world.path(f"Recordings.json?{query}"))
        return {one["sid"]: one["status"] for one in reply.json["recordings"]}

    assert await listed("") == await listed("IncludeSoftDeleted=false") == {there.sid: "completed"}
    assert await listed("IncludeSoftDeleted=true") == {gone.sid: "deleted", there.sid: "completed"}
    assert (await calls.world.get(path + ".json")).code == 20404
    shown = (await calls.world.get(path + ".json?IncludeSoftDeleted=true")).json
    assert (shown["status"], shown["duration"], shown["price_unit"]) == ("deleted", "4", "USD")
    assert (await calls.world.get(path + ".wav?IncludeSoftDeleted=true")).status == 404
    assert (await calls.world.call("DELETE", path + ".json?IncludeSoftDeleted=true")).code == 20404
    of_call = (await calls.world.get(calls.path(f"/{call.sid}/Recordings.json"))).json["recordings"]
    assert [one["sid"] for one in of_call] == [there.sid]


async def test_one_that_runs_cannot_be_deleted(calls: CallWorld) -> None:
    leg = await calls.up()
    sid = (await calls.world.post(calls.path(f"/{leg.record.sid}/Recordings.json"))).json["sid"]
    refused = await calls.world.call("DELETE", calls.world.path(f"Recordings/{sid}.json"))
    assert (refused.status, refused.code) == (409, 20009)
