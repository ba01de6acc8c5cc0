"""What the compiled SRTP (srtp.c) and the plain one both do: RFC 3711 with AES_CM_128_HMAC_SHA1_80 and _32.

A leg has a context for each direction, made of a master key; contexts belong to the process and can be made anew. The
indices of packets cannot: they are the caller's, in shared memory, so that no index is used twice with a key, and no
packet is heard twice, whichever process works.
"""

from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from trunkline.media.native.interface import Bytes, Int32s, Ints

KEY_BYTES: Final = 16
SALT_BYTES: Final = 14
STREAMS: Final = 4
"""SSRCs of one sender whose indices are kept; another one takes the place of the one heard longest ago."""
WINDOW: Final = 64
"""Packets behind the newest of which is known whether they came."""
TAGS: Final = {"AES_CM_128_HMAC_SHA1_80": 10, "AES_CM_128_HMAC_SHA1_32": 4}
"""Octets that a suite's authentication adds to an RTP packet."""
RTCP_TAG: Final = 10
"""Those of RTCP, whatever the suite (RFC 4568 section 6.2.2)."""
RTCP_ROOM: Final = RTCP_TAG + 4
TAG_ROOM: Final = 16
"""Room to leave after an RTP packet."""
NOT_AUTHENTIC, REPLAYED = 0, 1
"""Where `refused` counts what."""


class Streams(NamedTuple):
    """What came, by leg and sender: arrays of STREAMS columns, the sender heard last first."""

    ssrc: Ints
    """-1: none."""
    highest: Ints
    """The highest index that came."""
    window: npt.NDArray[np.uint64]
    """Bit b: highest - b came."""


class Srtp(Protocol):
    """`on` tells by row which legs have SRTP; `contexts` have a row of `context_bytes` for each leg."""

    context_bytes: int

    def keys(self, context: Bytes, key: bytes, salt: bytes, tag: int) -> None:
        """Make the session keys of a master key (RFC 3711 section 4.3). `tag`: octets of an RTP packet's."""
        ...

    def unprotect(
        self,
        count: int,
        rows: Int32s,
        data: Bytes,
        length: Int32s,
        on: Bytes,
        contexts: Bytes,
        streams: Streams,
        refused: Ints,
        *,
        rtcp: bool,
    ) -> None:
        """Authenticate and decrypt the first `count` datagrams (`data[i]` of leg `rows[i]`) in place. Those that are
        refused get length 0, before anything of them is believed, and are counted."""
        ...

    def protect(self, rows: Ints, data: Bytes, length: Int32s, on: Bytes, contexts: Bytes, last: Ints) -> None:
        """Encrypt and authenticate each row's RTP packet in place. `last[row]` is the index before it is made; one that
        was used already makes no packet (length 0)."""
        ...

    def protect_rtcp(self, packet: bytes, context: Bytes, last: Ints) -> bytes:
        """The SRTCP packet of an RTCP packet; empty when the key is used up. `last`: one element."""
        ...
