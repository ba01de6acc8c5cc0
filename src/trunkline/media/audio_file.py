"""Audio files from anywhere to prepared prompts, and recordings to MP3, by FFmpeg's libraries. Runs in a worker only.

`decode` gives what `ffmpeg -i FILE -ar 8000 -ac 1 -f s16le` gives, sample by sample (for lossy codecs as far as the
decoders of the two FFmpeg versions agree). One thing has to be said for that: 16-bit sources are resampled in 16-bit
arithmetic, which FFmpeg chose by itself until its version 7.

A file is never trusted: only demuxers of single files are tried (no playlists, which name other files and hosts), no
protocol but `file`, and what it brings is bounded in time of audio here and in memory and wall time by the worker.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import av
import av.error
import av.filter
import msgspec

from trunkline.media.wav import RATE, SAMPLE_BYTES, SAMPLES_PER_MS

MAX_AUDIO_MS: Final = 2 * 3600 * 1000
"""Longest audio of one file: 115 MB of prepared prompt."""
MAX_BAD_PACKETS: Final = 10_000
"""Packets that may be undecodable before a file is given up."""
MAX_CHANNELS: Final = 32
MAX_RATE: Final = 768_000
"""Highest sample rate taken, Hz."""
STEREO: Final = 2
MP3_BIT_RATE: Final = 32_000
"""Bits a second of one channel."""

FORMATS: Final = (
    "3gp,aac,ac3,adts,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gsm,iff,ircam,loas,"
    "matroska,webm,mlp,mov,mp4,m4a,mp3,mpc,mpc8,mpeg,mpegts,mulaw,alaw,nistsphere,nut,oga,ogg,oma,qcp,rm,shn,sln,sox,"
    "spx,tak,truehd,tta,voc,vqf,w64,wav,wv,xwma"
)
"""FFmpeg's demuxers of single files with audio in them."""
HINTS: Final = {
    "audio/basic": "mulaw",
    "audio/ulaw": "mulaw",
    "audio/pcmu": "mulaw",
    "audio/x-mulaw": "mulaw",
    "audio/pcma": "alaw",
    "audio/x-alaw": "alaw",
    "audio/gsm": "gsm",
    "audio/x-gsm": "gsm",
}
"""Content types whose files carry no mark of what they are."""
_AU_MAGIC: Final = b".snd"
_NARROW: Final = frozenset({"u8", "u8p", "s16", "s16p"})
_OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": FORMATS}


class Unreadable(Exception):
    """The file is no audio that can be read, or has more of it than is allowed."""


class Decoded(msgspec.Struct, frozen=True):
    """What `decode` wrote."""

    ms: int
    samples: int
    codec: str


def decode(source: Path, target: Path, *, content_type: str = "", max_ms: int = MAX_AUDIO_MS) -> Decoded:
    """Write the first audio stream of `source` to `target` as headerless PCM (s16le, 8000 Hz, mono).

    The target appears whole or not at all. Raises Unreadable, OSError.
    """
    draft = target.with_name(f"{target.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as out:
            codec, samples = _decode(source, out, content_type, max_ms * SAMPLES_PER_MS)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return Decoded(ms=samples // SAMPLES_PER_MS, samples=samples, codec=codec)


def _decode(source: Path, out: BinaryIO, content_type: str, max_samples: int) -> tuple[str, int]:
    try:
        with _open(source, content_type) as container:
            stream = _audio_stream(container)
            total = 0
            for chunk in _resample(_frames(container, stream)):
                total += len(chunk) // SAMPLE_BYTES
                if total > max_samples:
                    raise Unreadable(f"longer than {max_samples // RATE} s")
                out.write(chunk)
            codec = str(stream.codec_context.name)
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        raise Unreadable(f"not readable as audio: {type(error).__name__}") from error
    if not total:
        raise Unreadable("no audio in it")
    return codec, total


def _open(source: Path, content_type: str) -> Any:
    hint = HINTS.get(content_type)
    options = dict(_OPTIONS)
    if hint in ("mulaw", "alaw"):
        with source.open("rb") as file:
            hint = None if file.read(len(_AU_MAGIC)) == _AU_MAGIC else hint
        if hint:
            options["sample_rate"] = str(RATE)
    return av.open(f"file:{source.resolve()}", format=hint, options=options, metadata_errors="replace")


def _audio_stream(container: Any) -> Any:
    if not container.streams.audio:
        raise Unreadable("no audio in it")
    stream = container.streams.audio[0]
    context = stream.codec_context
    if context.rate > MAX_RATE or context.channels > MAX_CHANNELS:
        raise Unreadable(f"{context.channels} channels at {context.rate} Hz")
    context.thread_count = 1
    return stream


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's frames; packets that cannot be decoded are skipped, as the ffmpeg program does."""
    bad = 0
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError as error:
            bad += 1
            if bad > MAX_BAD_PACKETS:
                raise Unreadable("damaged") from error


def _resample(frames: Iterable[Any]) -> Iterator[bytes]:
    """Frames of any kind (it may change on the way) as s16le, 8000 Hz, mono."""
    graph: Any = None
    kind: tuple[object, ...] = ()
    for frame in frames:
        frame.pts = None  # gaps in the timestamps are no silence, as for the ffmpeg program's s16le
        now = (frame.sample_rate, frame.format.name, frame.layout.name)
        if now != kind:
            if graph is not None:
                yield from _finish(graph)
            graph, kind = _graph(*now), now
        graph.push(frame)
        yield from _pull(graph)
    if graph is not None:
        yield from _finish(graph)


def _graph(rate: int, sample_format: str, layout: str) -> Any:
    graph = av.filter.Graph()
    source = graph.add(
        "abuffer", sample_rate=str(rate), sample_fmt=sample_format, channel_layout=layout, time_base=f"1/{rate}"
    )
    inner = ":internal_sample_fmt=s16p" if sample_format in _NARROW else ""
    converter = graph.add("aresample", f"{RATE}:out_sample_fmt=s16:out_chlayout=mono{inner}")
    sink = graph.add("abuffersink")
    source.link_to(converter)
    converter.link_to(sink)
    graph.configure()
    return graph


def _pull(graph: Any) -> Iterator[bytes]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield bytes(frame.planes[0])[: frame.samples * SAMPLE_BYTES]


def _finish(graph: Any) -> Iterator[bytes]:
    graph.push(None)
    yield from _pull(graph)


def to_mp3(source: Path, target: Path) -> int:
    """A finished recording as MP3 with the same channels; returns its bytes. Raises Unreadable, OSError."""
    draft = target.with_name(f"{target.name}.{os.getpid()}.draft")
    try:
        with (
            av.open(f"file:{source.resolve()}", format="wav", options={"protocol_whitelist": "file"}) as wav,
            av.open(str(draft), "w", format="mp3") as mp3,
        ):
            stream = wav.streams.audio[0]
            layout = "stereo" if stream.codec_context.channels == STEREO else "mono"
            encoder = mp3.add_stream("libmp3lame", rate=RATE, layout=layout, format="s16p")
            encoder.bit_rate = MP3_BIT_RATE * stream.codec_context.channels
            planes = av.AudioResampler(format="s16p", layout=layout, rate=RATE)
            for frame in itertools.chain(wav.decode(stream), (None,)):
                for part in planes.resample(frame):
                    mp3.mux(encoder.encode(part))
            mp3.mux(encoder.encode(None))
        draft.replace(target)
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        raise Unreadable(f"not readable as audio: {type(error).__name__}") from error
    finally:
        draft.unlink(missing_ok=True)
    return target.stat().st_size
