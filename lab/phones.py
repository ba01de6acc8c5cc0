"""SIP peers with a ledger: callers on a carrier's trunk, and whoever they are connected with.

A deliberately small user agent (UDP, G.711): it takes part in a call by its Call-ID, answers re-INVITEs from whatever
address they come, as a carrier does that accepts the heir's address, and notes when it heard something and from where.
One SIP socket for all, one RTP socket for each leg.
"""

import asyncio
import itertools
import re
import socket
import time
from dataclasses import dataclass, field
from typing import Final

from lab import outside
from lab.plan import SIP_PORT

PORT: Final = 5060
ECHOED: Final = ("via", "from", "call-id", "cseq", "record-route")
"""Headers that a response repeats."""
T1_S: Final = 0.5
TRIES: Final = 6
TICK_S: Final = 0.02
LATEST_S: Final = 0.5
FRAME: Final = bytes(range(64, 224))
"""160 octets of G.711 that are no silence."""
RTCP: Final = range(192, 224)
"""Second octets of RTCP (RFC 5761 section 4): reports go to a port that may be another leg's for RTP."""
KEEP_ALIVE_TICKS: Final = 50
"""Legs with nothing to say send one packet a second, so that nobody takes them for dead."""
MAX_TRACE: Final = 60
QUIET_S: Final = 0.1
"""A longer time without a packet is noted as silence."""

_LINE = re.compile(r"^([A-Za-z-]+)\s*:\s*(.*)$")
_SHORT = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "c": "content-type",
    "l": "content-length",
}
_TAG = re.compile(r";tag=([^;\s>]+)")
_URI = re.compile(r"<?(sips?:[^>;\s]+)")
_HOST = re.compile(r"sips?:(?:[^@]*@)?([0-9.]+)(?::(\d+))?")
_MEDIA = re.compile(r"^m=audio (\d+)", re.MULTILINE)
_ADDRESS = re.compile(r"^c=IN IP4 ([0-9.]+)", re.MULTILINE)

Address = tuple[str, int]


@dataclass
class Message:
    """A parsed SIP message; header names in lower case, in order."""

    first: str
    headers: list[tuple[str, str]]
    body: str

    @classmethod
    def parse(cls, data: bytes) -> "Message | None":
        """None for what is no message."""
        head, _, body = data.decode("utf-8", "replace").partition("\r\n\r\n")
        lines = head.split("\r\n")
        found = [match.groups() for line in lines[1:] if (match := _LINE.match(line))]
        return cls(lines[0], [(_SHORT.get(n.lower(), n.lower()), v) for n, v in found], body) if lines[0] else None

    def get(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    def route(self) -> list[str]:
        """The proxies that want to stay on the way, the last one that it passed first."""
        return [one.strip() for name, value in self.headers if name == "record-route" for one in value.split(",")]

    def echo(self) -> str:
        """What a response repeats."""
        return "".join(f"{n}: {v}\r\n" for n, v in self.headers if n in ECHOED)

    def media(self) -> Address | None:
        """Where its description wants audio."""
        port, host = _MEDIA.search(self.body), _ADDRESS.search(self.body)
        return (host[1], int(port[1])) if port and host else None


@dataclass
class Leg:
    """One leg's ledger; times by the monotonic clock, 0 where it did not come so far."""

    call_id: str
    kind: str
    caller: bool
    node: Address
    rtp: socket.socket
    speaks: bool = True
    began: float = 0.0
    answered: float = 0.0
    ended: float = 0.0
    why: str = ""
    """`ours`, `theirs`, or a status."""
    status: int = 0
    local: str = ""
    remote: str = ""
    """From and To of our requests, tags included."""
    target: str = ""
    route: list[str] = field(default_factory=list)
    """The proxies on the way to the other side, the nearest one first."""
    sequence: int = 1
    to_media: Address | None = None
    silences: list[tuple[float, float]] = field(default_factory=list)
    """(when it began, how long), beyond QUIET_S."""
    heard: float = 0.0
    first_heard: float = 0.0
    packets: int = 0
    reinvites: int = 0
    sources: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Host that audio came from -> (last time, packets)."""
    stale: int = 0
    """Packets from a former host after the new one had begun."""
    newest: str = ""
    """Host that it is to hear: whose description came last."""
    hang_up_answered: bool = False
    octets: tuple[int, int, int] = (0, 0, 0)
    """Sequence, timestamp, SSRC of what it sends."""

    trace: list[str] = field(default_factory=list)
    """What was said, for whoever looks for the reason of an end."""

    def note(self, text: str) -> None:
        """Add to the trace."""
        if len(self.trace) < MAX_TRACE:
            self.trace.append(f"{time.monotonic() - self.began:.2f} {text}")

    @property
    def up(self) -> bool:
        return bool(self.answered) and not self.ended


class Phones:
    """`async with`: all legs of one run."""

    def __init__(self, nodes: list[str]) -> None:
        self._nodes = itertools.cycle(nodes)
        self.legs: dict[str, Leg] = {}
        self._numbers = itertools.count(1)
        self._prefix = f"{time.time_ns() % 10**9}"

    async def __aenter__(self) -> "Phones":
        self._loop = asyncio.get_running_loop()
        self._sip = self._socket(PORT)
        self._loop.add_reader(self._sip.fileno(), self._read)
        self._pacer = asyncio.create_task(self._pace())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pacer.cancel()
        self._loop.remove_reader(self._sip.fileno())
        self._sip.close()
        for leg in self.legs.values():
            self._loop.remove_reader(leg.rtp.fileno())
            leg.rtp.close()

    def _socket(self, port: int = 0) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        made.bind((outside.PHONES, port))
        return made

    def _leg(self, call_id: str, kind: str, node: Address, *, caller: bool, speaks: bool) -> Leg:
        leg = Leg(call_id, kind, caller, node, self._socket(), speaks=speaks, began=time.monotonic())
        leg.octets = (0, 0, next(self._numbers) * 65537)
        self.legs[call_id] = leg
        self._loop.add_reader(leg.rtp.fileno(), self._audio, leg)
        return leg

    def turn_to(self, nodes: list[str]) -> None:
        """Calls are placed at these from now on."""
        self._nodes = itertools.cycle(nodes)

    # -- calling -------------------------------------------------------------------------------------------------------

    def call(self, number: str, kind: str, *, speaks: bool = True) -> Leg:
        """Place a call at the next node."""
        host, index = next(self._nodes), next(self._numbers)
        leg = self._leg(f"{self._prefix}-{index}@lab", kind, (host, SIP_PORT), caller=True, speaks=speaks)
        leg.local = f"<sip:+1555{index:07d}@{outside.PHONES}>;tag=l{index}"
        leg.remote, leg.target = f"<sip:{number}@{host}>", f"sip:{number}@{host}:{SIP_PORT}"
        self._invite(leg, 0)
        return leg

    def _invite(self, leg: Leg, tries: int) -> None:
        if leg.status >= 200 or leg.ended:
            return
        if tries == TRIES:
            leg.ended, leg.why = time.monotonic(), "no answer"
            return
        if not leg.status:
            self._send(self._request(leg, "INVITE", 1, self._sdp(leg)), leg.node)
        self._loop.call_later(T1_S * 2**tries, self._invite, leg, tries + 1)

    def hang_up(self, leg: Leg) -> None:
        """Send BYE where the other side now is, until it is answered."""
        if leg.up:
            leg.ended, leg.why = time.monotonic(), "ours"
            leg.sequence += 1
            self._bye(leg, 0)

    def _bye(self, leg: Leg, tries: int) -> None:
        if leg.hang_up_answered or tries == TRIES:
            return
        self._send(self._request(leg, "BYE", leg.sequence), self._where(leg))
        self._loop.call_later(T1_S * 2**tries, self._bye, leg, tries + 1)

    def _where(self, leg: Leg) -> Address:
        found = _HOST.search(leg.route[0] if leg.route else leg.target)
        return (found[1], int(found[2] or SIP_PORT)) if found else leg.node

    def _request(self, leg: Leg, method: str, sequence: int, body: str = "") -> str:
        branch = f"z9hG4bK{method}{sequence}{leg.call_id.partition('@')[0]}"
        return (
            f"{method} {leg.target} SIP/2.0\r\nVia: SIP/2.0/UDP {outside.PHONES}:{PORT};rport;branch={branch}\r\n"
            + "".join(f"Route: {one}\r\n" for one in leg.route)
            + f"Max-Forwards: 70\r\nFrom: {leg.local}\r\nTo: {leg.remote}\r\nCall-ID: {leg.call_id}\r\n"
            f"CSeq: {sequence} {method}\r\n" + self._tail(body)
        )

    def _tail(self, body: str) -> str:
        kind = "Content-Type: application/sdp\r\n" if body else ""
        contact = f"Contact: <sip:lab@{outside.PHONES}:{PORT}>\r\n"
        return f"{contact}Allow: INVITE, ACK, BYE, CANCEL, OPTIONS\r\n{kind}Content-Length: {len(body)}\r\n\r\n{body}"

    def _sdp(self, leg: Leg) -> str:
        return (
            f"v=0\r\no=- 1 {leg.reinvites + 1} IN IP4 {outside.PHONES}\r\ns=-\r\nc=IN IP4 {outside.PHONES}\r\nt=0 0\r\n"
            f"m=audio {leg.rtp.getsockname()[1]} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n"
            "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
        )

    def _send(self, text: str, to: Address) -> None:
        try:
            self._sip.sendto(text.encode(), to)
        except OSError:
            pass  # as if the network had lost it: it is sent again

    # -- being called, and told ----------------------------------------------------------------------------------------

    def _read(self) -> None:
        while True:
            try:
                data, source = self._sip.recvfrom(65536)
            except BlockingIOError:
                return
            except OSError:
                continue
            message = Message.parse(data)
            if message is None:
                continue
            leg = self.legs.get(message.get("call-id"))
            if leg is not None:
                leg.note(f"< {source[0]} {message.first} / {message.get('cseq')} {message.get('reason')}")
            if message.first.startswith("SIP/2.0 "):
                if leg is not None:
                    self._response(leg, int(message.first[8:11]), message)
            else:
                self._incoming(leg, message, source)

    def _response(self, leg: Leg, status: int, message: Message) -> None:
        method = message.get("cseq").rpartition(" ")[2]
        if method == "BYE":
            leg.hang_up_answered = leg.hang_up_answered or status >= 200
        elif method == "INVITE" and leg.caller:
            leg.status = max(leg.status, status)
            if status >= 200:
                self._final(leg, status, message)

    def _final(self, leg: Leg, status: int, message: Message) -> None:
        request = leg.target
        if status < 300:
            if not leg.answered:
                leg.answered = time.monotonic()
                leg.remote, leg.to_media = message.get("to"), message.media()
                leg.route = message.route()[::-1]
                found = _URI.search(message.get("contact"))
                leg.target = found[1] if found else leg.target
            self._send(self._request(leg, "ACK", 1), self._where(leg))
        else:
            leg.remote, leg.target = message.get("to"), request
            self._send(self._request(leg, "ACK", 1).replace("z9hG4bKACK", "z9hG4bKINVITE"), leg.node)
            leg.ended, leg.why = leg.ended or time.monotonic(), str(status)

    def _incoming(self, leg: Leg | None, message: Message, source: Address) -> None:
        method = message.first.partition(" ")[0]
        if method == "ACK":
            return
        if method == "INVITE":
            if leg is None:
                leg = self._called(message, source)
            else:
                leg.reinvites += not message.get("cseq").startswith(f"{leg.status} ")
            self._accept(leg, message, source)
        elif leg is None:
            self._answer("481 Gone", message, source)
        else:
            self._answer("200 OK", message, source)
            if method == "BYE" and not leg.ended:
                leg.ended, leg.why = time.monotonic(), "theirs"

    def _called(self, message: Message, source: Address) -> Leg:
        leg = self._leg(message.get("call-id"), "callee", source, caller=False, speaks=True)
        leg.local, leg.remote = f"{message.get('to')};tag=c{len(self.legs)}", message.get("from")
        leg.route = message.route()
        leg.answered = time.monotonic()
        return leg

    def _accept(self, leg: Leg, message: Message, source: Address) -> None:
        """Answer an INVITE, the first or a later one: whoever sent it is whom we talk to from now on."""
        if leg.ended:
            self._answer("481 Gone", message, source)
            return
        found = _URI.search(message.get("contact"))
        if found:
            leg.target = found[1]
        leg.to_media = message.media() or leg.to_media
        leg.newest = leg.to_media[0] if leg.to_media else leg.newest
        if not leg.caller:
            leg.status = int(message.get("cseq").partition(" ")[0] or 0)
        self._answer("200 OK", message, source, leg.local, self._sdp(leg))

    def _answer(self, status: str, message: Message, source: Address, to: str = "", body: str = "") -> None:
        to = to or message.get("to")
        leg = self.legs.get(message.get("call-id"))
        if leg is not None:
            leg.note(f"> {source[0]} {status} / {message.get('cseq')}")
        self._send(f"SIP/2.0 {status}\r\n{message.echo()}To: {to}\r\n" + self._tail(body), source)

    # -- audio ---------------------------------------------------------------------------------------------------------

    def _audio(self, leg: Leg) -> None:
        now = time.monotonic()
        while True:
            try:
                data, (host, _) = leg.rtp.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError:
                continue
            if len(data) < 2 or data[1] in RTCP:
                continue
            if leg.heard and now - leg.heard > QUIET_S:
                leg.silences.append((leg.heard, now - leg.heard))
            leg.first_heard = leg.first_heard or now
            leg.heard = now
            leg.packets += 1
            known = leg.sources.get(host)
            if known is None:
                leg.newest = host
            elif host != leg.newest:
                leg.stale += 1
            leg.sources[host] = (now, (known[1] if known else 0) + 1)

    async def _pace(self) -> None:
        due = self._loop.time()
        for tick in itertools.count():
            due = due + TICK_S if self._loop.time() - due < LATEST_S else self._loop.time() + TICK_S
            await asyncio.sleep(due - self._loop.time())
            for leg in list(self.legs.values()):
                if leg.up and leg.to_media and (leg.speaks or tick % KEEP_ALIVE_TICKS == 0):
                    self._say(leg)

    def _say(self, leg: Leg) -> None:
        sequence, timestamp, ssrc = leg.octets
        head = b"\x80\x00" + (sequence & 0xFFFF).to_bytes(2) + (timestamp & 0xFFFFFFFF).to_bytes(4) + ssrc.to_bytes(4)
        leg.octets = (sequence + 1, timestamp + 160, ssrc)
        try:
            assert leg.to_media is not None
            leg.rtp.sendto(head + FRAME, leg.to_media)
        except OSError:
            pass  # its host is not there: it will be told by SIP, or not at all
