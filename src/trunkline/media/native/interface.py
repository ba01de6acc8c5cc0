"""What the compiled helper and its fallback both do: the sample and socket work of one tick."""

from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from trunkline.rtp import dtmf, g711

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trunkline.media.native.coding import Coders, OpusSettings
    from trunkline.media.native.srtp import Srtp

ABI: Final = 2
"""Of helper.c."""
FRAME: Final = 160
"""Samples of 20 ms at 8 kHz."""
MISSING: Final = -32768
"""A ring sample that never came: no G.711 level."""
HEADER: Final = 12
"""Octets of an RTP header."""
PACKET_BYTES: Final = 1472
"""Largest datagram received: what an Ethernet frame holds. 80 ms of G.711 are half of it, Opus may be long."""
SEND_BYTES: Final = HEADER + FRAME
"""Octets of a packet sent."""
ADDRESS_BYTES: Final = 28
"""Room of a socket address (sockaddr_in6)."""
PER_SOCKET: Final = 16
"""Datagrams of one leg that a tick reads; a flood waits and then overflows in the kernel."""
BURST: Final = 4
"""Datagrams of one system call."""
ULAW, ALAW = 0, 1
"""Laws as indices."""

Ints = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.int16]

LEVELS: Final = np.array([g711.LEVELS[g711.PCMU], g711.LEVELS[g711.PCMA]], np.int16)
"""Sample by law and code."""
CODES: Final = np.frombuffer(g711.CODES[g711.PCMU] + g711.CODES[g711.PCMA], np.uint8).reshape(2, 65536)
"""Code by law and unsigned sample."""


class Batch:
    """What one `receive` read; element i of each array is datagram i."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        self.data: Bytes = np.zeros((most, PACKET_BYTES), np.uint8)
        self.row: Int32s = np.zeros(most, np.int32)
        self.length: Int32s = np.zeros(most, np.int32)
        """0: longer than PACKET_BYTES."""
        self.address: Bytes = np.zeros((most, 16), np.uint8)
        """IPv6, or IPv4 as ::ffff:a.b.c.d."""
        self.port: Int32s = np.zeros(most, np.int32)
        self.at: Ints = np.zeros(most, np.int64)
        """Kernel's arrival time, ns since 1970; 0: not known."""


class Tick(Protocol):
    """Packets and frames of legs to which nothing unusual happens. What is left is untouched."""

    def hear(self, batch: Batch, count: int, tick: int, now_ns: int) -> Ints:
        """Take packets in; the numbers of those left."""
        ...

    def frames(self, rows: Ints) -> tuple[Ints, Ints]:
        """Take the next frame of each leg; the rows left, and those whose window is over."""
        ...


class Helper(Protocol):
    """`rows` index the arrays over all legs; other arguments are per element of `rows` where said so."""

    name: str

    def coders(self, legs: int, settings: "OpusSettings") -> "Coders":
        """G.722 and Opus for so many legs."""
        ...

    def receive(self, fds: Int32s, rows: Int32s, batch: Batch) -> int:
        """Read what waits on the sockets into `batch`; the number of datagrams."""
        ...

    def srtp(self) -> "Srtp":
        """SRTP with the same means."""
        ...

    def connect(self, fd: int, address: bytes) -> bool:
        """See trunkline.media.native.connect."""
        ...

    def send(
        self,
        fds: Int32s,
        rows: Ints,
        data: Bytes,
        length: Int32s,
        to: Bytes,
        to_length: Int32s,
        until: Ints | None = None,
    ) -> Int32s:
        """Send each row's datagram (`data[row]`) from its socket (per element) to its address; errno per element. One
        without octets is not sent (EMSGSIZE), nor is any (ECANCELED) once CLOCK_BOOTTIME has reached `until[0]` ns."""
        ...

    def put(
        self,
        rows: Ints,
        packet: Ints,
        offset: Ints,
        length: Ints,
        law: Bytes,
        timestamp: Ints,
        data: Bytes,
        ring: Samples,
    ) -> None:
        """Decode payloads (all per element; `packet` indexes `data`) into `ring[row]` at their timestamps."""
        ...

    def take(
        self,
        rows: Ints,
        position: Ints,
        ring: Samples,
        heard: Samples,
        last: Samples,
        missing: Int32s,
        energy: npt.NDArray[np.float32],
    ) -> None:
        """Move the frame at `position` (per element) from `ring[row]` to `heard[row]`: missing samples become 0 and are
        counted in `missing[row]`, whole frames are kept in `last[row]`; `energy[row]` is the mean square."""
        ...

    def gather(self, rows: Ints, sources: list[Samples], index: Ints, position: Ints, base: Any, out: Samples) -> None:
        """`out[row]` = the frame of `sources[index]` at `position` (both per element); `base` holds the address of
        each source (uint64)."""
        ...

    def keys(
        self, detector: dtmf.Detector, rows: Ints, heard: Samples
    ) -> tuple[Ints, npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
        """`detector.feed` of the frames `heard[row]`."""
        ...

    def tick(self, arrays: "Mapping[str, npt.NDArray[Any]]", numbers: "Mapping[str, int]") -> Tick | None:
        """See trunkline.media.engine.usual; None where there is no such thing."""
        ...

    def pack(
        self,
        rows: Ints,
        pcm: Samples,
        law: Bytes,
        payload_type: Bytes,
        marker: Bytes,
        sequence: Ints,
        timestamp: Ints,
        ssrc: Ints,
        data: Bytes,
        length: Int32s,
    ) -> None:
        """Write each row's RTP packet into `data[row]`, its length into `length[row]`."""
        ...
