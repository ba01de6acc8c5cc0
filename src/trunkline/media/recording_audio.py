"""The node's side of what is made of recordings: a worker of their own, so that long ones hold up no prompt.

It is started by the first request and kept; what it is asked to do is in trunkline.media.recording_file.
"""

from pathlib import Path
from typing import Final

from trunkline.media.worker_client import AUDIO_IDLE_S, WorkerFailed, Workers
from trunkline.media.worker_wire import AUDIO, Setup

MEMORY_BYTES: Final = 1 << 30
"""Address space of the worker."""
TIMEOUT_S: Final = 600.0
"""Longest conversion; four hours of audio take less than two minutes."""


class RecordingAudio:
    """What the API needs (`trunkline.api.services.AudioFiles`)."""

    def __init__(self) -> None:
        self._workers = Workers(Setup(role=AUDIO, memory_bytes=MEMORY_BYTES), timeout_s=TIMEOUT_S, idle_s=AUDIO_IDLE_S)

    async def convert(self, source: Path, target: Path, *, form: str, channels: int) -> None:
        """Write the WAV file `source` to `target` as `wav` or `mp3` with 1 or 2 channels. Raises OSError."""
        try:
            await self._workers.call("convert", source=str(source), target=str(target), form=form, channels=channels)
        except WorkerFailed as error:
            raise OSError(str(error)) from None

    async def close(self) -> None:
        """End the worker."""
        await self._workers.close()
