"""Recordings whose end nobody heard, because the process that had to hear it was lost.

The recorder leaves a note beside a file that it made of an orphaned spool (trunkline.media.recorded); a file without a
note was told to a process that died before it kept it. Both are kept now. A recording of which nothing is there any
more has failed.

In a cluster only the recordings of calls that are this node's (`mine`) are looked after. What a lost host has recorded
is put together of the pieces that had left it (`assemble`; trunkline.voice.recording_takeover). One that goes on with
its call is none of these, though a host that was started anew finds its former part here.
"""

import asyncio
import logging
import shutil
import wave
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Final

from trunkline.media import recorded
from trunkline.media.protocol import Recorded
from trunkline.model.recording import Recording
from trunkline.storage.database import Database
from trunkline.storage.unavailable import StoreUnavailable
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
        self,
        recordings: Recordings,
        database: Database,
        spool: Path,
        running: Callable[[], Collection[str]],
        *,
        mine: Callable[[str], bool] = lambda call_sid: True,
        assemble: Callable[[Recording], Awaitable[Recorded | None]] | None = None,
    ) -> None:
        self._recordings = recordings
        self._database = database
        self._spool = spool
        self._running = running
        self._mine = mine
        self.assemble = assemble
        """Makes the audio of one whose host is lost; may be set later."""
        self._rows: list[Recording] = []
        self._looks = 0
        self._more = asyncio.Event()

    async def start(self) -> None:
        """Remember what is open now, and remove what was dealt with: what begins from here on is no business of ours.
        The media process has been heard."""
        rows = await open_rows(self._database)
        await asyncio.to_thread(self._sweep, {row.sid for row in rows})
        running = self._running()
        self._rows = [row for row in rows if row.sid not in running and self._mine(row.call_sid)]

    async def take(self, mine: Callable[[str], bool]) -> int:
        """Calls for which `mine` is true belong to this node since now, and those that go on have been taken over: look
        after the recordings of the others; how many."""
        known = {row.sid for row in self._rows}
        found = [
            row
            for row in await open_rows(self._database)
            if row.sid not in known and mine(row.call_sid) and self._recordings.running(row.sid) is None
        ]
        self._rows += found
        self._looks = 0
        self._more.set()
        return len(found)

    def _sweep(self, open_: Collection[str]) -> None:
        """Folders of recordings that were kept, or failed, just before a process was lost."""
        for folder in self._spool.glob("*/"):
            if folder.name not in open_ and not any(folder.glob(f"*{recorded.SUFFIX}")):
                shutil.rmtree(folder, ignore_errors=True)

    async def run(self) -> None:
        """Look now and then, while there is something to look for."""
        while True:
            if not self._rows or self._looks >= LOOKS:
                self._more.clear()
                await self._more.wait()
            await asyncio.sleep(LOOK_S)
            self._looks += 1
            try:
                await self.look(give_up=self._looks > FAILED_AFTER)
            except Exception:
                log.exception("lost recordings could not be looked for; it is tried again")

    async def look(self, *, give_up: bool = False) -> None:
        """Settle what can be settled. `give_up`: what is nowhere has failed."""
        noted = {one.recording: one for one in await asyncio.to_thread(recorded.recovered, self._spool)}
        left = []
        for row in self._rows:
            running = self._recordings.running(row.sid)
            if running is not None and running.carried:
                continue
            if self._recordings.may_go_on(row):
                left.append(row)
                continue
            found = noted.get(row.sid)
            if found is None:
                found = await self._settled(row, give_up=give_up)
            if found is not None:
                self._recordings.conclude(found)
            elif not self._ended(row):
                left.append(row)
        self._rows = left

    async def _settled(self, row: Recording, *, give_up: bool) -> Recorded | None:
        """What became of one that has left no note."""
        found = await asyncio.to_thread(self._found, row, give_up=False)
        spool = self._spool / row.sid / f"{row.sid}{recorded.SUFFIX}"
        if found is None and self.assemble is not None and not spool.exists():
            try:
                found = await self.assemble(row)
            except StoreUnavailable as error:
                log.error("%s waits for the object store: %s", row.sid, error)
                return None
        return found or await asyncio.to_thread(self._found, row, give_up=give_up)

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
