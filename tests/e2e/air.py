"""A SIP peer for crash tests: many callers and callees with audio both ways, on a thread of their own.

    air = Air()                      # a gateway at air.port, too: what is called there picks up
    call = air.dials(sip_port, "+15551230000", caller="+15550001000")
    call.press("5"); call.hangs_up()
    call.gap(since)                  # longest silence

Every call has an RTP socket of its own and keeps when each packet came, from where, and what was in it.
"""

import re
import select
import socket
import threading
import time
from collections import deque
from itertools import pairwise

from trunkline.rtp import g711, packet
from trunkline.rtp.telephone_event import Payload

TICK_S = 0.02
LATE_S = 0.008
"""By so much a packet may leave late before who hears it has to wait."""
FRAME = 160
REPEAT_S = 0.5
TRIES = 6
EVENT = 101
KEYS = "0123456789*#ABCD"
TONE = g711.encode(b"".join((6000 if i % 16 < 8 else -6000).to_bytes(2, "little", signed=True) for i in range(FRAME)))
"""What they say: 500 Hz."""

_HEADER = re.compile(r"^([A-Za-z-]+)\s*:\s*(.*)$")
_PORT = re.compile(r"m=audio (\d+)")


class Message:
    """A SIP message, as far as it is needed."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.decode().partition("\r\n\r\n")
        self.first, *lines = head.split("\r\n")
        self.headers: dict[str, list[str]] = {}
        for line in lines:
            found = _HEADER.match(line)
            if found:
                self.headers.setdefault(found[1].lower(), []).append(found[2])

    def get(self, name: str) -> str:
        return self.headers.get(name, [""])[0]

    @property
    def method(self) -> str:
        return self.get("cseq").split()[-1]

    @property
    def status(self) -> int:
        return int(self.first.split()[1]) if self.first.startswith("SIP/2.0") else 0


class Heard:
    """One packet that came."""

    __slots__ = ("at", "packet", "port")

    def __init__(self, at: float, port: int, data: bytes) -> None:
        self.at = at
        self.port = port
        self.packet = packet.parse(data)


class Call:
    """One leg, seen from outside."""

    def __init__(self, air: "Air", call_id: str, number: str) -> None:
        self.air = air
        self.call_id = call_id
        self.number = number
        """Its own."""
        self.rtp = air.udp()
        self.target: tuple[str, int] | None = None
        self.remote_uri = self.contact = self.local = self.remote = ""
        self.cseq = 1
        self.status = 0
        self.up_at = self.ended_at = 0.0
        self.ended_by = ""
        self.heard: list[Heard] = []
        self.talks = True
        """Whether it sends audio."""
        self.waiting: deque[tuple[int, bytes, bool]] = deque()
        self.sequence, self.timestamp = 1, 1000
        self.target_rtp: tuple[str, int] | None = None
        self.event_stamp: int | None = None
        self.ssrc = 0
        """Of the audio that comes; 0 until it does."""

    # -- what tests do

    def press(self, key: str) -> None:
        """A key of 100 ms, as telephone-events."""
        code = KEYS.index(key)
        for tick in range(1, 6):
            self.waiting.append((EVENT, Payload(code, False, tick * FRAME).encode(), tick == 1))
        for _ in range(3):
            self.waiting.append((EVENT, Payload(code, True, 5 * FRAME).encode(), False))

    def hangs_up(self) -> None:
        self.air.later(lambda: self.air.bye(self, TRIES))

    @property
    def up(self) -> bool:
        return bool(self.up_at) and not self.ended_at

    @property
    def ports(self) -> set[int]:
        """Where its audio came from."""
        return {one.port for one in self.heard}

    def gap(self, since: float, until: float = 0.0) -> float:
        """The longest time without a packet between two times, in seconds."""
        until = until or time.monotonic()
        times = [since, *(one.at for one in list(self.heard) if since < one.at < until), until]
        return max(b - a for a, b in pairwise(times))

    def missed(self) -> list[tuple[float, float]]:
        """When the server left out what was due: between which two packets."""
        both = pairwise([one for one in list(self.heard) if one.packet.payload_type == 0])
        return [(a.at, b.at) for a, b in both if b.packet.timestamp - a.packet.timestamp & 0xFFFFFFFF != FRAME]

    def frames(self, since: float = 0.0) -> list[bytes]:
        """The audio that came."""
        return [one.packet.payload for one in list(self.heard) if one.at >= since and one.packet.payload_type == 0]


class Air:
    """See the module."""

    def __init__(self) -> None:
        self.sip = self.udp()
        self.port = self.sip.getsockname()[1]
        self.calls: dict[str, Call] = {}
        self.rings = False
        """Whether those who are called only let it ring."""
        self.late: list[tuple[float, float]] = []
        """When what was due was not said: from, until."""
        self._epoll = select.epoll()
        self._by_fd: dict[int, Call] = {}
        self._epoll.register(self.sip, select.EPOLLIN)
        self._work: deque = deque()
        self._count = 0
        self._end = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @staticmethod
    def udp() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        made.setblocking(False)
        made.bind(("127.0.0.1", 0))
        return made

    def close(self) -> None:
        self._end = True
        self._thread.join()
        for call in self.calls.values():
            call.rtp.close()
        self.sip.close()
        self._epoll.close()

    def later(self, work: object, after_s: float = 0.0) -> None:
        """Have something done on the thread."""
        self._work.append((time.monotonic() + after_s, work))

    def forget(self) -> None:
        """Know of no call any more; nothing of them is heard from then on."""
        forgotten = threading.Event()

        def work() -> None:
            for call in self.calls.values():
                self._epoll.unregister(call.rtp)
                del self._by_fd[call.rtp.fileno()]
                call.rtp.close()
            self.calls.clear()
            forgotten.set()

        self.later(work)
        assert forgotten.wait(TRIES)

    def dials(self, port: int, number: str, caller: str) -> Call:
        """Call a number of the server's."""
        self._count += 1
        call = Call(self, f"air{self._count}-{self.port}", caller)
        call.target = ("127.0.0.1", port)
        call.remote_uri = f"sip:{number}@127.0.0.1:{port}"
        call.local, call.remote = f"<sip:{caller}@127.0.0.1:{self.port}>;tag=a{self._count}", f"<{call.remote_uri}>"
        self.calls[call.call_id] = call
        self._by_fd[call.rtp.fileno()] = call
        self._epoll.register(call.rtp, select.EPOLLIN)
        self.later(lambda: self._invite(call, TRIES))
        return call

    # -- the thread

    def _run(self) -> None:
        tick = time.monotonic()
        while not self._end:
            now = time.monotonic()
            if now >= tick:
                if now >= tick + LATE_S:
                    self.late.append((tick, now))
                self._talk()
                tick = max(tick + TICK_S, now - TICK_S)
            for _ in range(len(self._work)):
                due, work = self._work.popleft()
                if due <= now:
                    work()
                else:
                    self._work.append((due, work))
            for fd, _ in self._epoll.poll(max(0.0, tick - time.monotonic())):
                if fd == self.sip.fileno():
                    self._signal()
                else:
                    self._hear(self._by_fd[fd])

    def _hear(self, call: Call) -> None:
        while True:
            try:
                data, source = call.rtp.recvfrom(2048)
            except BlockingIOError:
                return
            heard = Heard(time.monotonic(), source[1], data)
            # What other tests' servers still send to a port that was theirs has another SSRC, and does not count.
            call.ssrc = call.ssrc or (heard.packet.ssrc if call.up_at else 0)
            if heard.packet.ssrc == call.ssrc:
                call.heard.append(heard)

    def _talk(self) -> None:
        for call in list(self.calls.values()):
            if call.up and call.target_rtp is not None and call.talks:
                kind, payload, marker = call.waiting.popleft() if call.waiting else (0, TONE, False)
                if kind != EVENT:
                    stamp = call.timestamp
                    call.event_stamp = None
                else:
                    call.event_stamp = call.timestamp if marker or call.event_stamp is None else call.event_stamp
                    stamp = call.event_stamp
                one = packet.Packet(
                    payload_type=kind, sequence=call.sequence, timestamp=stamp, ssrc=7, marker=marker, payload=payload
                )
                call.sequence += 1
                call.timestamp += FRAME
                try:
                    call.rtp.sendto(one.encode(), call.target_rtp)
                except OSError:
                    continue

    def _sdp(self, call: Call) -> str:
        return (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {call.rtp.getsockname()[1]} RTP/AVP 0 {EVENT}\r\na=rtpmap:0 PCMU/8000\r\n"
            f"a=rtpmap:{EVENT} telephone-event/8000\r\na=fmtp:{EVENT} 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
        )

    def _request(self, call: Call, method: str, uri: str, cseq: int, body: str = "") -> None:
        branch = f"z9hG4bK{method}{cseq}{call.call_id}"
        kind = "Content-Type: application/sdp\r\n" if body else ""
        self._send(
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{self.port};rport;branch={branch}\r\n"
            f"Max-Forwards: 70\r\nFrom: {call.local}\r\nTo: {call.remote}\r\nCall-ID: {call.call_id}\r\n"
            f"CSeq: {cseq} {method}\r\nContact: <sip:air@127.0.0.1:{self.port}>\r\n{kind}"
            f"Content-Length: {len(body)}\r\n\r\n{body}",
            call.target,
        )

    def _send(self, text: str, to: tuple[str, int]) -> None:
        try:
            self.sip.sendto(text.encode(), to)
        except OSError:
            return

    def _invite(self, call: Call, tries: int) -> None:
        if not call.status and tries:
            self._request(call, "INVITE", call.remote_uri, 1, self._sdp(call))
            self.later(lambda: self._invite(call, tries - 1), REPEAT_S)

    def bye(self, call: Call, tries: int) -> None:
        """Hang up, and again until that is heard."""
        if not call.ended_at and tries:
            self._request(call, "BYE", call.contact, 1000, "")
            self.later(lambda: self.bye(call, tries - 1), REPEAT_S)

    def _signal(self) -> None:
        while True:
            try:
                data, source = self.sip.recvfrom(65536)
            except BlockingIOError:
                return
            message = Message(data)
            call = self.calls.get(message.get("call-id"))
            if message.status:
                if call is not None:
                    self._response(call, message)
            elif message.method == "INVITE":
                self._called(message, source, call)
            elif message.method == "BYE":
                self._answer(message, source, "200 OK")
                if call is not None and not call.ended_at:
                    call.ended_at, call.ended_by = time.monotonic(), "server"
            elif message.method == "CANCEL":
                self._answer(message, source, "200 OK")
                if call is not None:
                    call.ended_at, call.ended_by = time.monotonic(), "cancel"
            elif message.method != "ACK":
                self._answer(message, source, "200 OK")

    def _response(self, call: Call, message: Message) -> None:
        if message.method == "BYE":
            if message.status >= 200:
                call.ended_at, call.ended_by = call.ended_at or time.monotonic(), call.ended_by or "us"
            return
        if message.method != "INVITE":
            return
        call.status = max(call.status, message.status)
        if message.status < 200:
            return
        call.remote = message.get("to")
        contact = re.search(r"<([^>]+)>", message.get("contact"))
        call.contact = contact[1] if contact else call.remote_uri
        self._request(call, "ACK", call.contact, 1)
        if message.status >= 300:
            call.ended_at, call.ended_by = call.ended_at or time.monotonic(), call.ended_by or "refused"
        elif not call.up_at:
            call.target_rtp = ("127.0.0.1", int(_PORT.search(message.body)[1]))
            call.up_at = time.monotonic()

    def _called(self, message: Message, source: tuple[str, int], call: Call | None) -> None:
        """Somebody of ours is called: picks up."""
        if call is None:
            number = re.search(r"sips?:([^@>;]+)", message.first)[1]
            call = Call(self, message.get("call-id"), number)
            call.target = source
            call.remote, call.local = message.get("from"), f"{message.get('to')};tag=b{len(self.calls)}"
            call.contact = re.search(r"<([^>]+)>", message.get("contact"))[1]
            call.target_rtp = ("127.0.0.1", int(_PORT.search(message.body)[1]))
            self.calls[call.call_id] = call
            self._by_fd[call.rtp.fileno()] = call
            self._epoll.register(call.rtp, select.EPOLLIN)
        if self.rings:
            self._answer(message, source, "180 Ringing", call=call)
            return
        self._answer(message, source, "200 OK", self._sdp(call), call)
        call.up_at = call.up_at or time.monotonic()

    def _answer(
        self, message: Message, source: tuple[str, int], status: str, body: str = "", call: Call | None = None
    ) -> None:
        via = "".join(f"Via: {one}\r\n" for one in message.headers["via"])
        to = call.local if call is not None else message.get("to")
        kind = "Content-Type: application/sdp\r\n" if body else ""
        self._send(
            f"SIP/2.0 {status}\r\n{via}From: {message.get('from')}\r\nTo: {to}\r\n"
            f"Call-ID: {message.get('call-id')}\r\nCSeq: {message.get('cseq')}\r\n"
            f"Contact: <sip:air@127.0.0.1:{self.port}>\r\n{kind}Content-Length: {len(body)}\r\n\r\n{body}",
            source,
        )
