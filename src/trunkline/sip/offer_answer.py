"""Offer/answer (RFC 3264) for one audio stream.

Every other medium is refused with port 0 and keeps its place. The answer repeats the offer's payload type numbers.
SRTP profiles, rtcp-mux and ICE are read but not taken up: an answer that does not name them refuses them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from trunkline.sip import sdp
from trunkline.sip.errors import MalformedSdp as MalformedSdp
from trunkline.sip.errors import NotAcceptable as NotAcceptable
from trunkline.sip.sdp import Media, SessionDescription

DEFAULT_PTIME_MS: Final = 20
MIN_PTIME_MS: Final = 10
MAX_PTIME_MS: Final = 60
DTMF_PAYLOAD_TYPE: Final = 101
"""What our offers call telephone-events (RFC 4733)."""
DTMF_EVENTS: Final = "0-16"
"""Sixteen keys and the hook flash."""
DTMF: Final = "telephone-event"
PROTOCOLS: Final = frozenset({"RTP/AVP"})
"""Profiles that are taken."""


class Codec(msgspec.Struct, frozen=True):
    """An audio encoding."""

    name: str
    clock: int
    """As the rtpmap says it, Hz."""
    payload_type: int
    """Static (RFC 3551), or what our offers call it."""
    channels: int = 1

    @property
    def encoding(self) -> str:
        return f"{self.name}/{self.clock}" + (f"/{self.channels}" if self.channels > 1 else "")


CODECS: Final[dict[str, Codec]] = {
    "PCMU": Codec("PCMU", 8000, 0),
    "PCMA": Codec("PCMA", 8000, 8),
}
"""What `Local.codecs` may name. One more codec is one more line."""

_STATIC: Final[dict[int, str]] = {codec.payload_type: codec.encoding for codec in CODECS.values()}
_SENDS: Final = frozenset({"sendrecv", "sendonly"})
_RECEIVES: Final = frozenset({"sendrecv", "recvonly"})
_DIRECTION: Final = {
    (True, True): "sendrecv",
    (True, False): "sendonly",
    (False, True): "recvonly",
    (False, False): "inactive",
}
_UNSPECIFIED: Final = frozenset({"0.0.0.0", "::", "0:0:0:0:0:0:0:0"})  # noqa: S104 - RFC 2543's hold, nothing is bound


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """Our side of the stream."""

    address: str
    port: int
    """RTP; RTCP is on the next one."""
    codecs: tuple[str, ...] = ("PCMU", "PCMA")
    """Of CODECS, in the order of preference."""
    session_id: int
    version: int
    dtmf: bool = True
    direction: str = "sendrecv"


class Negotiated(msgspec.Struct, frozen=True, kw_only=True):
    """What both sides agreed on."""

    sdp: bytes
    """Ours: the answer, or the offer that was answered."""
    codec: str
    """What we send."""
    send_payload_type: int
    payload_types: dict[int, str]
    """What may come in: codec or `telephone-event` by payload type."""
    dtmf_payload_type: int
    """What we send keys with; -1: the peer takes none."""
    ptime: int
    """Milliseconds of a packet as the peer wants it, 10 to 60, in tens."""
    remote: tuple[str, int] | None
    """Where we send; `None` while the peer names no address (RFC 2543's hold)."""
    remote_rtcp: tuple[str, int] | None
    direction: str
    """Ours."""
    held: bool
    """Whether the peer wants to receive nothing."""
    remote_version: int
    """sess-version of the peer's description, -1 if unreadable. An unchanged one means an unchanged description."""


class _Stream(msgspec.Struct):
    """The peer's side of the audio stream, as its description says."""

    media: Media
    address: str
    codecs: list[tuple[int, str]]
    """Payload type and name of what we know too, in its order."""
    dtmf: int


def offer(local: Local, previous: bytes = b"") -> bytes:
    """Our offer.

    In a session that is up, `previous` is the description that we sent last: its m-lines keep their places and its
    payload types their numbers (RFC 3264 section 8). See `revise` for the version.
    """
    before = sdp.parse(previous) if previous else None
    fresh = {name: CODECS[name].payload_type for name in local.codecs}
    dtmf = DTMF_PAYLOAD_TYPE if local.dtmf else -1
    if before is None or not before.media:
        return _write(local, [_audio_lines(local, list(fresh.items()), dtmf, local.direction)], "0 0")
    at = _own_audio(before)
    mapped = before.media[at].rtpmap()
    # What is in use comes first, so that the session need not change.
    numbers = {name: number for number, name in _known(before.media[at], mapped, local.codecs)}
    numbers = {**numbers, **{name: number for name, number in fresh.items() if name not in numbers}}
    if local.dtmf:
        taken = set(numbers.values())
        dtmf = _dtmf_of(before.media[at], mapped, CODECS[local.codecs[0]].clock, taken)
        if dtmf < 0:
            dtmf = next(number for number in range(DTMF_PAYLOAD_TYPE, DTMF_PAYLOAD_TYPE + 27) if number not in taken)
    sections = [_refused(media) for media in before.media]
    sections[at] = _audio_lines(local, list(numbers.items()), dtmf, local.direction)
    return _write(local, sections, "0 0")


def answer(offered: bytes, local: Local) -> Negotiated:
    """The answer to a peer's offer. Raises NotAcceptable (488) if nothing in it suits, MalformedSdp (400)."""
    remote = sdp.parse(offered)
    at, stream = _acceptable(remote, local)
    sends, receives = _wishes(remote, stream)
    direction = _DIRECTION[receives and local.direction in _SENDS, sends and local.direction in _RECEIVES]
    chosen = [(name, number) for number, name in stream.codecs]
    sections = [_refused(media) for media in remote.media]
    sections[at] = _audio_lines(local, chosen, stream.dtmf, direction)
    ours = _write(local, sections, remote.value("t") or "0 0")
    payload_types = dict(stream.codecs)
    if stream.dtmf >= 0:
        payload_types[stream.dtmf] = DTMF
    return _negotiated(ours, remote, stream, payload_types, direction, held=not receives)


def conclude(offered: bytes, answered: bytes, local: Local) -> Negotiated:
    """What a peer's answer to our offer means. Raises NotAcceptable, MalformedSdp (then: ACK and BYE)."""
    ours, remote = sdp.parse(offered), sdp.parse(answered)
    at = _own_audio(ours)
    if at >= len(remote.media):
        raise NotAcceptable("the answer has fewer m-lines than the offer")
    mapped = ours.media[at].rtpmap()
    stream = _stream(remote, remote.media[at], local, mapped)
    if stream is None:
        raise NotAcceptable("the answer refuses the audio stream")
    sends, receives = _wishes(remote, stream)
    direction = _DIRECTION[receives and local.direction in _SENDS, sends and local.direction in _RECEIVES]
    # What comes in bears our offer's numbers; peers that use their answer's own ones are understood too.
    payload_types = dict(_known(ours.media[at], mapped, local.codecs))
    own_dtmf = _dtmf_of(ours.media[at], mapped, CODECS[stream.codecs[0][1]].clock, set(payload_types))
    if own_dtmf >= 0:
        payload_types[own_dtmf] = DTMF
    else:
        stream.dtmf = -1
    for number, name in stream.codecs:
        payload_types.setdefault(number, name)
    if stream.dtmf >= 0:
        payload_types.setdefault(stream.dtmf, DTMF)
    return _negotiated(offered, remote, stream, payload_types, direction, held=not receives)


def revise(previous: bytes, new: bytes) -> bytes:
    """`new`, as what follows `previous` in our own direction of one session (RFC 3264 section 8).

    Its o= line gets the same session id and a version one higher; when nothing else changed it is `previous` itself.
    """
    before, after = previous.split(b"\r\n"), new.split(b"\r\n")
    old, fresh = _origin_at(before), _origin_at(after)
    if old < 0 or fresh < 0:
        return new
    if before[:old] + before[old + 1 :] == after[:fresh] + after[fresh + 1 :]:
        was, now = before[old].split(b" "), after[fresh].split(b" ")
        if was[3:] == now[3:]:
            return previous
    was, now = before[old].split(b" "), after[fresh].split(b" ")
    now[0:2] = was[0:2]
    now[2] = str(int(was[2]) + 1).encode()
    after[fresh] = b" ".join(now)
    return b"\r\n".join(after)


def _origin_at(lines: list[bytes]) -> int:
    for at, line in enumerate(lines):
        if line.startswith(b"o="):
            parts = line.split(b" ")
            return at if len(parts) == 6 and parts[2].isdigit() else -1
    return -1


def _acceptable(remote: SessionDescription, local: Local) -> tuple[int, _Stream]:
    """The first stream of an offer that we take."""
    for at, media in enumerate(remote.media):
        stream = _stream(remote, media, local)
        if stream is not None:
            return at, stream
    raise NotAcceptable("no audio stream with a codec and a profile that we know")


def _stream(
    remote: SessionDescription, media: Media, local: Local, offered: dict[int, str] | None = None
) -> _Stream | None:
    """The stream of an m-line, `None` if it cannot be taken. `offered`: our own rtpmaps; some answers lack theirs."""
    if media.kind != "audio" or not media.port or media.protocol not in PROTOCOLS:
        return None
    address = remote.address_of(media)
    mapped = media.rtpmap()
    if offered:
        mapped = {**offered, **mapped}
    codecs = _known(media, mapped, local.codecs)
    if not codecs or not _unicast(address):
        return None
    dtmf = -1
    if local.dtmf:
        dtmf = _dtmf_of(media, mapped, CODECS[codecs[0][1]].clock, {number for number, _ in codecs})
    return _Stream(media, address, codecs, dtmf)


def _unicast(address: str) -> bool:
    """Whether media may be sent there: an address or a name, neither multicast nor broadcast."""
    first, dot, _ = address.partition(".")
    if dot and first.isascii() and first.isdigit():
        return len(first) <= 3 and int(first) < 224
    return bool(address) and not address.lower().startswith("ff") if ":" in address else bool(address)


def _known(media: Media, mapped: dict[int, str], names: tuple[str, ...]) -> list[tuple[int, str]]:
    """Payload type and name of each codec of `names` that an m-line lists, in its order, each codec once."""
    wanted = {CODECS[name].encoding.lower(): name for name in names}
    found: list[tuple[int, str]] = []
    for text in media.formats:
        number = sdp.payload_number(text)
        encoding = mapped.get(number) or _STATIC.get(number, "")
        name = wanted.pop(_plain(encoding), None)
        if name is not None and number >= 0:
            found.append((number, name))
    return found


def _plain(encoding: str) -> str:
    """An rtpmap's encoding in lower case, without a channel count of one."""
    return encoding.lower().removesuffix("/1")


def _dtmf_of(media: Media, mapped: dict[int, str], clock: int, taken: set[int]) -> int:
    """The payload type of telephone-events with that clock (RFC 4733 section 2.1), -1 if there is none."""
    wanted = f"{DTMF}/{clock}"
    for text in media.formats:
        number = sdp.payload_number(text)
        if number >= 0 and number not in taken and _plain(mapped.get(number, "")) == wanted:
            return number
    return -1


def _wishes(remote: SessionDescription, stream: _Stream) -> tuple[bool, bool]:
    """Whether the peer sends, and whether it receives."""
    direction = remote.direction_of(stream.media)
    return direction in _SENDS, direction in _RECEIVES and stream.address not in _UNSPECIFIED


def _negotiated(
    ours: bytes,
    remote: SessionDescription,
    stream: _Stream,
    payload_types: dict[int, str],
    direction: str,
    *,
    held: bool,
) -> Negotiated:
    reachable = stream.address not in _UNSPECIFIED
    number, codec = stream.codecs[0]
    return Negotiated(
        sdp=ours,
        codec=codec,
        send_payload_type=number,
        payload_types=payload_types,
        dtmf_payload_type=stream.dtmf,
        ptime=_ptime(stream.media),
        remote=(stream.address, stream.media.port) if reachable else None,
        remote_rtcp=sdp.rtcp_address(stream.media, stream.address) if reachable else None,
        direction=direction,
        held=held,
        remote_version=remote.version,
    )


def _ptime(media: Media) -> int:
    wanted = sdp.milliseconds(media.attribute("ptime")) or DEFAULT_PTIME_MS
    most = sdp.milliseconds(media.attribute("maxptime")) or MAX_PTIME_MS
    return max(min(wanted, most, MAX_PTIME_MS) // 10 * 10, MIN_PTIME_MS)


def _own_audio(ours: SessionDescription) -> int:
    """Which m-line of our own description is the audio stream in use."""
    for at, media in enumerate(ours.media):
        if media.kind == "audio" and media.port:
            return at
    raise NotAcceptable("our description has no audio stream")


def _audio_lines(local: Local, codecs: list[tuple[str, int]], dtmf: int, direction: str) -> str:
    formats = " ".join([str(number) for _, number in codecs])
    lines = [f"m=audio {local.port} RTP/AVP {formats}" + (f" {dtmf}" if dtmf >= 0 else "")]
    lines += [f"a=rtpmap:{number} {CODECS[name].encoding}" for name, number in codecs]
    if dtmf >= 0:
        lines += [f"a=rtpmap:{dtmf} {DTMF}/{CODECS[codecs[0][0]].clock}", f"a=fmtp:{dtmf} {DTMF_EVENTS}"]
    lines += [f"a=ptime:{DEFAULT_PTIME_MS}", f"a={direction}", ""]
    return "\r\n".join(lines)


def _refused(media: Media) -> str:
    return f"m={media.kind} 0 {media.protocol} {' '.join(media.formats)}\r\n"


def _write(local: Local, sections: list[str], times: str) -> bytes:
    kind = sdp.address_type(local.address)
    session = (
        f"v=0\r\no=- {local.session_id} {local.version} IN {kind} {local.address}\r\ns=-\r\n"
        f"c=IN {kind} {local.address}\r\nt={times}\r\n"
    )
    return (session + "".join(sections)).encode()
