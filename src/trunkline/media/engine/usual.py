"""What the compiled helper does of a tick by itself: packets and frames of legs to which nothing unusual happens
(native/tick.c). What it leaves, and everything where there is no compiler, is done by `receive` and `jitter`."""

from trunkline.media.engine import jitter, receive
from trunkline.media.engine.codecs import Codecs
from trunkline.media.engine.state import RATE, RING, State
from trunkline.media.native.interface import Helper, Tick

_OF_STATE = (
    "kinds", "latched", "source", "source_port", "ssrc", "clock_scale", "receive", "started", "candidate", "last_rtp",
    "last_heard", "top_sequence", "seen", "received", "transit", "jitter", "max_jitter", "position", "newest", "gap",
    "stretched", "late_run", "noise", "least", "held", "window", "adjust", "ring",
)  # fmt: skip


def usual(state: State, helper: Helper, buffer: jitter.JitterBuffer, codecs: Codecs) -> Tick | None:
    """None: the helper has no such thing."""
    arrays = {name: getattr(state, name) for name in _OF_STATE}
    arrays |= buffer.arrays() | {"coded": codecs.has_channel, "fade": jitter.FADE}
    numbers = {
        "size": RING,
        "most_dropout": receive.MAX_DROPOUT,
        "sample_ns": receive.SAMPLE_NS,
        "rate": RATE,
        "most_payload": jitter.MAX_PAYLOAD,
        "room": jitter.ROOM,
        "pause": jitter.PAUSE,
        "window_ticks": jitter.WINDOW,
    }
    return helper.tick(arrays, numbers)
