"""What a phone says and listens for, and what it does: plain records, as they come over HTTP."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

MAX_TEXT: Final = 4096
"""Characters of a spoken text."""
MAX_MS: Final = 900_000
MAX_DIGITS: Final = 100
MAX_HEADERS: Final = 50

Ms = Annotated[int, Meta(ge=1, le=MAX_MS)]
Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
Seconds = Annotated[float, Meta(ge=0, le=900)]
Hertz = Annotated[int, Meta(ge=50, le=3900)]
Status = Annotated[int, Meta(ge=400, le=699)]
Headers = Annotated[dict[str, str], Meta(max_length=MAX_HEADERS)]


# -- audio ---------------------------------------------------------------------------------------------------------


class Spoken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="text"):
    """A text as the server's own speech engine says it (`<Say>`, with the same attributes)."""

    text: Text
    voice: str = ""
    language: str = ""


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="file"):
    """An audio file on the machine that the phones are on."""

    path: Annotated[str, Meta(pattern="^/", max_length=4096)]
    """Absolute."""


class Tone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="tone"):
    """Sines together; to hear them, they must last for `ms`."""

    frequencies: Annotated[list[Hertz], Meta(min_length=1, max_length=4)]
    ms: Ms = 200
    level_db: Annotated[float, Meta(ge=-60, le=0)] = -16.0


class Silence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="silence"):
    """Nothing, for so long."""

    ms: Ms = 1000


class Keys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="keys"):
    """Keys that the other side presses, as telephone-events or in the audio."""

    keys: Annotated[str, Meta(pattern=r"^[0-9A-Da-d*#]{1,100}$")]


Codec = Annotated[str, Meta(pattern="^(PCMU|PCMA|G722|opus)$")]
Audio = Spoken | File | Tone | Silence
Sound = Spoken | File | Tone | Silence | Keys


# -- how a phone behaves -------------------------------------------------------------------------------------------


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a phone does with calls to it, from now on."""

    does: Annotated[str, Meta(pattern="^(rings|answers|declines|busy|off|rejects|silent)$")] = "rings"
    """`rings` until it is told what to do. `declines`: 603. `busy`: 486. `off`: 480, at once. `rejects`: with `status`.
    `silent`: no answer at all after 100."""
    after_s: Seconds = 0.0
    """How long it rings first."""
    status: Status = 500
    headers: Headers = {}
    """Of its 200, or of its refusal."""
    codecs: list[Codec] = []
    """What it takes; empty: all."""
    refer_status: Annotated[int, Meta(ge=200, le=699)] = 202
    """What it answers when it is asked to call elsewhere; a 2xx: it does."""


STATUSES: Final = {"declines": 603, "busy": 486, "off": 480}
"""SIP status of each refusal."""


# -- how a phone registers -----------------------------------------------------------------------------------------


class Registration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A SIP domain's user, whom a phone registers as."""

    user: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~+-]{1,255}$")]
    password: Annotated[str, Meta(max_length=255)] = ""
    domain: Annotated[str, Meta(pattern=r"^[A-Za-z0-9.-]{1,255}$")]
    expires_s: Annotated[int, Meta(ge=0, le=86_400)] = 600
    """0: it leaves."""
    transport: Annotated[str, Meta(pattern="^(UDP|TCP)$")] = "UDP"
    headers: Headers = {}


class Registered(msgspec.Struct, kw_only=True):
    """How a registration went."""

    status: int = 0
    """The final SIP status; 0: it never registered."""
    contacts: list[str] = []
    """All of the user's, as the registrar tells them."""
    headers: dict[str, str] = {}


# -- what a phone does in a call -----------------------------------------------------------------------------------


class _Do(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """One thing to do."""


class Answer(_Do, tag="answer"):
    headers: Headers = {}


class Reject(_Do, tag="reject"):
    status: Status = 603
    reason: str = ""
    headers: Headers = {}


class Ring(_Do, tag="ring"):
    """Ring (again), as 180 or 183."""

    status: Annotated[int, Meta(ge=180, le=199)] = 180


class HangUp(_Do, tag="hang-up"):
    """BYE, CANCEL or a refusal: whatever ends the call as it stands."""

    headers: Headers = {}


class Press(_Do, tag="press"):
    digits: Annotated[str, Meta(pattern=r"^[0-9A-Da-d*#wW]{1,100}$")]
    how: Annotated[str, Meta(pattern="^(rfc4733|in-band|info)$")] = "rfc4733"
    on_ms: Ms = 100
    off_ms: Ms = 100


class Say(_Do, tag="say"):
    what: Audio


class Stop(_Do, tag="stop"):
    """Say no more of what waits to be said."""


class Hear(_Do, tag="hear"):
    """Answered when it is heard, or after `wait_s`: `{"heard": false}` says to ask again."""

    what: Sound
    wait_s: Seconds = 1.0
    explain: bool = False
    """Whether the answer describes what was heard instead, when it is not there."""


class Finish(_Do, tag="finish"):
    """Answered when all is said, or after `wait_s`."""

    wait_s: Seconds = 1.0


class Hold(_Do, tag="hold"):
    on: bool = True


class Refer(_Do, tag="refer"):
    """Ask the other side to call `to`: a number, or a SIP URI (REFER)."""

    to: Annotated[str, Meta(min_length=1, max_length=1000)]


class Impair(_Do, tag="impair"):
    """Let packets be lost and late, in one direction or both; 0 and 0: no more."""

    loss: Annotated[float, Meta(ge=0, le=1)] = 0.0
    jitter_ms: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    direction: Annotated[str, Meta(pattern="^(in|out|both)$")] = "both"
    seed: int = 1


Deed = Answer | Reject | Ring | HangUp | Press | Say | Stop | Hear | Finish | Hold | Refer | Impair


class Dial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call that a phone makes."""

    to: Annotated[str, Meta(min_length=1, max_length=255)]
    headers: Headers = {}
    caller: str = ""
    """What From says instead of the phone's number: `anonymous`, another number."""
    codecs: list[Codec] = []
    """What it offers, in the order of preference; empty: PCMU and PCMA."""
    dtmf: bool = True
    """Whether it offers telephone-events."""
    late_offer: bool = False
    """Whether the INVITE has no SDP."""
    transport: Annotated[str, Meta(pattern="^(UDP|TCP)$")] = "UDP"


class Media(msgspec.Struct, omit_defaults=False, kw_only=True):
    """Counts of a call's packets."""

    codec: str = ""
    sent: int = 0
    received: int = 0
    lost: int = 0
    """Packets of 20 ms that did not come."""
    longest_gap_ms: int = 0
    """Longest time without a packet of audio."""
    strange: int = 0
    reports: int = 0


class CallState(msgspec.Struct, kw_only=True):
    """A call as its phone sees it."""

    id: int
    """1 for a phone's first call, and so on."""
    phone: str
    direction: str
    """`in` or `out`, as the phone sees it."""
    remote: str
    """The other side: number, or SIP URI where it is none."""
    state: str = "calling"
    """`calling`, `ringing`, `up`, `ended`."""
    provisional: list[int] = []
    """SIP statuses before the final one, received or sent; 100 is left out."""
    status: int = 0
    """The final SIP status of the INVITE, 0 while there is none."""
    reason: str = ""
    """Its phrase."""
    ended_by: str = ""
    """`phone`, `other`, `network` (its transport or an ACK failed)."""
    hangup_reason: str = ""
    """The Reason header that ended it (RFC 3326)."""
    headers: dict[str, str] = {}
    """Of the INVITE that came, or of the final response to ours."""
    bye_headers: dict[str, str] = {}
    held: bool = False
    """Whether the other side holds the call."""
    on_hold: bool = False
    """Whether the phone holds it."""
    keys: str = ""
    """Keys heard as telephone-events."""
    info: list[str] = []
    """Bodies of INFO requests."""
    reinvites: int = 0
    """Re-INVITEs that came."""
    referred_to: str = ""
    """Where the other side asked it to call (Refer-To); it does, in a call of its own, unless its behaviour differs."""
    refer_response: int = 0
    """What the other side answered to the phone's own REFER."""
    refer_status: int = 0
    """How the other side's new call went by its last word."""
    refer_over: bool = False
    """Whether it has said its last."""
    call_id: str = ""
    heard_ms: int = 0
    media: Media = msgspec.field(default_factory=Media)
    started_s: float = 0.0
    answered_s: float = 0.0
    ended_s: float = 0.0
    """Unix seconds, 0 if it never happened."""
    changes: int = 0
    """Counts up with every change of the above but audio."""


class Outcome(msgspec.Struct, kw_only=True):
    """The answer to `Hear` and `Finish`."""

    heard: bool
    at_ms: int = 0
    """Where it began, in the audio of the call."""
    end_ms: int = 0
    score: float = 0.0
    over: bool = False
    """Whether the call has ended: it will not be heard any more."""
    explanation: str = ""
