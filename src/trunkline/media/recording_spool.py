"""The raw spool of one recording, and the WAV file that is made of it.

A spool is the record ring's entries as they came (trunkline.media.engine.record_ring.ENTRY), appended to one file
behind a JSON description: every entry carries its sample index, so a spool that breaks off is good to its last whole
entry, and an entry that was written twice (the writer died between writing and releasing) does no harm.

The WAV file is laid out by sample index: what no frame covers is silence and listed as a gap; both channels come from
the same entries, so they are aligned by sample. A stretch between PAUSE and RESUME is left out (`skip`) or silence.

Spools are not synced (a process's death loses nothing of what was written; a host's does lose what the system had not
yet put on disk); a finished WAV file is, with its folder, before it is told.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
import numpy.typing as npt

from trunkline.media import wav
from trunkline.media.engine.record_ring import AUDIO, DESCRIPTION_BYTES, ENTRY, FRAME, PAUSE, RESUME, STOP
from trunkline.media.recorded import EARLIER, SUFFIX

RATE_MS: Final = wav.SAMPLES_PER_MS
VOICED_RMS: Final = 100
"""Root mean square of a frame above which it is no silence: -46 dBm0."""
TRIM_PAD: Final = FRAME * 5
"""Samples of silence that trimming leaves at each end: 100 ms."""
CHUNK_FRAMES: Final = 1500
"""Frames put into the WAV file at once: 30 s."""
MAX_GAPS: Final = 100
"""Gaps listed; later ones are only silence."""
MAX_SAMPLES: Final = wav.RATE * 3600 * 24
"""Longest recording: a sample index beyond it is damage."""

COPY_BYTES: Final = 1 << 20
SHIFT_ENTRIES: Final = 8192
"""Entries put into place at once: 5.4 MB."""

_LENGTH: Final = 4
Entries = npt.NDArray[Any]
Samples = npt.NDArray[np.int16]


class Spool:
    """Appends to the spool file of one recording."""

    def __init__(self, description: dict[str, Any]) -> None:
        """Open it in the description's folder: made anew, or gone on with after the last whole entry. Raises OSError,
        ValueError for a description that is none."""
        recording, folder = description.get("recording"), description.get("folder")
        if not isinstance(recording, str) or not isinstance(folder, str) or not recording.isalnum():
            raise ValueError("a recording without name or folder")
        self.path = Path(folder) / f"{recording}{SUFFIX}"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        blob = msgspec.json.encode(description)
        start = _LENGTH + len(blob)
        if size < start:
            os.ftruncate(self._fd, 0)
            os.write(self._fd, len(blob).to_bytes(_LENGTH, "big") + blob)
        else:
            os.ftruncate(self._fd, start + (size - start) // ENTRY.itemsize * ENTRY.itemsize)
        os.lseek(self._fd, 0, os.SEEK_END)

    def write(self, entries: Entries) -> None:
        """Raises OSError; the file then ends with its last whole entry."""
        data = entries.tobytes()
        begin = os.lseek(self._fd, 0, os.SEEK_CUR)
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            os.ftruncate(self._fd, begin)
            os.lseek(self._fd, begin, os.SEEK_SET)
            raise

    @property
    def stopped(self) -> bool:
        """Whether its last entry is a STOP."""
        size = os.fstat(self._fd).st_size
        if size < ENTRY.itemsize + _LENGTH:
            return False
        last = np.frombuffer(os.pread(self._fd, ENTRY.itemsize, size - ENTRY.itemsize), ENTRY)
        return bool(last["kind"][0] == STOP)

    def close(self) -> None:
        os.close(self._fd)


def read(path: Path) -> tuple[dict[str, Any], Entries]:
    """Description and entries of a spool, mapped, not read. Raises OSError, ValueError when it is damaged."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "big")
        if not 0 < length <= DESCRIPTION_BYTES:
            raise ValueError("the spool has no description")
        try:
            description: dict[str, Any] = msgspec.json.decode(file.read(length), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ValueError("the spool has no description") from error
    count = (size - _LENGTH - length) // ENTRY.itemsize
    if count <= 0:
        return description, np.empty(0, ENTRY)
    return description, np.memmap(path, ENTRY, "r", _LENGTH + length, (count,))


class _Pauses:
    """Stretches of sample indices in which nothing was to be recorded."""

    def __init__(self, controls: Entries, end: int) -> None:
        self.spans: list[tuple[int, int, bool]] = []
        begin, skip = -1, True
        for entry in controls:
            if entry["kind"] == PAUSE and begin < 0:
                begin, skip = int(entry["sample"]), _details(entry).get("mode", "skip") != "silence"
            elif entry["kind"] == RESUME and begin >= 0:
                self.spans.append((begin, int(entry["sample"]), skip))
                begin = -1
        if begin >= 0:
            self.spans.append((begin, end, skip))
        self.spans = [span for span in self.spans if span[1] > span[0]]

    def skipped_before(self, sample: int) -> int:
        """Samples left out before an index."""
        return sum(min(sample, end) - begin for begin, end, skip in self.spans if skip and begin < sample)


def _details(entry: Any) -> dict[str, Any]:
    raw = entry["inbound"].tobytes() + entry["outbound"].tobytes()
    try:
        return msgspec.json.decode(raw[: int(entry["length"])], type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


class Outcome(msgspec.Struct):
    """What became of a recording: fields of protocol.Recorded."""

    why: str = "stopped"
    digit: str = ""
    duration_ms: int = 0
    file: str = ""
    gaps: list[tuple[int, int]] = []
    peak: int = 0
    voiced_ms: int = 0


class _Layout:
    """Where everything of a spool goes."""

    def __init__(self, description: dict[str, Any], entries: Entries) -> None:
        kinds, samples = np.asarray(entries["kind"]), np.asarray(entries["sample"])
        controls = entries[np.flatnonzero(kinds != AUDIO)]
        stops = [entry for entry in controls if entry["kind"] == STOP]
        frames = np.flatnonzero((kinds == AUDIO) & (samples <= MAX_SAMPLES - FRAME))
        order = frames[np.argsort(samples[frames], kind="stable")]
        starts = samples[order].astype(np.int64)
        last = np.append(starts[1:] != starts[:-1], True) if len(starts) else np.empty(0, bool)
        self.order, self.starts = order[last], starts[last]  # of an index written twice the later entry holds
        covered = int(self.starts[-1]) + FRAME if len(self.starts) else 0
        self.end = max(covered, min(int(stops[-1]["sample"]), MAX_SAMPLES) if stops else 0)
        self.stop = _details(stops[-1]) if stops else {"why": "failed"}
        self.pauses = _Pauses(controls, self.end)
        self.entries = entries
        self.tracks = str(description.get("tracks", "both"))
        self.channels = 2 if description.get("channels") == 2 else 1

    def gaps(self) -> list[tuple[int, int]]:
        """(first sample, end) of the stretches that no frame covers; pauses are none."""
        ends = np.concatenate([[0], self.starts + FRAME])
        begins = np.concatenate([self.starts, [self.end]])
        found = [(int(ends[i]), int(begins[i])) for i in np.flatnonzero(begins > ends)]
        for begin, end, _ in self.pauses.spans:
            found = [part for gap in found for part in _without(gap, begin, end)]
        return found

    def chunks(self) -> Iterator[tuple[Samples, Samples]]:
        """(inbound, outbound) from the first sample to the last, 30 s at a time, with pauses in them as silence."""
        size = CHUNK_FRAMES * FRAME
        for begin in range(0, self.end, size):
            length = min(size, self.end - begin)
            both = np.zeros((2, length + 2 * FRAME), np.int16)
            which = slice(
                int(np.searchsorted(self.starts, begin - FRAME, "right")),
                int(np.searchsorted(self.starts, begin + length)),
            )
            if which.stop > which.start:
                frames = self.entries[self.order[which]]
                at = (self.starts[which] - begin + FRAME)[:, None] + np.arange(FRAME)
                both[0][at], both[1][at] = frames["inbound"], frames["outbound"]
            both = both[:, FRAME : FRAME + length]
            for first, last, _ in self.pauses.spans:
                both[:, max(0, first - begin) : max(0, last - begin)] = 0
            yield both[0], both[1]

    def mixed(self, inbound: Samples, outbound: Samples) -> Samples:
        """One chunk as it goes into the file: (samples, channels)."""
        inbound = inbound if self.tracks != "outbound" else np.zeros_like(inbound)
        outbound = outbound if self.tracks != "inbound" else np.zeros_like(outbound)
        if self.channels == 2:
            return np.stack([inbound, outbound], axis=1)
        total: Samples = np.clip(inbound.astype(np.int32) + outbound, -32768, 32767).astype(np.int16)
        return total[:, None]


def _without(gap: tuple[int, int], begin: int, end: int) -> list[tuple[int, int]]:
    parts = ((gap[0], min(gap[1], begin)), (max(gap[0], end), gap[1]))
    return [part for part in parts if part[1] > part[0]]


class _Measures:
    """What is known of the audio before it is written: peak, voiced time, first and last frame with sound."""

    def __init__(self, layout: _Layout) -> None:
        self.peak = self.voiced = 0
        first, last, base = -1, -1, 0
        for inbound, outbound in layout.chunks():
            voiced_in, _ = _frames(inbound)
            out = layout.mixed(inbound, outbound)
            sound = np.zeros(len(voiced_in), bool)
            for channel in out.T:
                voiced, peak = _frames(channel)
                sound |= voiced
                self.peak = max(self.peak, peak)
            self.voiced += int(voiced_in.sum()) * FRAME
            where = np.flatnonzero(sound)
            if len(where):
                first = base + int(where[0]) * FRAME if first < 0 else first
                last = base + (int(where[-1]) + 1) * FRAME
            base += len(inbound)
        self.begin = max(0, first - TRIM_PAD) if first >= 0 else 0
        self.end = min(layout.end, last + TRIM_PAD) if first >= 0 else 0


def _frames(channel: Samples) -> tuple[npt.NDArray[np.bool_], int]:
    """Which frames of 20 ms are no silence, and the highest absolute sample."""
    padded = np.zeros(-(-len(channel) // FRAME) * FRAME, np.float32)
    padded[: len(channel)] = channel
    rows = padded.reshape(-1, FRAME)
    peak = int(np.abs(padded).max(initial=0))
    return np.einsum("ij,ij->i", rows, rows) > FRAME * VOICED_RMS**2, peak


def _joined(path: Path, description: dict[str, Any], entries: Entries) -> Entries:
    """The entries of a recording that another host has begun: theirs, then ours at their place in the whole. They are
    put into one file and mapped, so that hours of audio need no memory."""
    earlier, joined = path.with_suffix(EARLIER), path.with_suffix(".joined")
    offset = min(max(int(description.get("offset_ms") or 0), 0) * RATE_MS, MAX_SAMPLES)
    if not offset and not earlier.exists():
        return entries
    with joined.open("wb") as file:
        if earlier.exists():
            with earlier.open("rb") as source:
                shutil.copyfileobj(source, file, COPY_BYTES)
            file.truncate(file.tell() // ENTRY.itemsize * ENTRY.itemsize)
            file.seek(0, os.SEEK_END)
        for start in range(0, len(entries), SHIFT_ENTRIES):
            part = np.array(entries[start : start + SHIFT_ENTRIES])
            part["sample"] += np.uint64(offset)
            file.write(part.tobytes())
        size = file.tell()
    found: Entries = np.memmap(joined, ENTRY, "r") if size else np.empty(0, ENTRY)
    joined.unlink()  # the mapping keeps it
    return found


def finish(path: Path, *, stop: dict[str, Any] | None = None) -> Outcome:
    """Make the WAV file beside a spool, which stays. `file` is empty when there is no audio (with `trim`: none but
    silence). `stop`: why it ended, where the spool may not say. Raises OSError, ValueError when it is damaged."""
    description, entries = read(path)
    entries = _joined(path, description, entries)
    layout = _Layout(description, entries)
    measures = _Measures(layout)
    begin, end = (measures.begin, measures.end) if description.get("trim") else (0, layout.end)
    stop = layout.stop if stop is None else stop
    outcome = Outcome(
        why=str(stop.get("why", "stopped")), digit=str(stop.get("digit", "")), peak=measures.peak,
        voiced_ms=measures.voiced // RATE_MS,
    )  # fmt: skip
    length = end - begin - (layout.pauses.skipped_before(end) - layout.pauses.skipped_before(begin))
    if length > 0:
        target = path.with_suffix(".wav")
        _write(target, layout, begin, end, length)
        outcome.file, outcome.duration_ms = str(target), length // RATE_MS
        outcome.gaps = _gaps(layout, begin, end)
    return outcome


def _gaps(layout: _Layout, begin: int, end: int) -> list[tuple[int, int]]:
    """(offset ms, length ms) in the file."""
    skipped = layout.pauses.skipped_before
    start = begin - skipped(begin)
    found = [(max(a, begin), min(b, end)) for a, b in layout.gaps() if a < end and b > begin]
    return [((a - skipped(a) - start) // RATE_MS, (b - a) // RATE_MS) for a, b in found][:MAX_GAPS]


def _write(target: Path, layout: _Layout, begin: int, end: int, length: int) -> None:
    draft = target.with_suffix(".draft")
    try:
        with draft.open("wb") as file:
            file.write(wav.header(length * wav.SAMPLE_BYTES * layout.channels, layout.channels))
            _write_audio(file, layout, begin, end)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_audio(file: BinaryIO, layout: _Layout, begin: int, end: int) -> None:
    base = 0
    for inbound, outbound in layout.chunks():
        size = len(inbound)
        keep = np.zeros(size, bool)
        keep[max(0, begin - base) : max(0, end - base)] = True
        for first, last, skip in layout.pauses.spans:
            if skip:
                keep[max(0, first - base) : max(0, last - base)] = False
        file.write(layout.mixed(inbound, outbound)[keep].astype("<i2").tobytes())
        base += size
