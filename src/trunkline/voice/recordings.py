"""Recordings: started on a live call, written by the media side, kept as a record and a WAV file.

The row is inserted when a recording starts, so that it is found while it runs. When the media side says that the audio
is complete (`Recorded`), the file goes into the blob store of recordings, the row becomes `completed` (`absent` when
there is nothing to hear, `failed` when it could not be kept), and the recording's callback is owed.

Sources: Twilio's Recording and Call Recording resources, recording status callback (webhook contract section 5).
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from trunkline.media import protocol
from trunkline.media.protocol import Recorded
from trunkline.model.clock import Clock
from trunkline.model.errors import ApiError
from trunkline.model.recording import Recording, RecordingStatus, Source
from trunkline.model.sid import RECORDING, derived_sid, new_sid
from trunkline.settings import Settings
from trunkline.storage.blobs import BlobsFull, BlobStore, BlobTooLarge
from trunkline.storage.database import Conflict, Database
from trunkline.storage.memory import MemoryStore
from trunkline.storage.queue import Owed, Queue
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice import callbacks, checkpoints
from trunkline.voice.held import Gate
from trunkline.voice.recording_pieces import RecordingPieces
from trunkline.voice.recording_running import Recordable, Running

NOT_ELIGIBLE = 21220
NOT_KEPT = 31000
"""Error code of a recording whose audio could not be kept (Twilio's "Generic error")."""
TOO_SHORT, SILENT = 16101, 16102
"""Error codes of recordings that are absent: there was no audio, or nothing to hear in it (Twilio's)."""
CURRENT = "Twilio.CURRENT"
"""Stands for the SID of the recording that runs on a call."""
MAX_RECORDINGS = 20
"""Recordings of one call that run at once."""
CHUNK = 1 << 20
"""Bytes of a file that are copied at once."""
OPEN = (
    RecordingStatus.IN_PROGRESS, RecordingStatus.PAUSED, RecordingStatus.STOPPED, RecordingStatus.PROCESSING,
)  # fmt: skip
"""Statuses of recordings whose audio is still to come."""
ENDED = (RecordingStatus.COMPLETED, RecordingStatus.ABSENT, RecordingStatus.FAILED, RecordingStatus.DELETED)
"""Statuses of recordings that nothing happens to any more."""
DELETED_DAYS = 40
"""Days for which a deleted recording is told of to who asks for deleted ones, as at Twilio."""
DAY_MS = 86_400_000
SWEEP_PAGE = 200
"""Records forgotten together."""
KEEP_TRIES = 5760
KEEP_RETRY_S = 15.0
"""How often, and after which wait, finished audio is put into its store again: for a day."""
STORE_TRIES = 300
STORE_RETRY_S = 1.0
"""How often, and after which wait, the end of a recording is stored again when the store is not there."""
OPEN_PAGE = 1000
"""Records read at once at the start."""
FORMS = ("wav", "mp3")
_RUNNING = (RecordingStatus.IN_PROGRESS, RecordingStatus.PAUSED)

T = TypeVar("T")
log = logging.getLogger(__name__)


def derived_name(sid: str, form: str, channels: int) -> str:
    """The blob that holds what was made of a recording: another form, or its channels mixed."""
    return derived_sid(RECORDING, sid, f"{form}-{channels}")


def derived_names(sid: str) -> list[str]:
    """The blobs that may have been made of a recording."""
    return [derived_name(sid, form, channels) for form in FORMS for channels in (1, 2)]


class NewRecording(msgspec.Struct, kw_only=True):
    """What is to be recorded, and who is told."""

    source: Source = Source.START_CALL_RECORDING_API
    channels: int = 1
    track: str = "both"
    """`both`, `inbound` or `outbound`."""
    trim: str = "do-not-trim"
    status_callback: str = ""
    status_callback_method: str = "POST"
    status_callback_events: tuple[str, ...] = ("completed",)
    max_ms: int = 0
    """0: the settings' longest."""
    silence_ms: int = 0
    finish_on: str = ""
    beep: bool = False


class Recordings:
    """See the module. `blobs` is the store of recordings alone; `spool` a folder that the writer process fills."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        queue: Queue,
        blobs: BlobStore,
        spool: Path,
        clock: Clock,
        base_url: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._database = database
        self._queue = queue
        self.blobs = blobs
        self._spool = spool
        self._clock = clock
        self._base_url = base_url
        self._running: dict[str, Running] = {}
        self.former: set[str] = set()
        """SIDs of those of calls that went to another node, until the media side has told of the end of our part: until
        then it begins nothing under the same name."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.owed: Callable[[Sequence[Owed]], None] = lambda owed: None
        """Told of callbacks right after the commit that owes them (the delivery's `push`)."""
        self.flight_of: Callable[[str], int] = lambda sid: 0
        """The id of a call's flight while the call lasts, so that what is told of it is kept with it; else 0."""
        self.pieces: RecordingPieces | None = None
        """What leaves this host of recordings while they run; None: nothing does."""
        self.assemble: Callable[[Recording], Awaitable[Recorded | None]] | None = None
        """Makes the audio of what has left a host (trunkline.voice.recording_takeover); None: nothing does."""
        self._closing = asyncio.Event()
        self.deciding: set[str] = set()
        """SIDs of those that are about to be gone on with, or not (trunkline.voice.recording_takeover)."""
        self.find_call: Callable[[str], Recordable | None] = lambda sid: None
        """The live call of a SID."""

        self.memory: MemoryStore | None = None
        """Where other nodes find the rows of what runs; None: there are none."""
        self.gate: Gate | None = None
        """Whether calls can only be this node's; None: always."""
        self.is_ours: Callable[[str], bool] = lambda call_sid: True
        """Whether a call, by its SID, is this node's: recordings of others' are no business of ours."""

    def url(self, recording: Recording) -> str:
        """The recording's address without extension, as webhooks name it."""
        base = self._base_url().rstrip("/")
        return f"{base}/2010-04-01/Accounts/{recording.account_sid}/Recordings/{recording.sid}"

    # -- start, pause, stop ----------------------------------------------------------------------------------

    def begin(self, call: Recordable, new: NewRecording) -> Running:
        """Start recording a leg, now. Raises ApiError 21220 when too many run."""
        if len(self.of_call(call.record.sid)) >= MAX_RECORDINGS:
            raise ApiError.of(NOT_ELIGIBLE, message="Requested resource is not eligible for recording")
        now = self._clock.now_ms()
        record = call.record
        row = Recording(
            sid=new_sid(RECORDING, now),
            account_sid=record.account_sid,
            created_ms=now,
            updated_ms=now,
            call_sid=record.sid,
            source=new.source,
            channels=new.channels,
            track=new.track,
            trim=new.trim,
            start_ms=now,
            status_callback=new.status_callback,
            status_callback_method=new.status_callback_method,
            status_callback_events=" ".join(new.status_callback_events),
        )
        running = self._running[row.sid] = Running(row, call)
        longest_ms = int(self._settings.voice.recording_max_s * 1000)
        call.audio.send(
            protocol.Record(
                recording=row.sid, leg=record.sid, folder=str(self.folder(row.sid)), channels=new.channels,
                tracks=new.track, max_ms=min(new.max_ms or longest_ms, longest_ms), silence_ms=new.silence_ms,
                finish_on=new.finish_on, trim=new.trim == "trim-silence", beep=new.beep,
            )
        )  # fmt: skip
        record.recordings.append(row.sid)
        call.note("recording", f"started {row.sid}", source=str(new.source), channels=new.channels)
        self._keep_row(row)
        self._spawn(self._insert(running))
        return running

    def carry_on(
        self, row: Recording, call: Recordable, command: protocol.Record, pause: str = "", *, stored: bool = True
    ) -> Running:
        """Go on recording a leg that another host has begun to record, under the same SID (`command`); a paused one
        stays paused, as `pause` says (`skip`, `silence`). Unless `stored`, the row is not the database's, which is to
        be asked before anything is written: `stored` of what is returned says when that is done."""
        running = self._adopt(row, stored=stored)
        running.call, running.carried = call, True
        call.audio.send(command)
        if row.status == RecordingStatus.PAUSED:
            running.send(protocol.PauseRecord(recording=row.sid, mode=pause or "skip"))
        call.note("recording", f"goes on {row.sid}", at_ms=command.offset_ms)
        return running

    async def start(self, account: str, call_sid: str, new: NewRecording) -> Recording:
        """Start recording by the API; the row when it is stored. Raises ApiError 21220 for a call that is not up."""
        call = self.find_call(call_sid)
        if call is None or call.record.account_sid != account or not call.is_up:
            raise ApiError.of(NOT_ELIGIBLE, message="Requested resource is not eligible for recording")
        running = self.begin(call, new)
        await asyncio.shield(running.stored)
        return running.row

    async def update(
        self, account: str, call_sid: str, sid: str, status: str, pause_behavior: str = "silence"
    ) -> Recording | None:
        """Pause, resume (`in-progress`) or stop a recording of a call; `sid` may be `Twilio.CURRENT`. None: there is
        none. Raises ApiError 21220 when it does not run any more."""
        running = self._current(call_sid) if sid == CURRENT else self._running.get(sid)
        if running is None or running.row.account_sid != account or running.row.call_sid != call_sid:
            if sid == CURRENT or await self.get(account, sid, call_sid) is None:
                return None
            raise ApiError.of(NOT_ELIGIBLE, message="Recording is not in progress")
        row = running.row
        if row.status not in _RUNNING:
            raise ApiError.of(NOT_ELIGIBLE, message="Recording is not in progress")
        if status == RecordingStatus.STOPPED:
            self.stop(running)
        elif status == RecordingStatus.PAUSED and row.status != status:
            mode = "skip" if pause_behavior == "skip" else "silence"
            running.send(protocol.PauseRecord(recording=row.sid, mode=mode))
            self._mark(running, RecordingStatus.PAUSED)
        elif status == RecordingStatus.IN_PROGRESS and row.status != status:
            running.send(protocol.ResumeRecord(recording=row.sid))
            self._mark(running, RecordingStatus.IN_PROGRESS)
        await asyncio.shield(running.stored)
        return row

    def stop(self, running: Running) -> None:
        """End a recording, if it still runs; what it has is kept."""
        if running.row.status in _RUNNING:
            running.send(protocol.StopRecord(recording=running.row.sid))
            self._mark(running, RecordingStatus.STOPPED)

    def of_call(self, call_sid: str) -> list[Running]:
        """The recordings of a call that are not finished, oldest first."""
        return [one for one in self._running.values() if one.row.call_sid == call_sid]

    def _current(self, call_sid: str) -> Running | None:
        return next((one for one in reversed(self.of_call(call_sid)) if one.row.status in _RUNNING), None)

    def _mark(self, running: Running, status: RecordingStatus) -> None:
        running.row.status = status
        running.row.updated_ms = self._clock.now_ms()
        running.note(f"{status} {running.row.sid}")
        self._keep_row(running.row)
        self._spawn(self._update(running))

    # -- read and delete -------------------------------------------------------------------------------------

    async def get(
        self, account: str, sid: str, call_sid: str = "", *, include_deleted: bool = False
    ) -> Recording | None:
        """A recording, running or finished; with `call_sid` only if it is of that call. None: there is none."""
        running = self._running.get(sid)
        found = running.row if running is not None else await self._database.get(Recording, sid)
        if found is None or found.account_sid != account or (call_sid and found.call_sid != call_sid):
            return None
        return found if include_deleted or not found.deleted_ms else None

    async def delete(self, recording: Recording) -> bool:
        """Remove the audio, and the record in DELETED_DAYS; until then it is only there for who asks for deleted ones.

        False: it is gone already. Raises ApiError 20009 while it is recorded.
        """
        if recording.sid in self._running:
            raise ApiError.of(20009)
        stored = await self._database.get(Recording, recording.sid)
        if stored is None or stored.deleted_ms:
            return False
        await self._remove_audio(stored.sid)
        stored.deleted_ms = stored.updated_ms = self._clock.now_ms()
        stored.status, stored.status_callback = RecordingStatus.DELETED, ""
        stored.audio_key, stored.audio_bytes = "", 0
        try:
            await self._database.update(stored)
        except Conflict:  # somebody else was faster
            return False
        return True

    async def _remove_audio(self, sid: str) -> None:
        for name in (sid, *derived_names(sid)):
            await self.blobs.delete(name)

    async def sweep(self) -> int:
        """Forget records that were deleted DELETED_DAYS ago, and recordings that are older than `voice.recording_days`
        with their audio; how many."""
        now = self._clock.now_ms()
        deleted = {"deleted_ms__gt": 0, "deleted_ms__lt": now - DELETED_DAYS * DAY_MS}
        wanted: list[dict[str, Any]] = [deleted]
        days = self._settings.voice.recording_days
        if days:
            wanted.append({"sid__lt": f"{RECORDING}{now - days * DAY_MS:012x}", "status__in": list(ENDED)})
        swept = 0
        for where in wanted:
            while rows := await self._database.find(Recording, where, limit=SWEEP_PAGE):
                for row in rows:
                    await self._remove_audio(row.sid)
                await self._database.delete(*rows)
                swept += len(rows)
        if self.pieces is not None:
            swept += await self.pieces.sweep(now / 1000, self._still_open)
        return swept

    async def _still_open(self, sids: Iterable[str]) -> set[str]:
        """Which of these recordings may still need their pieces."""
        rows = [await self._database.get(Recording, sid) for sid in sids]
        return {row.sid for row in rows if row is not None and row.status in OPEN}

    # -- the end of one --------------------------------------------------------------------------------------

    def event(self, event: protocol.Event) -> bool:
        """An event of a leg; True when it was about a recording. The end of what was recorded before its call went to
        another node is not the recording's: that goes on there, or here when the call comes back."""
        if not isinstance(event, Recorded):
            return False
        if event.recording in self.former:
            self.former.discard(event.recording)
        else:
            self.conclude(event)
        return True

    def conclude(self, event: Recorded) -> None:
        """The audio of a recording is complete, or there is none. Next: Recordings._finish"""
        running = self._running.get(event.recording)
        if running is None:
            self._spawn(self._late(event))
        else:
            self._ended(running, event)

    def _ended(self, running: Running, event: Recorded) -> None:
        if not running.done.done():
            running.done.set_result(event)
            self._spawn(self._finish(running, event))

    async def _late(self, event: Recorded) -> None:
        """Audio of a recording that a process before this one began, or that is finished: told again."""
        row = await self._database.get(Recording, event.recording)
        if row is None or not self.is_ours(row.call_sid):
            return
        if row.status in OPEN and row.sid not in self._running:
            self._ended(self._adopt(row), event)

    def _adopt(self, row: Recording, *, stored: bool = True) -> Running:
        running = self._running[row.sid] = Running(row, self.find_call(row.call_sid))
        if stored:
            running.stored.set_result(None)
        return running

    def _keep_row(self, row: Recording) -> None:
        if self.memory is not None:
            checkpoints.save_recording(self.memory, row)

    async def recover(self) -> int:
        """Take up recordings of calls that a process before this one left to us; how many. Those of calls that are
        gone wait for the media side to tell of them (`event`)."""
        found = 0
        for row in await open_rows(self._database):
            if row.sid not in self._running and self.find_call(row.call_sid) is not None:
                self._adopt(row)
                found += 1
        return found

    def may_go_on(self, row: Recording) -> bool:
        """Whether its call has been taken over, and it is not known yet whether it goes on."""
        call = self.find_call(row.call_sid)
        return row.sid in self.deciding or (call is not None and not call.reached)

    def running(self, sid: str) -> Running | None:
        """A recording that is not finished."""
        return self._running.get(sid)

    async def open_of(self, call_sids: Collection[str]) -> list[Recording]:
        """The recordings of calls whose audio is still to come, whoever began them."""
        where = {"call_sid__in": list(call_sids), "status__in": list(OPEN)}
        return await self._database.find(Recording, where, limit=OPEN_PAGE) if call_sids else []

    def abandon(self, call_sid: str) -> None:
        """Another node has the call, and goes on with its recordings."""
        for running in self.of_call(call_sid):
            self.drop(running)
            if self.pieces is not None and not running.done.done():  # without pieces, what we have is all there will be
                self.former.add(running.row.sid)

    def drop(self, running: Running) -> None:
        """It is not ours, or had ended: nothing of it is written."""
        self._running.pop(running.row.sid, None)

    def lost(self, call_sid: str) -> None:
        """The media side has lost a leg with what it recorded."""
        for running in self.of_call(call_sid):
            self._ended(running, Recorded(recording=running.row.sid, leg=call_sid, why="failed"))

    async def _finish(self, running: Running, event: Recorded) -> None:
        await asyncio.shield(running.stored)
        row = running.row
        if event.why == "failed" and running.carried:
            event = await self._of_pieces(running) or event
        if not await self._is_still_ours(running):
            return
        if self.memory is not None:
            checkpoints.drop_recording(self.memory, row)
        row.updated_ms = self._clock.now_ms()
        row.duration_ms, row.gaps = event.duration_ms, event.gaps
        if event.why == "failed":
            row.status, row.error_code = RecordingStatus.FAILED, NOT_KEPT
        elif not event.file or event.duration_ms <= 0 or (row.source == Source.RECORD_VERB and not event.voiced_ms):
            short = not event.file or event.duration_ms <= 0
            row.status, row.duration_ms = RecordingStatus.ABSENT, 0
            row.error_code = TOO_SHORT if short else SILENT
        else:
            await self._keep(row, Path(event.file))
        await self._settle(running)

    async def _is_still_ours(self, running: Running) -> bool:
        """Wait while the fence is closed: another node may be recording it by now."""
        while self.gate is not None and not self.gate.open:
            if self._closing.is_set():
                return False
            await asyncio.sleep(STORE_RETRY_S)
        return self._running.get(running.row.sid) is running

    async def _keep(self, row: Recording, file: Path) -> None:
        """Move the audio into the blob store; while that cannot be reached, again and again. Raises StoreUnavailable:
        the file stays in the spool, for the next process (trunkline.voice.lost_recordings)."""
        try:
            row.audio_bytes = await self._put(row.sid, file)
        except (BlobTooLarge, BlobsFull, OSError) as error:
            log.error("recording %s was not kept: %s", row.sid, str(error) or type(error).__name__)
            row.status, row.error_code = RecordingStatus.FAILED, NOT_KEPT
        else:
            row.status, row.audio_key = RecordingStatus.COMPLETED, row.sid

    async def _put(self, sid: str, file: Path) -> int:
        async def put() -> int:
            async with aclosing(_chunks(file)) as chunks:
                return await self.blobs.put(sid, chunks)

        return await self._patiently(sid, put)

    async def _of_pieces(self, running: Running) -> Recorded | None:
        """One that a lost host has begun could not go on here: what had left a host of it is the recording. None: there
        is nothing, or it is another node's by now. Raises StoreUnavailable: its pieces stay, for the next process."""

        async def made() -> Recorded | None:
            if self.assemble is None or self._running.get(running.row.sid) is not running:
                return None
            try:
                return await self.assemble(running.row)
            except OSError as error:  # a full disk, say
                raise StoreUnavailable(str(error)) from error

        return await self._patiently(running.row.sid, made)

    async def _patiently(self, sid: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, again and again while a store is away. Raises StoreUnavailable after a day, or at the end."""
        for left in range(KEEP_TRIES, 0, -1):
            try:
                return await work()
            except StoreUnavailable as error:
                if left == 1 or self._closing.is_set():
                    raise
                if left == KEEP_TRIES:
                    log.error("recording %s waits for its store: %s", sid, error)
            try:
                await asyncio.wait_for(self._closing.wait(), KEEP_RETRY_S)
            except TimeoutError:
                continue
        raise AssertionError("unreachable")

    async def _settle(self, running: Running) -> None:
        """Store the outcome, owe its callback, then clear the spool. What cannot be stored stays in the spool, for the
        next process (trunkline.voice.lost_recordings)."""
        row = running.row
        owed = callbacks.recording_event(row, str(row.status), self.url(row))
        try:
            await self._insist(lambda: self._store(running))
            await self._insist(lambda: self._owe(row, owed))
        finally:
            missing_ms = sum(length for _, length in row.gaps)
            running.note(f"{row.status} {row.sid}", ms=row.duration_ms, gaps=len(row.gaps), missing_ms=missing_ms)
            self._running.pop(row.sid, None)
            if not running.finished.done():
                running.finished.set_result(None)
        await asyncio.to_thread(shutil.rmtree, self.folder(row.sid), True)
        if self.pieces is not None:
            try:
                await self.pieces.forget(row.sid)
            except StoreUnavailable as error:
                log.warning("pieces of %s stay until they are swept: %s", row.sid, error)

    async def _store(self, running: Running) -> None:
        async with running.lock:
            try:
                await self._database.update(running.row)
            except Conflict:  # it could not be inserted when it began
                await self._database.put(running.row)

    async def _insist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write something, again and again where the store is not there (a full disk). Raises StoreUnavailable."""
        for left in range(STORE_TRIES, 0, -1):
            try:
                await write()
            except StoreUnavailable:
                if left == 1:
                    raise
                await asyncio.sleep(STORE_RETRY_S)
            else:
                return

    # -- storing ---------------------------------------------------------------------------------------------

    async def _insert(self, running: Running) -> None:
        try:
            await self._database.insert(running.row)
            await self._owe(running.row, callbacks.recording_event(running.row, "in-progress", self.url(running.row)))
        finally:
            if not running.stored.done():
                running.stored.set_result(None)

    async def _owe(self, row: Recording, owed: list[Owed]) -> None:
        if not owed:
            return
        flight = self.flight_of(row.call_sid)
        for one in owed:
            one.flight = flight
        await self._queue.owe(owed)
        self.owed(owed)

    async def _update(self, running: Running) -> None:
        await asyncio.shield(running.stored)
        async with running.lock:
            await self._database.update(running.row)

    def folder(self, sid: str) -> Path:
        """Where the writer process puts the segments of one recording."""
        return self._spool / sid

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a recording was not stored", exc_info=task.exception())

    async def close(self) -> None:
        """Wait until what was said is stored; what waits for its store stays in the spool."""
        self._closing.set()
        while self._tasks:
            await asyncio.wait(set(self._tasks))


async def open_rows(database: Database) -> list[Recording]:
    """Every recording whose audio is still to come."""
    found: list[Recording] = []
    after = ""
    while page := await database.find(Recording, {"status__in": list(OPEN)}, after=after, limit=OPEN_PAGE):
        found += page
        after = page[-1].sid
    return found


async def _chunks(file: Path) -> AsyncGenerator[bytes, None]:
    """A file's content, read off the event loop."""
    handle = await asyncio.to_thread(file.open, "rb")
    try:
        while chunk := await asyncio.to_thread(handle.read, CHUNK):
            yield chunk
    finally:
        await asyncio.to_thread(handle.close)
