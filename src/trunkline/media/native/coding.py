"""What the compiled coders and the plain ones both do: G.722 and Opus, which remember, for many legs at once."""

from typing import Final, Protocol

import msgspec

from trunkline.media.native.interface import Bytes, Int32s, Ints, Samples

G722, OPUS = 2, 3
"""Kinds, beside the laws of G.711 (interface.ULAW, ALAW)."""
PACKETS: Final = 64
"""Payloads kept of a leg until their audio is due; more push out the oldest."""
LONGEST: Final = 960
"""Samples of one packet: 120 ms."""
UNIT: Final = 20
"""Samples: Opus conceals in multiples of 2.5 ms."""
FEC_MOST: Final = 480
"""Samples of a gap that the packet after it may fill, the part before its own frame concealed."""
CONCEAL_MOST: Final = 800
"""Samples in a row that are concealed..."""
PAUSE_MOST: Final = 4800
"""... and while the sender has told that it is silent (DTX)."""
DTX_OCTETS: Final = 2
"""A packet so short tells it."""


class OpusSettings(msgspec.Struct, frozen=True):
    """How Opus is written."""

    bitrate: int = 28_000
    """Bits a second, repeats for lost packets (FEC) included."""
    complexity: int = 1
    """0 to 10: what an encoder may spend."""


class NoCodec(Exception):
    """The codec's library is not installed."""


class Coders(Protocol):
    """A leg has a channel from `open` to `close`. `rows` number legs; other arguments are per element of `rows` where
    said so. Timestamps are in samples of 8 kHz."""

    def require(self, kind: int) -> None:
        """Raise NoCodec when legs cannot have it."""
        ...

    def open(self, row: int) -> None:
        """Make a leg's channel, unless it has one."""
        ...

    def close(self, row: int) -> None:
        """Free it, if there is one."""
        ...

    def reset(self, row: int) -> None:
        """Forget what came: another stream follows."""
        ...

    def loss(self, row: int, percent: int) -> None:
        """What the peer loses of what we send: how much Opus repeats."""
        ...

    def keep(
        self,
        rows: Ints,
        packet: Ints,
        offset: Ints,
        length: Ints,
        samples: Ints,
        kind: Bytes,
        timestamp: Ints,
        data: Bytes,
    ) -> None:
        """Keep payloads (all per element; `packet` indexes `data`, `samples` is what they hold) until they are due."""
        ...

    def play(self, rows: Ints, position: Ints, ring: Samples, concealed: Int32s) -> None:
        """Decode what is due of each row's frame at `position` (per element) into `ring[row]`; `concealed[row]` becomes
        how many samples of it are made up. Rows without a channel are left alone."""
        ...

    def code(
        self,
        rows: Ints,
        pcm: Samples,
        kind: Bytes,
        payload_type: Bytes,
        marker: Bytes,
        sequence: Ints,
        timestamp: Ints,
        ssrc: Ints,
        data: Bytes,
        length: Int32s,
    ) -> None:
        """Write each row's RTP packet into `data[row]`, its length into `length[row]`; `kind` is over all legs."""
        ...
