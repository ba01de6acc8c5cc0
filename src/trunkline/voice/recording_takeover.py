"""Recordings of a lost host: gone on with where their call goes on, put together where it has ended.

What is there of them are the pieces that had left the host (trunkline.voice.recording_pieces). A recording that goes on
keeps its SID; our part begins where it would be by now had nobody been lost, so that its length is right, and what lies
between is silence, listed as a gap. The recorder joins both parts at the end.

Where the call has ended before its recording could go on, or the media process cannot record it (it has no such leg any
more, or no room), the recording is what had left: no piece of it is removed before that is kept.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec

from trunkline.media import protocol, recorded
from trunkline.media.protocol import Recorded
from trunkline.model.clock import Clock
from trunkline.model.recording import Recording, RecordingStatus
from trunkline.storage.database import Database
from trunkline.storage.objects import AsyncObjects
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice.recording_pieces import Known, RecordingPieces, RecordingUploads
from trunkline.voice.recording_running import Recordable, Running
from trunkline.voice.recordings import OPEN, Recordings

FINISH_S: Final = 900.0
"""Longest making of a WAV file."""
CATCH_UP_S: Final = 0.5
"""Between two tries to read a row while the database is away."""
OWN_S: Final = 20.0
OWN_LOOK_S: Final = 0.05
"""Longest wait for our recorder to be done with what this host had recorded before, and between two looks."""
LEAST_MS: Final = 1000
"""A recording that has less than that left of its longest time is ended."""
_GOES_ON: Final = (RecordingStatus.IN_PROGRESS, RecordingStatus.PAUSED)

log = logging.getLogger(__name__)


class SharedRecordings:
    """All that recordings of a node do with the object store: their pieces leave while they run (`origin`: the node's
    name), and those of lost hosts are gone on with (`takeover`, for trunkline.voice.takeover) or put together
    (`takeover.assemble`, for trunkline.voice.lost_recordings). `start` and `stop` with the node."""

    def __init__(
        self,
        objects: AsyncObjects,
        recordings: Recordings,
        database: Database,
        clock: Clock,
        spool: Path,
        origin: str,
        longest_ms: int,
    ) -> None:
        self._objects = objects
        recordings.pieces = RecordingPieces(objects)
        self.takeover = RecordingTakeover(recordings, recordings.pieces, database, clock, longest_ms)
        recordings.assemble = self.takeover.assemble
        self.uploads = RecordingUploads(objects.objects, spool, origin)

    def start(self) -> None:
        """Begin to upload what runs."""
        self.uploads.start()

    async def stop(self) -> None:
        """End; what runs stays in its spool, and goes on leaving the host after the next start."""
        await asyncio.to_thread(self.uploads.stop)
        await self.takeover.close()
        self._objects.close()


class RecordingTakeover:
    """See the module. `longest_ms`: of a recording of which nothing says how long it may become."""

    def __init__(
        self, recordings: Recordings, pieces: RecordingPieces, database: Database, clock: Clock, longest_ms: int
    ) -> None:
        self._recordings = recordings
        self._pieces = pieces
        self._database = database
        self._clock = clock
        self._longest_ms = longest_ms
        self._asked: dict[str, Recordable] = {}
        """Of each recording that may go on, while that is being decided: the call that it is of."""
        self._tasks: set[asyncio.Task[Any]] = set()

    async def continue_recording(
        self, call: Recordable, sid: str, lost_ms: int, known_row: Recording | None = None
    ) -> bool:
        """Go on recording a call that was taken over, with a gap from `lost_ms` (its host was last seen) to now. False:
        there is nothing to go on with, or it had ended; then it is kept as far as it had come. `known_row`: what the
        lost host kept of it in the `MemoryStore`: the database is asked later."""
        # The call had come back before: what is being decided since then will have no effect.
        while (asked := self._asked.get(sid)) is not None and asked.abandoned:  # noqa: ASYNC110 - few ever wait
            await asyncio.sleep(OWN_LOOK_S)
        deciding = self._recordings.deciding
        if sid in deciding:
            return False
        deciding.add(sid)
        self._asked[sid] = call
        try:
            return await self._continue(call, sid, lost_ms, known_row)
        finally:
            deciding.discard(sid)
            del self._asked[sid]

    async def _continue(self, call: Recordable, sid: str, lost_ms: int, known_row: Recording | None) -> bool:
        row = known_row or await self._database.get(Recording, sid)
        if row is None or row.status not in OPEN or self._recordings.running(sid) is not None:
            return False
        try:
            known = await self._pieces.known(sid)
        except StoreUnavailable as error:
            log.error("what is recorded of %s cannot be read now: %s", sid, error)
            known = None
        if not await self._own_part(call, sid, known):
            return False
        now = self._clock.now_ms()
        offset_ms = _offset_ms(row, known, now)
        command = self._command(row, call, known, offset_ms)
        ended = row.status not in _GOES_ON or (known is not None and known.stopped)
        ended = ended or not call.is_up  # its peer may have hung up meanwhile: there is no leg to be recorded
        if ended or command.max_ms < LEAST_MS:
            self._spawn(self._end(row))
            return False
        self._pieces.expect_earlier(sid, self._recordings.folder(sid))
        paused = known.paused if known is not None else ""
        running = self._recordings.carry_on(row, call, command, paused, stored=known_row is None)
        if known_row is not None:
            self._spawn(self._catch_up(running))
        self._spawn(self._pieces.gather_earlier(sid, self._recordings.folder(sid)))
        log.info("%s goes on at %d ms; its host was lost %d ms ago", sid, offset_ms, now - lost_ms)
        return True

    async def _catch_up(self, running: Running) -> None:
        """Know of a row what the database knows, before anything of it is written. One that had ended there is let
        go of."""
        row = running.row
        while self._recordings.running(row.sid) is running:
            try:
                found = await self._database.get(Recording, row.sid)
                if found is None:
                    await self._database.insert(row)
            except StoreUnavailable:
                await asyncio.sleep(CATCH_UP_S)
                continue
            if found is not None and found.status not in OPEN:
                running.send(protocol.StopRecord(recording=row.sid))
                self._recordings.drop(running)
            elif found is not None:
                row.rev = found.rev
            break
        if not running.stored.done():
            running.stored.set_result(None)

    async def _own_part(self, call: Recordable, sid: str, known: Known | None) -> bool:
        """Where the lost host is this one, started anew or given the call back, its recorder has made a file of what it
        had here: that goes, for the object store has it but for its last seconds. False: it is all that there is, or is
        not made yet, and is kept as what was recorded (trunkline.voice.lost_recordings); or another host has the call
        by now.

        The file's end is told before its spool goes, and comes here before or after that. Once we have gone on it would
        be taken for the end of our part."""
        former, folder = self._recordings.former, self._recordings.folder(sid)
        spool, until = folder / f"{sid}{recorded.SUFFIX}", time.monotonic() + OWN_S
        while sid in former or spool.exists():
            if call.abandoned or time.monotonic() >= until:
                break
            await asyncio.sleep(OWN_LOOK_S)
        if call.abandoned:
            return False
        left = [one for one in (spool, folder / f"{sid}.wav", folder / recorded.NOTE) if one.exists()]
        if sid in former or (left and (known is None or spool in left)):
            former.discard(sid)  # its end is the recording's
            log.warning("%s does not go on: nobody else has what was recorded here, or it is not finished", sid)
            return False
        for one in left:
            one.unlink(missing_ok=True)
        return True

    def _command(self, row: Recording, call: Recordable, known: Known | None, offset_ms: int) -> protocol.Record:
        """What the media process is told: as the lost host was, as far as is known."""
        if known is not None:
            was = msgspec.convert(known.description, protocol.Record, strict=False)
            most = (was.offset_ms + was.max_ms) if was.max_ms else self._longest_ms
        else:
            was = protocol.Record(
                recording=row.sid, leg="", folder="", channels=row.channels, tracks=row.track,
                trim=row.trim == "trim-silence",
            )  # fmt: skip
            most = self._longest_ms
        return msgspec.structs.replace(
            was, recording=row.sid, leg=call.record.sid, folder=str(self._recordings.folder(row.sid)), beep=False,
            offset_ms=offset_ms, max_ms=most - offset_ms,
        )  # fmt: skip

    async def _end(self, row: Recording) -> None:
        """Keep what there is; what cannot be read now, trunkline.voice.lost_recordings asks for again."""
        self._recordings.deciding.add(row.sid)  # nobody else makes the same file meanwhile
        try:
            found = await self.assemble(row)
        finally:
            self._recordings.deciding.discard(row.sid)
        self._recordings.conclude(found or Recorded(recording=row.sid, leg=row.call_sid, why="failed"))

    async def assemble(self, row: Recording) -> Recorded | None:
        """Make the audio file of what had left the lost host; None: nothing had. Its event is the caller's to tell.
        Raises StoreUnavailable."""
        folder = self._recordings.folder(row.sid)
        spool = await self._pieces.rebuild(row.sid, folder)
        if spool is None:
            return None
        await _finish(spool)
        for one in await asyncio.to_thread(recorded.recovered, folder.parent):
            if one.recording == row.sid:
                return one
        return None

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a lost host's recording was not put together", exc_info=task.exception())

    async def close(self) -> None:
        """End; what was not put together is, after the next start."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _offset_ms(row: Recording, known: Known | None, now_ms: int) -> int:
    """Where in the recording it is now. While it is paused with nothing written, its time stands still."""
    if known is None:
        return max(0, now_ms - row.start_ms)
    if known.paused == "skip":
        return known.offset_ms
    return known.offset_ms + max(0, now_ms - known.end_ms)


async def _finish(spool: Path) -> None:
    """Have a process with NumPy make the file and leave a note beside it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trunkline.media.recorder", "--finish", str(spool), stdin=asyncio.subprocess.DEVNULL
    )
    try:
        await asyncio.wait_for(process.wait(), FINISH_S)
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
