"""A SIP caller for load: places calls at a rate over UDP, hears the first packet of each, hangs up after a hold.

One socket for SIP and a few for RTP; a call's audio is told by the port that it comes from, which the 200's SDP names.
Lost messages are repeated after RFC 3261's T1, once a second; what is not answered then counts as failed.
"""

import asyncio
import re
import socket
import time
from dataclasses import dataclass, field

RTP_SOCKETS = 8
REPEAT_S = 0.5
"""T1."""
ANSWER_S = 5.0
"""A call without a final response by then has failed."""
BUFFER_BYTES = 8 << 20

_PORT = re.compile(rb"m=audio (\d+)")
_TAG = re.compile(rb"\r\n(?:To|t):[^\r\n]*;tag=([^;\s>]+)", re.IGNORECASE)
_CONTACT = re.compile(rb"\r\n(?:Contact|m):\s*<?(sip:[^>\r\n]+)", re.IGNORECASE)
_KEY = re.compile(rb"\r\n(?:Call-ID|i):\s*(\d+)@bench", re.IGNORECASE)
_CSEQ = re.compile(rb"\r\nCSeq:\s*\d+ (\w+)", re.IGNORECASE)
_ECHOED = re.compile(rb"\r\n((?:Via|v|From|f|To|t|Call-ID|i|CSeq):[^\r\n]*)", re.IGNORECASE)


@dataclass(slots=True)
class Call:
    """One call's times, by the monotonic clock; 0 where it did not come so far."""

    key: int
    due: float
    answered: float = 0.0
    heard: float = 0.0
    ended: float = 0.0
    status: int = 0
    tag: bytes = b""
    target: bytes = b""
    port: int = 0
    repeats: int = 0


@dataclass
class Caller:
    """See the module. `number` is called at `port` on 127.0.0.1."""

    port: int
    number: str
    hold_s: float = 1.0
    calls: dict[int, Call] = field(default_factory=dict, repr=False)
    packets: int = 0

    async def __aenter__(self) -> "Caller":
        self._loop = asyncio.get_running_loop()
        self._sip = self._socket()
        self._sip.connect(("127.0.0.1", self.port))
        self._rtp = [self._socket() for _ in range(RTP_SOCKETS)]
        self._by_port: dict[int, Call] = {}
        self._open = 0
        self._loop.add_reader(self._sip.fileno(), self._signal)
        for one in self._rtp:
            self._loop.add_reader(one.fileno(), self._audio, one)
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in (self._sip, *self._rtp):
            self._loop.remove_reader(one.fileno())
            one.close()

    def _socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        made.bind(("127.0.0.1", 0))
        return made

    async def run(self, rate: float, seconds: float, first_key: int = 0) -> list[Call]:
        """Place `rate` calls a second in an open loop; returns when each has ended, or failed."""
        began = time.monotonic()
        made = []
        for index in range(int(rate * seconds)):
            due = began + index / rate
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            call = Call(first_key + index, due)
            self.calls[call.key] = call
            made.append(call)
            self._invite(call)
        end = time.monotonic() + ANSWER_S + self.hold_s + 1
        while time.monotonic() < end and any(not call.ended and not call.status >= 300 for call in made):
            await asyncio.sleep(0.05)
        return made

    # -- messages --------------------------------------------------------------------------------------------

    def _head(self, method: str, call: Call, sequence: int, branch: str, target: str, tag: str = "") -> str:
        host = f"127.0.0.1:{self._sip.getsockname()[1]}"
        return (
            f"{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {host};rport;branch=z9hG4bK{branch}{call.key}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:+15550001111@{host}>;tag=c{call.key}\r\n"
            f"To: <sip:{self.number}@127.0.0.1:{self.port}>{tag}\r\nCall-ID: {call.key}@bench\r\n"
            f"CSeq: {sequence} {method}\r\nContact: <sip:bench@{host}>\r\n"
        )

    def _invite(self, call: Call) -> None:
        if call.answered or call.status >= 300 or call.repeats > 6 or self._sip.fileno() < 0:
            return
        rtp = self._rtp[call.key % RTP_SOCKETS].getsockname()[1]
        sdp = (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {rtp} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
            "a=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
        )
        head = self._head("INVITE", call, 1, "i", f"sip:{self.number}@127.0.0.1:{self.port}")
        self._send(f"{head}Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}")
        call.repeats += 1
        if not call.status:
            self._loop.call_later(REPEAT_S * 2 ** (call.repeats - 1), self._again, call)

    def _again(self, call: Call) -> None:
        if not call.status:
            self._invite(call)

    def _send(self, text: str) -> None:
        try:
            self._sip.send(text.encode())
        except BlockingIOError:
            pass  # as if the network had lost it

    def _ack(self, call: Call) -> None:
        head = self._head("ACK", call, 1, "a", call.target.decode(), f";tag={call.tag.decode()}")
        self._send(f"{head}Content-Length: 0\r\n\r\n")

    def _bye(self, call: Call) -> None:
        if call.ended or self._sip.fileno() < 0:
            return
        head = self._head("BYE", call, 2, "b", call.target.decode(), f";tag={call.tag.decode()}")
        self._send(f"{head}Content-Length: 0\r\n\r\n")
        self._loop.call_later(REPEAT_S, self._bye, call)

    def _signal(self) -> None:
        while True:
            try:
                data = self._sip.recv(8192)
            except BlockingIOError:
                return
            found = _KEY.search(data)
            call = self.calls.get(int(found[1])) if found else None
            if call is None:
                continue
            if data.startswith(b"SIP/2.0 "):
                self._response(call, int(data[8:11]), data)
            else:  # a BYE from the other side
                call.ended = call.ended or time.monotonic()
                echoed = b"\r\n".join(_ECHOED.findall(data)).decode()
                self._send(f"SIP/2.0 200 OK\r\n{echoed}\r\nContent-Length: 0\r\n\r\n")

    def _response(self, call: Call, status: int, data: bytes) -> None:
        method = _CSEQ.search(data)
        if method is None:
            return
        if method[1] == b"BYE":
            call.ended = call.ended or time.monotonic()
        elif method[1] == b"INVITE":
            call.status = max(call.status, status)
            if status >= 300:
                tag = _TAG.search(data)
                call.tag, call.target = tag[1] if tag else b"", f"sip:{self.number}@127.0.0.1:{self.port}".encode()
                head = self._head("ACK", call, 1, "i", call.target.decode(), f";tag={call.tag.decode()}")
                self._send(f"{head}Content-Length: 0\r\n\r\n")
            elif status >= 200:
                if not call.answered:
                    call.answered = time.monotonic()
                    call.tag, call.target = _TAG.search(data)[1], _CONTACT.search(data)[1]  # type: ignore[index]
                    call.port = int(_PORT.search(data)[1])  # type: ignore[index]
                    self._by_port[call.port] = call
                    self._loop.call_later(self.hold_s, self._bye, call)
                self._ack(call)

    def _audio(self, rtp: socket.socket) -> None:
        while True:
            try:
                _, source = rtp.recvfrom(512)
            except BlockingIOError:
                return
            self.packets += 1
            call = self._by_port.get(source[1])
            if call is not None and not call.heard:
                call.heard = time.monotonic()
