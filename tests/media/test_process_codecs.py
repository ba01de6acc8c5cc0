"""A media process on real sockets with FFmpeg as the far end: G.722 and Opus, both ways."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.media.helpers import Leg, config, end_process, start_process
from tests.media.sounds import at_16k, ffmpeg_decoded, ffmpeg_encoded, likeness, voice
from tests.media.test_process_srtp import SecureLeg
from trunkline.media import native, protocol
from trunkline.media.client import MediaClient

FORMS: dict[str, dict[str, Any]] = {
    "G722": {"codec": "G722", "send_payload_type": 9, "payload_types": {9: "G722", 101: "telephone-event"}},
    "opus": {
        "codec": "opus", "send_payload_type": 111, "dtmf_payload_type": 102,
        "payload_types": {111: "opus", 102: "telephone-event/48000"},
    },
}  # fmt: skip
STEP = {"G722": 160, "opus": 960}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[MediaClient]:
    native.load()  # built before the process is waited for
    settings = config(tmp_path)
    process = start_process(settings)
    client = MediaClient()
    try:
        assert await client.start(settings.control)
        yield client
        await client.close()
    finally:
        end_process(process)


def encoded(pcm: np.ndarray, codec: str) -> list[bytes]:
    if codec == "G722":
        return ffmpeg_encoded(at_16k(pcm), "g722", rate=16_000, frame=320)
    return ffmpeg_encoded(pcm, "libopus", rate=8000, frame=160, application="voip", b="24000")


def decoded(payloads: list[bytes], codec: str) -> np.ndarray:
    name, rate = {"G722": ("g722", 16_000), "opus": ("opus", 48_000)}[codec]
    return ffmpeg_decoded(payloads, name, rate=rate)


@pytest.mark.parametrize("kind", [Leg, SecureLeg])
@pytest.mark.parametrize(("one", "other"), [("G722", "opus"), ("opus", "G722")])
async def test_what_ffmpeg_says_in_one_codec_it_hears_in_the_other(
    client: MediaClient, one: str, other: str, kind: type[Leg]
) -> None:
    said = voice(2.0)
    a, b = kind(client, "CA1", **FORMS[one]), kind(client, "CA2", **FORMS[other])
    client.send(protocol.Bridge(a="CA1", b="CA2"))
    number, heard = FORMS[one]["send_payload_type"], []
    begin = asyncio.get_running_loop().time()
    for n, payload in enumerate([*encoded(said, one), *[b""] * 20]):
        if payload:
            a.send(number, payload)
        a.timestamp += STEP[one]
        await asyncio.sleep(max(0.0, begin + (n + 1) * 0.02 - asyncio.get_running_loop().time()))
        heard += b.received()
    assert {packet.payload_type for packet in heard} == {FORMS[other]["send_payload_type"]}
    # Half seconds of it, so that a frame that the busy machine dropped or repeated does no harm.
    audio = decoded([packet.payload for packet in heard], other)
    pieces = [said[at : at + 4000] for at in range(0, len(said) - 3999, 4000)]
    likes = [likeness(audio, piece, most_lag=len(audio) - 4000)[0] for piece in pieces]
    assert np.median(likes) > 0.88, likes
    a.close()
    b.close()
