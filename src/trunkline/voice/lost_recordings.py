"""Recordings whose end nobody heard, because the process that had to hear it was lost.

The recorder leaves a note beside a file that it made of an orphaned spool (trunkline.media.recorded); a file without a
note was told to a process that died before it kept it. Both are kept now. A recording of which nothing is there any
more has failed.
"""

import asyncio
import logging
import shutil
import wave
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from trunkline.media import recorded
from trunkline.media.protocol import Recorded
from trunkline.model.recording import Recording
from trunkline.storage.database import Database
from trunkline.voice.recordings import Recordings, open_rows

LOOK_S: Final = 2.0
"""Between two looks."""
LOOKS: Final = 450
"""Looks after a start: a quarter of an hour, in which the recorder finishes the longest spools."""
FAILED_AFTER: Final = 15
"""Looks after which a recording has failed of which there is neither file nor spool."""

log = logging.getLogger(__name__)


class LostRecordings:
    """See the module. `running`: the SIDs of recordings that the media process has."""

    def __init__(
        self, recordings: Recordings, database: Database, spool: Path, running: Callable[[], Collection[str]]
    ) -> None:
        self._recordings = recordings
        self._database = database
        self._spool = spool
        self._running = running
        self._rows: list[Recording] = []

    async def start(self) -> None:
        """Remember what is open now, and remove what was dealt with: what begins from here on is no business of ours.
        The media process has been heard."""
        rows = await open_rows(self._database)
        await asyncio.to_thread(self._sweep, {row.sid for row in rows})
        running = self._running()
        self._rows = [row for row in rows if row.sid not in running]

    def _sweep(self, open_: Collection[str]) -> None:
        """Folders of recordings that were kept, or failed, just before a process was lost."""
        for folder in self._spool.glob("*/"):
            if folder.name not in open_ and not any(folder.glob(f"*{recorded.SUFFIX}")):
                shutil.rmtree(folder, ignore_errors=True)

    async def run(self) -> None:
        """Look now and then, until there is nothing more to look for."""
        for looks in range(LOOKS):
            if not self._rows:
                return
            await asyncio.sleep(LOOK_S)
            try:
                await self.look(give_up=looks >= FAILED_AFTER)
            except Exception:
                log.exception("lost recordings could not be looked for; it is tried again")

    async def look(self, *, give_up: bool = False) -> None:
        """Settle what can be settled. `give_up`: what is nowhere has failed."""
        noted = {one.recording: one for one in await asyncio.to_thread(recorded.recovered, self._spool)}
        left = []
        for row in self._rows:
            found = noted.get(row.sid)
            if found is None:
                found = await asyncio.to_thread(self._found, row, give_up=give_up)
            if found is not None:
                self._recordings.event(found)
            elif not self._ended(row):
                left.append(row)
        self._rows = left

    def _ended(self, row: Recording) -> bool:
        now = self._recordings.running(row.sid)
        return now is not None and now.done.done()

    def _found(self, row: Recording, *, give_up: bool) -> Recorded | None:
        folder = self._spool / row.sid
        file = folder / f"{row.sid}.wav"
        if (folder / f"{row.sid}{recorded.SUFFIX}").exists():
            return None  # the recorder is still at it
        if not file.exists():
            gone = Recorded(recording=row.sid, leg=row.call_sid, why="failed")
            return gone if give_up else None
        try:
            with wave.open(str(file)) as audio:
                ms = audio.getnframes() * 1000 // audio.getframerate()
        except (OSError, EOFError, wave.Error) as error:
            log.error("%s cannot be read: %s", file, error)
            return Recorded(recording=row.sid, leg=row.call_sid, why="failed")
        return Recorded(recording=row.sid, leg=row.call_sid, why="closed", duration_ms=ms, file=str(file), voiced_ms=ms)
