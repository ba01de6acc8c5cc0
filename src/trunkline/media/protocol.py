"""The control protocol between a node and a media process: commands down, events up.

Frames on a Unix stream socket: 4 bytes length (big endian, at most MAX_FRAME), then one MessagePack map, a msgspec
struct told apart by its `t` field. Unknown fields are ignored, so that versions N and N-1 read each other.

The node numbers its commands (`n`); the media process keeps the last number that it carried out in its shared memory
and tells it in `Hello` and `Done`. A node that connects sends `Attach`; it gets `Hello` with every leg, what each one
plays and records, and the numbers; then it repeats the commands above `done`. Events that no node has confirmed
(`Seen`) are sent again after `Hello`; the oldest are dropped beyond MAX_UNSEEN. `Ports` comes after them.

Legs are named by the node (`leg`: at most 64 ASCII characters, the call's SID). `slot` is the port pair a leg sits on:
the media process leases free ones to the node ahead of need (`Ports`), so that a call's SDP needs no round trip.

Units: times are milliseconds, audio positions are milliseconds of the source, ports are UDP ports.
"""

from typing import Any

import msgspec

VERSION = 2
"""2: legs may have SRTP. What says 1, or nothing, would send their audio in the open."""
SRTP_VERSION = 2
"""The first with SRTP."""
MAX_FRAME = 256 * 1024
"""Bytes of one frame."""
MAX_UNSEEN = 10_000
"""Events kept for a node that is away."""

PCMU, PCMA, G722, OPUS = "PCMU", "PCMA", "G722", "opus"
SENDRECV, SENDONLY, RECVONLY, INACTIVE = "sendrecv", "sendonly", "recvonly", "inactive"
"""Directions as seen from us."""


class _Message(msgspec.Struct, tag_field="t", omit_defaults=True, kw_only=True):
    """Every command has `n`, its number; 0 in events."""

    n: int = 0


# -- what legs play ----------------------------------------------------------------------------------------------


class Audio(msgspec.Struct, tag_field="t", tag="audio", omit_defaults=True, kw_only=True):
    """A prepared prompt: a file of headerless 16-bit little-endian PCM, 8000 Hz, mono (trunkline.media.prompts)."""

    path: str
    start_ms: int = 0
    """Where in it to begin."""


class Silence(msgspec.Struct, tag_field="t", tag="silence", omit_defaults=True, kw_only=True):
    ms: int


class Tone(msgspec.Struct, tag_field="t", tag="tone", omit_defaults=True, kw_only=True):
    """Sine waves by cadence: each part is (frequencies Hz, ms); no frequencies are silence. `ms` 0: for ever."""

    parts: list[tuple[tuple[int, ...], int]]
    ms: int = 0
    level_db: int = -16
    """dBm0 of each frequency."""


class Digits(msgspec.Struct, tag_field="t", tag="digits", omit_defaults=True, kw_only=True):
    """DTMF to send (0-9 A-D * # and w = 0.5 s, W = 1 s of silence), as RFC 4733 where negotiated, else in-band."""

    digits: str
    on_ms: int = 100
    off_ms: int = 100


Item = Audio | Silence | Tone | Digits


class Srtp(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of SRTP (RFC 3711): base64 of master key (16 octets) and salt (14)."""

    suite: str
    """AES_CM_128_HMAC_SHA1_80 or AES_CM_128_HMAC_SHA1_32."""
    ours: str
    """What we send with: one key for each suite in a leg's life, whose indices go on as long as it lives."""
    theirs: str

    def __repr__(self) -> str:
        return f"Srtp({self.suite})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("suite", self.suite)]


# -- commands ----------------------------------------------------------------------------------------------------


class Attach(_Message, tag="attach"):
    """The first message of a connection."""

    version: int = 1
    """`VERSION` of who sends it: not the default here, which is not written."""
    node: str = ""
    last_seen: int = 0
    """Number of the last event that the node has dealt with."""


class Seen(_Message, tag="seen"):
    """Events up to this number are dealt with."""

    event: int


class Taken(_Message, tag="taken"):
    """How many leased slots are taken for legs that are not open yet (calls that ring): so many more are leased."""

    count: int


class Open(_Message, tag="open"):
    """Put a leg on a leased slot. `remote` may be unknown yet: then nothing is sent until it is, or until latched."""

    leg: str
    slot: int
    codec: str = PCMU
    """PCMU, PCMA, G722 or opus: what we send; all are received by payload type."""
    payload_types: dict[int, str] = {}
    """Payload type number -> codec name that the other side may send, e.g. {0: "PCMU", 101: "telephone-event"};
    telephone-events of Opus's clock are "telephone-event/48000"."""
    send_payload_type: int = 0
    dtmf_payload_type: int = -1
    """What we send telephone-events as; -1: not negotiated, digits go in-band."""
    ptime: int = 20
    """What the other side prefers, ms. Received is any length; sent is 20 ms whatever it is."""
    remote: tuple[str, int] | None = None
    """Address and RTP port of the SDP."""
    remote_rtcp: tuple[str, int] | None = None
    """None: the next port."""
    direction: str = SENDRECV
    latch: bool = True
    """Whether the source of the first valid packets becomes the destination, once (know-how: symmetric RTP)."""
    latch_from: tuple[str, ...] = ()
    """Addresses that may be latched to beside `remote`'s (the signalling source); empty: any."""
    srtp: Srtp | None = None
    """None: plain RTP. With it, nothing else is sent or heard."""
    rtp_timeout_ms: int = 60_000
    """Silence of RTP and RTCP after which `TimedOut` is told; 0: never. Suspended while on hold."""
    cname: str = ""


class Modify(_Message, tag="modify"):
    """What a re-INVITE or a late answer changed; fields as in `Open`, applied whole. SSRC and sequence go on."""

    leg: str
    codec: str = PCMU
    payload_types: dict[int, str] = {}
    send_payload_type: int = 0
    dtmf_payload_type: int = -1
    ptime: int = 20
    remote: tuple[str, int] | None = None
    remote_rtcp: tuple[str, int] | None = None
    direction: str = SENDRECV
    latch_from: tuple[str, ...] = ()
    srtp: Srtp | None = None
    relatch: bool = True


class Close(_Message, tag="close"):
    """End a leg: its slot rests for the quarantine, recordings of it stop. Answered by `Closed`."""

    leg: str


class Play(_Message, tag="play"):
    """Play items one after the other to a leg, instead of what it played. Answered by `Played`."""

    leg: str
    play: str
    """The node's name for it, unique per leg."""
    items: list[Item]
    loop: int = 1
    """Times; 0: until stopped."""
    start_item: int = 0
    start_ms: int = 0
    """Where to begin (resuming): item index and offset in it."""
    barge: str = ""
    """Digits that end it at once in the media process (then `Played` says `digit`); empty: none."""


class Stop(_Message, tag="stop"):
    """End what a leg plays, now; `Played` says `stopped`."""

    leg: str


class Bridge(_Message, tag="bridge"):
    """Let two legs hear each other. What a leg plays is heard by itself instead of the other while it lasts. Keys
    pressed as telephone-events do not cross: the node plays them on as `Digits`."""

    a: str
    b: str


class Unbridge(_Message, tag="unbridge"):
    """Part the leg from its bridge."""

    leg: str


class Detect(_Message, tag="detect"):
    """Tell when a leg has been silent (or has spoken after silence) for so long; 0 turns it off."""

    leg: str
    silence_ms: int = 0


class Record(_Message, tag="record"):
    """Record a leg into `folder` (see trunkline.media.recorder); answered by `Recorded` when the audio is complete.

    `tracks`: `inbound` is what the leg's peer says, `outbound` what is played or bridged to it, `both` the two.
    `channels` 2: inbound is the first channel, outbound the second, aligned by sample; 1: mixed.
    """

    recording: str
    leg: str
    folder: str
    channels: int = 1
    tracks: str = "both"
    max_ms: int = 0
    """0: no limit. Then `Recorded` says `max-length`."""
    silence_ms: int = 0
    """End after so much silence of the inbound track (`silence`); 0: never."""
    finish_on: str = ""
    """Digits that end it (`digit`)."""
    trim: bool = False
    """Whether silence at both ends is left out."""
    beep: bool = False
    """Whether a 1 kHz beep is played to the leg first; recording begins after it."""
    offset_ms: int = 0
    """Where in the recording this part begins; what was before, another host has recorded. `max_ms` is of this part."""


class PauseRecord(_Message, tag="pause-record"):
    recording: str
    mode: str = "skip"
    """`skip`: nothing is written meanwhile; `silence`: silence is."""


class ResumeRecord(_Message, tag="resume-record"):
    recording: str


class StopRecord(_Message, tag="stop-record"):
    recording: str


class Mute(_Message, tag="mute"):
    """Whether what the leg's peer says is dropped (hold, muted)."""

    leg: str
    muted: bool = True


Command = (
    Attach | Seen | Taken | Open | Modify | Close | Play | Stop | Bridge | Unbridge | Detect | Mute
    | Record | PauseRecord | ResumeRecord | StopRecord
)  # fmt: skip


# -- events ------------------------------------------------------------------------------------------------------


class _Event(msgspec.Struct, tag_field="t", omit_defaults=True, kw_only=True):
    """`event` counts up; 0 for those that are not repeated (`Hello`, `Ports`, `Done`, `Quality`)."""

    event: int = 0
    at_ms: int = 0
    """Unix ms."""


class LegState(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A leg as the media process has it."""

    leg: str
    slot: int
    play: str = ""
    item: int = 0
    offset_ms: int = 0
    loops_done: int = 0
    peer: str = ""
    recordings: list[str] = []
    remote: tuple[str, int] | None = None


class Hello(_Event, tag="hello"):
    """The answer to `Attach`."""

    version: int = 1
    """`VERSION` of who sends it: not the default here, which is not written."""
    done: int = 0
    """Number of the last command carried out."""
    epoch: int = 0
    """Counts the starts of this media process's shared memory: another one means that legs were lost."""
    legs: list[LegState] = []


class Done(_Event, tag="done"):
    """Commands up to this number were carried out (told at least once a second while there are any)."""

    done: int


class Ports(_Event, tag="ports"):
    """Free slots for the node to use: (slot, RTP port); RTCP is the next port."""

    slots: list[tuple[int, int]]


class Refused(_Event, tag="refused"):
    """A command that could not be carried out (unknown leg, file missing, no room); `what` is its tag."""

    command: int
    what: str
    leg: str = ""
    reason: str = ""


class Digit(_Event, tag="digit"):
    """A key was pressed. Told once per press, at its start (in-band: when it is certain)."""

    leg: str
    digit: str
    how: str = "rfc4733"
    """`rfc4733` or `in-band`."""


class Played(_Event, tag="played"):
    """A play ended: `end`, `stopped`, `digit`, `failed`."""

    leg: str
    play: str
    why: str = "end"
    item: int = 0
    offset_ms: int = 0


class Silent(_Event, tag="silent"):
    """Silence (True) or speech (False) has lasted as `Detect` asked."""

    leg: str
    silent: bool = True
    ms: int = 0


class Flowing(_Event, tag="flowing"):
    """The first audio packet of a leg came."""

    leg: str


class TimedOut(_Event, tag="timed-out"):
    """No RTP and no RTCP for the leg's time."""

    leg: str


class Recorded(_Event, tag="recorded"):
    """A recording is complete on disk: `why` is `stopped`, `closed`, `silence`, `digit`, `max-length`, `failed`."""

    recording: str
    leg: str
    why: str = "stopped"
    digit: str = ""
    duration_ms: int = 0
    """Of what was written (after trimming)."""
    file: str = ""
    """The finished WAV file, empty when there is no audio."""
    gaps: list[tuple[int, int]] = []
    peak: int = 0
    """Highest absolute sample: 0 when nothing but silence."""
    voiced_ms: int = 0
    """Time in which the inbound track was not silent."""


class Quality(_Event, tag="quality"):
    """What was measured of a leg so far; every 5 s, and in `Closed`. Fields as model.call.MediaQuality."""

    leg: str
    numbers: dict[str, Any] = {}


class Closed(_Event, tag="closed"):
    leg: str
    numbers: dict[str, Any] = {}


class Stats(_Event, tag="stats"):
    """How the media process is doing; every 5 s, counted since it started."""

    legs: int = 0
    ticks: int = 0
    skipped: int = 0
    """Ticks that never were, because one before them took too long."""
    tick_us: list[int] = []
    """How many ticks took up to TICK_BOUNDS_US[i]; the last: longer."""
    tick_sum_us: int = 0
    packets_received: int = 0
    packets_sent: int = 0
    packets_foreign: int = 0
    """Dropped because of their source, stream or form."""
    packets_not_authentic: int = 0
    """SRTP and SRTCP dropped because it was not what the other side had sent."""
    packets_replayed: int = 0
    """SRTP and SRTCP dropped because it came once more, or far too late."""
    packets_fenced: int = 0
    """Not sent, because this host's lease had run out."""
    send_errors: int = 0
    recorded_dropped: int = 0
    """Frames of recordings dropped because the recorder was away for too long."""
    helper: str = ""
    """`compiled` or `fallback`."""


TICK_BOUNDS_US = (500, 1000, 2000, 4000, 6000, 8000, 10_000, 12_000, 15_000, 20_000, 40_000, 100_000)
"""Upper bounds of `Stats.tick_us`."""

Event = (
    Hello | Done | Ports | Refused | Digit | Played | Silent | Flowing | TimedOut | Recorded | Quality | Closed | Stats
)  # fmt: skip
