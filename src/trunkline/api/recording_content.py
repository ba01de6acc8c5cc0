"""The audio of recordings: `Recordings/RE...`, `.wav` and `.mp3`, whole or in ranges.

The WAV file is kept as it was recorded. What else is asked for (MP3, or two channels mixed into one) is made once, by
the audio worker, and kept beside it under a SID of its own; requests for the same thing wait for one conversion.
Without `RequestedChannels` a file has the channels that were asked of the recording, as at Twilio.

Sources: Twilio's Recording resource ("fetch a recording's media file"), RFC 9110 section 14 (ranges).
"""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from trunkline.api import respond
from trunkline.api.request import Request
from trunkline.api.respond import Headers, Response, Streamed
from trunkline.api.services import AudioFiles, Services
from trunkline.model.errors import ApiError
from trunkline.model.recording import Recording, RecordingStatus
from trunkline.storage.blobs import BlobsFull, BlobStore, BlobTooLarge
from trunkline.voice.recordings import derived_name

WAV: Final = "wav"
MP3: Final = "mp3"
TYPES: Final = {WAV: "audio/x-wav", MP3: "audio/mpeg"}
MAX_CONVERSIONS: Final = 2
"""Conversions at once; others wait."""
CHUNK_BYTES: Final = 1 << 20

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)
_METADATA = (".json", ".xml", ".csv")


def is_media(path: str) -> bool:
    """Whether a path asks for the audio and not for the resource."""
    return not path.endswith(_METADATA)


class Conversions:
    """Makes what is asked for, each thing once at a time. One for each store of recordings: see `conversions_of`."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(MAX_CONVERSIONS)

    async def make(self, blobs: BlobStore, audio: AudioFiles, recording: Recording, form: str, channels: int) -> str:
        """The name of the blob that holds it, made if need be. Raises ApiError 20503 when it could not be made."""
        name = derived_name(recording.sid, form, channels)
        if await blobs.size(name) is not None:
            return name
        task = self._under_way.get(name)
        if task is None:
            work = self._convert(blobs, audio, recording.audio_key, name, form, channels)
            task = self._under_way[name] = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(lambda done: self._under_way.pop(name, None))
        try:
            await asyncio.shield(task)
        except (OSError, BlobTooLarge, BlobsFull):
            raise ApiError.of(20503, headers=(("Retry-After", "5"),)) from None
        return name

    async def _convert(
        self, blobs: BlobStore, audio: AudioFiles, source: str, name: str, form: str, channels: int
    ) -> None:
        async with self._slots:
            with tempfile.TemporaryDirectory(prefix="trunkline-audio-") as folder:
                wav, made = Path(folder) / "source.wav", Path(folder) / f"made.{form}"
                await _write(wav, blobs.stream(source))
                await audio.convert(wav, made, form=form, channels=channels)
                await blobs.put(name, _read(made))


async def _write(file: Path, chunks: AsyncIterator[bytes]) -> None:
    handle = await asyncio.to_thread(file.open, "wb")
    try:
        async for chunk in chunks:
            await asyncio.to_thread(handle.write, chunk)
    finally:
        handle.close()


async def _read(file: Path) -> AsyncIterator[bytes]:
    handle = await asyncio.to_thread(file.open, "rb")
    try:
        while chunk := await asyncio.to_thread(handle.read, CHUNK_BYTES):
            yield chunk
    finally:
        handle.close()


_conversions: Final = Conversions()


async def answer(request: Request, app: Services, blobs: BlobStore, recording: Recording, form: str) -> Response:
    """The audio, or the part of it that `Range` asks for. Raises 20404 while there is none, 20422, 416, 501."""
    if recording.status != RecordingStatus.COMPLETED or not recording.audio_key:
        raise ApiError.not_found(request.path)
    channels = request.int("RequestedChannels", 1, 2) or recording.channels
    if channels > recording.channels:
        raise ApiError.invalid("RequestedChannels", "the recording has one channel")
    name = recording.audio_key
    if form != WAV or channels != recording.channels:
        if app.audio is None:
            raise ApiError(
                501, None, f"This server has no audio worker: ask for .wav with {recording.channels} channels"
            )
        name = await _conversions.make(blobs, app.audio, recording, form, channels)
    size = await blobs.size(name)
    if size is None:
        raise ApiError.not_found(request.path)
    return _part(request, blobs, name, size, _headers(recording, form, name))


def _headers(recording: Recording, form: str, name: str) -> Headers:
    return (
        respond.header("Content-Type", TYPES[form]),
        respond.header("Content-Disposition", f'inline; filename="{recording.sid}.{form}"'),
        respond.header("X-Content-Type-Options", "nosniff"),
        respond.header("Accept-Ranges", "bytes"),
        respond.header("ETag", f'"{name}"'),
        respond.header("Cache-Control", "private, max-age=3600"),
    )


def _part(request: Request, blobs: BlobStore, name: str, size: int, headers: Headers) -> Response:
    """200 with everything, 206 with one range. Several ranges, or a `Range` that is none, mean everything."""
    match = _RANGE.fullmatch((request.header("Range") or "").replace(" ", ""))
    condition = request.header("If-Range")
    if match is None or not (match[1] or match[2]) or (condition is not None and condition != f'"{name}"'):
        return Streamed(200, blobs.stream(name), size, headers)
    if match[1]:
        start, end = int(match[1]), min(int(match[2] or size - 1), size - 1)
    else:  # the last bytes
        start, end = max(size - int(match[2]), 0), size - 1
    if start >= size or start > end:
        raise ApiError(
            416, None, "The range asked for lies outside the file", headers=(("Content-Range", f"bytes */{size}"),)
        )
    length = end - start + 1
    headers = (*headers, respond.header("Content-Range", f"bytes {start}-{end}/{size}"))
    return Streamed(206, blobs.stream(name, start, length), length, headers)
