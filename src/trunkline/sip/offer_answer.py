"""Offer/answer (RFC 3264) for one audio stream.

Every other medium is refused with port 0 and keeps its place. The answer repeats the offer's payload type numbers.
SRTP is taken up as `Local.srtp` says, with keys in the description (trunkline.sip.sdes). Rtcp-mux and ICE are read
but not taken up: an answer that does not name them refuses them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from trunkline.sip import sdes, sdp
from trunkline.sip.errors import MalformedSdp as MalformedSdp
from trunkline.sip.errors import NotAcceptable as NotAcceptable
from trunkline.sip.sdes import Crypto, Srtp
from trunkline.sip.sdp import Media, SessionDescription

DEFAULT_PTIME_MS: Final = 20
MIN_PTIME_MS: Final = 10
MAX_PTIME_MS: Final = 60
DTMF_PAYLOAD_TYPE: Final = 101
"""What our offers call telephone-events (RFC 4733); with codecs of several clocks, the first of several."""
MAX_PAYLOAD_TYPE: Final = 127
FIRST_DYNAMIC: Final = 96
DTMF_EVENTS: Final = "0-16"
"""Sixteen keys and the hook flash."""
DTMF: Final = "telephone-event"
TELEPHONY_CLOCK: Final = 8000
PLAIN: Final = "RTP/AVP"
SECURE: Final = "RTP/SAVP"
PROTOCOLS: Final = frozenset({PLAIN})
"""Profiles that are taken."""
SECURE_PROTOCOLS: Final = frozenset({SECURE, "RTP/SAVPF"})
"""Those of SRTP. Feedback messages (RFC 4585) are neither sent nor needed."""
OFF, OPTIONAL, REQUIRED = "off", "optional", "required"


class Codec(msgspec.Struct, frozen=True):
    """An audio encoding."""

    name: str
    clock: int
    """As the rtpmap says it, Hz."""
    payload_type: int
    """Static (RFC 3551), or what our offers call it."""
    channels: int = 1
    fmtp: str = ""
    """What we tell about what we receive."""

    @property
    def encoding(self) -> str:
        return f"{self.name}/{self.clock}" + (f"/{self.channels}" if self.channels > 1 else "")


CODECS: Final[dict[str, Codec]] = {
    "PCMU": Codec("PCMU", 8000, 0),
    "PCMA": Codec("PCMA", 8000, 8),
    # RFC 3551 section 4.5.2: 8000 by an old mistake, sampled at 16 kHz.
    "G722": Codec("G722", 8000, 9),
    # RFC 7587: always 48000 and two channels, whatever is coded. The media engine hears 8 kHz: more would be wasted.
    "opus": Codec("opus", 48_000, 111, 2, "useinbandfec=1;maxplaybackrate=8000;sprop-maxcapturerate=8000"),
}
"""What `Local.codecs` may name. One more codec is one more line."""

_STATIC: Final[dict[int, str]] = {
    codec.payload_type: codec.encoding for codec in CODECS.values() if codec.payload_type < FIRST_DYNAMIC
}
_ALIASES: Final = {"opus/48000": "opus/48000/2"}
"""Encodings that some peers write wrong."""
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
    srtp: str = OFF
    """Whether the stream may be, or must be, SRTP. Our first offer is if it must be."""
    srtp_keys: tuple[str, ...] = ()
    """What we send with, one for each of sdes.SUITES; none when it is `off`."""

    def __repr__(self) -> str:
        return f"Local({self.address}, {self.port}, srtp={self.srtp})"


class Negotiated(msgspec.Struct, frozen=True, kw_only=True):
    """What both sides agreed on."""

    sdp: bytes
    """Ours: the answer, or the offer that was answered."""
    codec: str
    """What we send."""
    send_payload_type: int
    payload_types: dict[int, str]
    """What may come in: codec, `telephone-event` or `telephone-event/48000` (by its clock) by payload type."""
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
    srtp: Srtp | None = None
    """Keys of SRTP; None: plain RTP."""


class _Stream(msgspec.Struct):
    """The peer's side of the audio stream, as its description says."""

    media: Media
    address: str
    codecs: list[tuple[int, str]]
    """Payload type and name of what we know too, in its order."""
    events: dict[int, int]
    """Payload type of telephone-events by clock."""
    crypto: list[Crypto]
    """The keys that it names; none where it is plain RTP."""

    @property
    def dtmf(self) -> int:
        """The payload type to send keys with, -1 if there is none: of the codec's clock, else of telephony's."""
        number = self.events.get(CODECS[self.codecs[0][1]].clock, -1)
        return number if number >= 0 else self.events.get(TELEPHONY_CLOCK, -1)


def offer(local: Local, previous: bytes = b"") -> bytes:
    """Our offer.

    In a session that is up, `previous` is the description that we sent last: its m-lines keep their places and its
    payload types their numbers (RFC 3264 section 8). See `revise` for the version.
    """
    before = sdp.parse(previous) if previous else None
    fresh = {name: CODECS[name].payload_type for name in local.codecs}
    if before is None or not before.media:
        events = _new_events(local, {}, set(fresh.values()))
        section = _audio_lines(local, list(fresh.items()), events, local.direction)
        if local.srtp == REQUIRED:
            section = _secured(section, SECURE, sdes.offered(local.srtp_keys))
        return _write(local, [section], "0 0")
    at = _own_audio(before)
    mapped = before.media[at].rtpmap()
    # What is in use comes first, so that the session need not change.
    numbers = {name: number for number, name in _known(before.media[at], mapped, local.codecs)}
    used = {sdp.payload_number(text) for text in before.media[at].formats}
    for name, number in fresh.items():
        if name not in numbers:
            taken = used | set(numbers.values())
            free = (n for n in range(FIRST_DYNAMIC, MAX_PAYLOAD_TYPE + 1) if n not in taken)
            numbers[name] = next(free, number) if number in used and number >= FIRST_DYNAMIC else number
    taken = set(numbers.values())
    events = _new_events(local, _events_of(before.media[at], mapped, local, local.codecs, taken), taken)
    sections = [_refused(media) for media in before.media]
    sections[at] = _audio_lines(local, list(numbers.items()), events, local.direction)
    if keys := sdes.usable(before.media[at].attributes(sdes.CRYPTO)):  # those in use, or new ones in their place
        if local.srtp_keys:
            keys = [Crypto(one.tag, one.suite, local.srtp_keys[sdes.SUITES.index(one.suite)]) for one in keys]
        sections[at] = _secured(sections[at], before.media[at].protocol, keys)
    return _write(local, sections, "0 0")


def answer(offered: bytes, local: Local) -> Negotiated:
    """The answer to a peer's offer. Raises NotAcceptable (488) if nothing in it suits, MalformedSdp (400)."""
    remote = sdp.parse(offered)
    at, stream = _acceptable(remote, local)
    sends, receives = _wishes(remote, stream)
    direction = _DIRECTION[receives and local.direction in _SENDS, sends and local.direction in _RECEIVES]
    chosen = [(name, number) for number, name in stream.codecs]
    sections = [_refused(media) for media in remote.media]
    sections[at] = _audio_lines(local, chosen, stream.events, direction)
    srtp = None
    if stream.crypto:
        theirs = stream.crypto[0]
        own = Crypto(theirs.tag, theirs.suite, local.srtp_keys[sdes.SUITES.index(theirs.suite)])
        sections[at] = _secured(sections[at], stream.media.protocol, [own])
        srtp = Srtp(suite=own.suite, ours=own.key, theirs=theirs.key)
    ours = _write(local, sections, remote.value("t") or "0 0")
    payload_types = {**dict(stream.codecs), **_event_names(stream.events)}
    return _negotiated(ours, remote, stream, payload_types, direction, held=not receives, srtp=srtp)


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
    srtp = _agreed(ours.media[at], stream)
    sends, receives = _wishes(remote, stream)
    direction = _DIRECTION[receives and local.direction in _SENDS, sends and local.direction in _RECEIVES]
    # What comes in bears our offer's numbers; peers that use their answer's own ones are understood too.
    payload_types = dict(_known(ours.media[at], mapped, local.codecs))
    own = _events_of(ours.media[at], mapped, local, local.codecs, set(payload_types))
    payload_types |= _event_names(own)
    stream.events = {clock: number for clock, number in stream.events.items() if clock in own}
    for number, name in [*stream.codecs, *_event_names(stream.events).items()]:
        payload_types.setdefault(number, name)
    return _negotiated(offered, remote, stream, payload_types, direction, held=not receives, srtp=srtp)


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
    """The first stream of an offer that we take; one with SRTP goes before those without."""
    plain: tuple[int, _Stream] | None = None
    for at, media in enumerate(remote.media):
        stream = _stream(remote, media, local)
        if stream is not None and (stream.crypto or local.srtp == OFF):
            return at, stream
        if stream is not None and plain is None:
            plain = at, stream
    if plain is not None:
        return plain
    raise NotAcceptable("no audio stream with a codec and a profile that we know")


def _stream(
    remote: SessionDescription, media: Media, local: Local, offered: dict[int, str] | None = None
) -> _Stream | None:
    """The stream of an m-line, `None` if it cannot be taken. `offered`: our own rtpmaps; some answers lack theirs."""
    crypto = _crypto(media, local) if media.kind == "audio" and media.port else None
    if crypto is None:
        return None
    address = remote.address_of(media)
    mapped = media.rtpmap()
    if offered:
        mapped = {**offered, **mapped}
    codecs = _known(media, mapped, local.codecs)
    if not codecs or not _unicast(address):
        return None
    events = _events_of(media, mapped, local, [name for _, name in codecs], {number for number, _ in codecs})
    return _Stream(media, address, codecs, events, crypto)


def _crypto(media: Media, local: Local) -> list[Crypto] | None:
    """The keys of a stream with SRTP, none for a plain one; `None` if it cannot be taken in that profile. Keys in the
    plain profile are no standard, but what phones write that can do both."""
    plain = media.protocol in PROTOCOLS
    if local.srtp == OFF:
        return [] if plain else None
    keys = sdes.usable(media.attributes(sdes.CRYPTO)) if plain or media.protocol in SECURE_PROTOCOLS else []
    return keys if keys or (plain and local.srtp == OPTIONAL) else None


def _agreed(ours: Media, theirs: _Stream) -> Srtp | None:
    """What an answer took of the keys that we offered (RFC 4568 section 7.1.3). Raises NotAcceptable."""
    if theirs.media.protocol != ours.protocol:
        raise NotAcceptable("the answer is of another profile than the offer")
    offered = sdes.usable(ours.attributes(sdes.CRYPTO))
    if not theirs.crypto or (not offered and ours.protocol in PROTOCOLS):
        return None
    taken = theirs.crypto[0]
    for own in offered:
        if (own.tag, own.suite) == (taken.tag, taken.suite):
            return Srtp(suite=own.suite, ours=own.key, theirs=taken.key)
    raise NotAcceptable("the answer takes none of the keys that were offered")


def _secured(section: str, protocol: str, keys: list[Crypto]) -> str:
    """An audio section with SRTP."""
    lines = "".join([f"{sdes.line(key)}\r\n" for key in keys])
    return section.replace(f" {PLAIN} ", f" {protocol} ", 1) + lines


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
    plain = encoding.lower().removesuffix("/1")
    return _ALIASES.get(plain, plain)


def _clocks(names: Iterable[str]) -> list[int]:
    return list(dict.fromkeys(CODECS[name].clock for name in names))


def _events_of(
    media: Media, mapped: dict[int, str], local: Local, names: Iterable[str], taken: set[int]
) -> dict[int, int]:
    """The payload type of telephone-events for each clock of the codecs (RFC 4733 section 2.1) that an m-line lists;
    telephony's clock where a peer with Opus has no other."""
    if not local.dtmf:
        return {}
    clocks = _clocks(names)
    found = {clock: number for clock in clocks if (number := _dtmf_of(media, mapped, clock, taken)) >= 0}
    if not found and TELEPHONY_CLOCK not in clocks:
        number = _dtmf_of(media, mapped, TELEPHONY_CLOCK, taken)
        found = {TELEPHONY_CLOCK: number} if number >= 0 else {}
    return found


def _new_events(local: Local, known: dict[int, int], taken: set[int]) -> dict[int, int]:
    """`known`, with a free payload type for each clock that has none; telephony's gets the usual one."""
    events = dict(known) if local.dtmf else {}
    for clock in sorted(_clocks(local.codecs)) if local.dtmf else ():
        free = set(range(DTMF_PAYLOAD_TYPE, MAX_PAYLOAD_TYPE + 1)) - taken - set(events.values())
        if clock not in events and free:
            events[clock] = min(free)
    return events


def _event_names(events: dict[int, int]) -> dict[int, str]:
    """As in `Negotiated.payload_types`."""
    return {number: DTMF if clock == TELEPHONY_CLOCK else f"{DTMF}/{clock}" for clock, number in events.items()}


def _dtmf_of(media: Media, mapped: dict[int, str], clock: int, taken: set[int]) -> int:
    """The payload type of telephone-events with that clock, -1 if there is none."""
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
    srtp: Srtp | None,
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
        srtp=srtp,
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


def _audio_lines(local: Local, codecs: list[tuple[str, int]], events: dict[int, int], direction: str) -> str:
    formats = " ".join([str(number) for number in (*(number for _, number in codecs), *events.values())])
    lines = [f"m=audio {local.port} RTP/AVP {formats}"]
    for name, number in codecs:
        codec = CODECS[name]
        lines.append(f"a=rtpmap:{number} {codec.encoding}")
        if codec.fmtp:
            lines.append(f"a=fmtp:{number} {codec.fmtp}")
    for clock, number in events.items():
        lines += [f"a=rtpmap:{number} {DTMF}/{clock}", f"a=fmtp:{number} {DTMF_EVENTS}"]
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
