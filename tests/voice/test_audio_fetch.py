"""Fetching audio files for prompts."""

from pathlib import Path

import pytest

from tests.webhooks.servers import answer, running
from trunkline.model.clock import SystemClock
from trunkline.settings import MediaEngine, Settings, Webhooks
from trunkline.voice.audio_fetch import AudioFetch
from trunkline.webhooks.guard import Guard
from trunkline.webhooks.http import Client


@pytest.fixture
async def fetch():
    client = Client()
    settings = Settings(media=MediaEngine(audio_file_bytes=100_000), webhooks=Webhooks(response_bytes=1000))
    yield AudioFetch(client, Guard.development(), SystemClock(), settings)
    await client.close()


async def asked(fetch: AudioFetch, handler, etag: str = "", last_modified: str = ""):
    async with running(handler) as server:
        url = f"http://127.0.0.1:{server.port}/a.wav"
        return await fetch(url, into=Path("/nowhere"), etag=etag, last_modified=last_modified), server.requests


async def test_a_file(fetch) -> None:
    body = b"RIFF" * 10_000  # longer than any document
    got, (request,) = await asked(fetch, lambda r: answer(body, 200, "Content-Type: Audio/X-Wav; q=1", 'ETag: "7"'))
    assert (got.status, got.content_type, got.body, got.headers["etag"]) == (200, "audio/x-wav", body, '"7"')
    assert request.method == "GET"
    assert not request.headers.keys() & {"x-twilio-signature", "if-none-match", "if-modified-since"}


async def test_asked_again(fetch) -> None:
    got, (request,) = await asked(fetch, lambda r: answer(b"", 304), '"7"', "Thu, 01 Jun 2017 20:48:32 GMT")
    assert (got.status, got.error_code) == (304, 0)
    assert request.headers["if-none-match"] == '"7"'
    assert request.headers["if-modified-since"] == "Thu, 01 Jun 2017 20:48:32 GMT"


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (lambda r: answer(b"gone", 404), 11200),
        (lambda r: answer(b"x" * 200_000, 200, "Content-Type: audio/wav"), 11750),
        (lambda r: b"", 11205),
    ],
)
async def test_what_fails(fetch, handler, code: int) -> None:
    got, _ = await asked(fetch, handler)
    assert got.error_code == code
    assert got.error
