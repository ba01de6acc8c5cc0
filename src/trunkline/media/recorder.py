"""The recorder: a process that takes recorded audio out of the record ring and makes files of it.

    python -m trunkline.media.recorder --ring FD_OR_NAME --folder SPOOLS

It drains the ring (trunkline.media.engine.record_ring) every GATHER_S into one spool a recording, in the folder that
the recording names, and gives the ring's room back. At a recording's STOP the WAV file is made in a thread, so that a
long one holds up nothing, and the result goes into the ring's table, where the media process finds it: nothing else is
said between the two. The tick never waits: when this process stands still, the ring holds some seconds, and what it
cannot hold becomes a gap, listed.

Started anew it goes on with the spools of the recordings that the ring says are running; a spool that belongs to none
(the machine went down, or the ring is gone) is finished to its last whole frame and noted (trunkline.media.recorded).
"""

import argparse
import os
import resource
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from trunkline.inherited import descriptors
from trunkline.media import recorded
from trunkline.media.engine.record_ring import ACTIVE, AUDIO, STOP, RecordRing, RingMismatch
from trunkline.media.protocol import Record, Recorded
from trunkline.media.recording_spool import Entries, Outcome, Spool, finish, read

POLL_S: Final = 0.04
"""Rest between two looks at the ring."""
GATHER_S: Final = 0.5
"""Longest time for which audio is left in the ring, so that many frames go into a spool at once; a control (a STOP: a
caller waits) is dealt with at the next look."""
BATCH: Final = 32_768
"""Entries taken at once: 21 MB."""
EARLIER_S: Final = 60.0
"""Longest wait, at the end of a recording that another host has begun, for what was recorded there."""
FINISHING: Final = 2
"""WAV files made at the same time."""
RING_WAIT_S: Final = 0.05
"""Rest between two looks whether the media process has laid out the ring."""
FILES: Final = 65_536
"""Open files asked for; one per recording is needed."""

_Key = tuple[int, int]


class Recorder:
    """See the module. `spools`: the folder under which every recording's own folder lies; spools found there that the
    ring does not know are finished."""

    def __init__(self, ring: RecordRing, spools: Path) -> None:
        self.ring = ring
        self._spools = spools
        self._open: dict[_Key, Spool] = {}
        self._broken: set[_Key] = set()
        self._finishing: dict[_Key, tuple[Future[Outcome], Path]] = {}
        self._held: dict[_Key, tuple[Path, dict[str, Any] | None, float]] = {}
        """Ended, but what another host has recorded of them is still being gathered."""
        self._threads = ThreadPoolExecutor(FINISHING, "finish")
        self._orphans: list[Future[None]] = []
        self._gathered_at = 0.0

    def recover(self) -> None:
        """Go on with what runs, finish what nobody runs any more."""
        known: set[Path] = set()
        for active in self.ring.active():
            key = (active.slot, active.generation)
            spool = self._spool(key, active.description) if active.state == ACTIVE else None
            if spool is not None:
                known.add(spool.path)
                if spool.stopped:
                    self._finish(key)
        for path in sorted(self._spools.glob(f"*/*{recorded.SUFFIX}")):
            if path not in known:
                self._orphans.append(self._threads.submit(_finish_orphan, path))

    def step(self, *, gather: bool = False) -> int:
        """Deal with what is in the ring and what was finished; returns the entries taken. `gather`: leave audio alone
        for GATHER_S."""
        for key in [key for key, (future, _) in self._finishing.items() if future.done()]:
            self._complete(key, *self._finishing.pop(key))
        if self._held:
            self._look_at_held(time.monotonic())
        entries = self.ring.take(BATCH)
        if not len(entries):
            return 0
        now = time.monotonic()
        if gather and now < self._gathered_at + GATHER_S and len(entries) < BATCH and (entries["kind"] == AUDIO).all():
            return 0
        self._gathered_at = now
        keys = entries["slot"].astype(np.int64) << 32 | entries["generation"]
        order = np.argsort(keys, kind="stable")
        cuts = np.flatnonzero(np.diff(keys[order])) + 1
        for part in np.split(order, cuts):
            self._take((int(entries["slot"][part[0]]), int(entries["generation"][part[0]])), entries[part])
        self.ring.release(len(entries))
        return len(entries)

    def _take(self, key: _Key, entries: Entries) -> None:
        """Spool one recording's entries."""
        if key in self._finishing or key in self._held:
            return  # seen again after a restart of ours: it is complete
        spool = self._open.get(key) or self._spool(key, None)
        if spool is not None:
            try:
                spool.write(entries)
            except OSError as error:  # a full disk: what could not be written becomes a gap
                _say(f"{spool.path.name}: {error}")
        stops = entries[entries["kind"] == STOP]
        if len(stops):
            self._finish(key, self.ring.details(stops[-1]))

    def _spool(self, key: _Key, description: dict[str, Any] | None) -> Spool | None:
        """The spool of a recording that runs; None: there is none, or it cannot be written."""
        if key in self._broken:
            return None
        if description is None:
            description = self.ring.running(*key)
            if description is None:
                return None  # entries seen again after a restart of ours: it was completed before
        try:
            spool = self._open[key] = Spool(description)
        except (OSError, ValueError) as error:
            self._break(key, error)
            return None
        return spool

    def _break(self, key: _Key, error: Exception) -> None:
        """It cannot be kept: nothing more is tried, and at its end it is told as failed."""
        _say(f"recording in slot {key[0]} cannot be kept: {error}")
        self._broken.add(key)

    def _finish(self, key: _Key, stop: dict[str, Any] | None = None) -> None:
        """Make the WAV file; `stop` are the details of the STOP entry, None: they are in the spool."""
        spool = self._open.pop(key, None)
        if spool is not None:
            spool.close()
        if spool is None:
            self._broken.discard(key)
            self.ring.complete(*key, msgspec.to_builtins(Outcome(why="failed")))
            return
        self._held[key] = spool.path, stop, time.monotonic() + EARLIER_S
        self._look_at_held(time.monotonic())

    def _look_at_held(self, now: float) -> None:
        for key, (path, stop, until) in list(self._held.items()):
            if now < until and path.with_suffix(recorded.PENDING).exists():
                continue
            del self._held[key]
            self._finishing[key] = self._threads.submit(finish, path, stop=stop), path

    def _complete(self, key: _Key, future: "Future[Outcome]", spool: Path) -> None:
        """Tell the media process; only then the spool goes."""
        try:
            outcome = future.result()
        except (OSError, ValueError, MemoryError) as error:
            _say(f"{spool.name} cannot be finished: {error}")
            outcome = Outcome(why="failed")
        self.ring.complete(*key, msgspec.to_builtins(outcome))
        if outcome.why != "failed":
            spool.unlink(missing_ok=True)

    @property
    def idle(self) -> bool:
        """Whether nothing is being finished."""
        return not self._finishing and not self._held and all(future.done() for future in self._orphans)

    def close(self) -> None:
        """Finish what was begun to be finished; what still runs, or waits, stays in its spool for the next recorder."""
        self._threads.shutdown(wait=True)
        for key, (future, spool) in self._finishing.items():
            self._complete(key, future, spool)
        self._finishing.clear()
        for writing in self._open.values():
            writing.close()
        self._open.clear()


def _finish_orphan(path: Path) -> None:
    """A spool that no media process knows."""
    try:
        description = msgspec.convert(read(path)[0], Record, strict=False)
        outcome = finish(path)
        fields = {**msgspec.to_builtins(outcome), "recording": description.recording, "leg": description.leg}
        if outcome.why == "failed" and outcome.file:
            fields["why"] = "closed"  # its media process died with it, and what there is is whole
        recorded.note(path.parent, msgspec.convert(fields, Recorded))
        path.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # msgspec.ValidationError is a ValueError
        _say(f"{path.name} cannot be finished: {error}")
        path.rename(path.with_suffix(".damaged"))


def _say(text: str) -> None:
    sys.stderr.write(f"recorder: {text}\n")


def open_ring(fd: int, ended: "list[int] | None" = None) -> RecordRing | None:
    """The ring behind `fd`, once the media process has laid it out; None: a signal came first. Raises RingMismatch."""
    while not int.from_bytes(os.pread(fd, 8, 0), "little"):
        if ended:
            return None
        time.sleep(RING_WAIT_S)
    return RecordRing(fd)


def main(arguments: list[str]) -> int:
    """See the module. Ends at SIGTERM, and when its parent does."""
    parser = argparse.ArgumentParser(prog="recorder")
    parser.add_argument("--ring", default="", help="a file descriptor, or the name of one from the supervisor")
    parser.add_argument("--folder", type=Path, help="where the recordings' own folders are")
    parser.add_argument("--finish", type=Path, help="finish this one spool, leave word of it, and end")
    options = parser.parse_args(arguments)
    if options.finish:
        _finish_orphan(options.finish)
        return 0
    if not options.ring or not options.folder:
        parser.error("--ring and --folder go together")
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: ended.append(got))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    fd = int(options.ring) if options.ring.isdigit() else descriptors()[options.ring]
    parent = os.getppid()
    try:
        ring = open_ring(fd, ended)
    except RingMismatch as error:
        _say(str(error))
        return 1
    if ring is None:
        return 0
    recorder = Recorder(ring, options.folder)
    recorder.recover()
    while not ended and os.getppid() == parent:
        if not recorder.step(gather=True):
            time.sleep(POLL_S)
    while recorder.step():
        pass
    recorder.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
