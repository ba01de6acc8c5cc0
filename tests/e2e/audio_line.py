"""A SIP line for the endpoints of audio_peer: dials, answers, re-INVITEs, hangs up; over UDP, without a stack."""

import itertools
import queue
import re
import secrets
import socket
import threading
from collections import deque
from collections.abc import Sequence

from tests.e2e.audio_peer import HOST, LAWS, Peer, Wire
from trunkline.sip.message import Request, Response, parse

WAIT_S = 60.0
REPEAT_S = 0.5
_PORT = re.compile(rb"m=audio (\d+)")


class Line:
    """One UDP port. `server` is where it dials."""

    def __init__(self, wire: Wire, server: tuple[str, int]) -> None:
        self.server = server
        self.wire = wire
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])
        self.uri = f"sip:line@{HOST}:{self.port}"
        self._answers: dict[str, queue.Queue[Response]] = {}
        self._calls: dict[str, Call] = {}
        self._expected: deque[Peer] = deque()
        self._taken: queue.Queue[Call] = queue.Queue()
        self._replies: dict[tuple[str, int, str], bytes] = {}
        wire.listen(self._socket, self._received)

    def dial(self, number: str, peer: Peer, caller: str = "+15550001111") -> "Call":
        """Call a number; returns once it is answered."""
        return self.dials(number, peer, caller).wait()

    def dials(self, number: str, peer: Peer, caller: str = "+15550001111") -> "Call":
        """Begin to call a number."""
        host, port = self.server
        call = Call(self, peer, f"{secrets.token_hex(8)}@{HOST}", f"sip:{number}@{host}:{port}")
        call.local = f"<sip:{caller}@{HOST}:{self.port}>;tag={secrets.token_hex(4)}"
        call.remote = f"<sip:{number}@{host}:{port}>"
        self._calls[call.id] = call
        call.invite = call.request("INVITE", call.sdp())
        call.send(call.invite)
        return call

    def expect(self, peer: Peer) -> None:
        """Let this endpoint answer the next call that comes."""
        self._expected.append(peer)

    def taken(self) -> "Call":
        """The next call that was answered."""
        return self._taken.get(timeout=WAIT_S)

    def queue_of(self, request: Request) -> "queue.Queue[Response]":
        """Where the responses to a request go."""
        return self._answers.setdefault(request.via.branch, queue.Queue())

    def put(self, data: bytes) -> None:
        """Send to the server."""
        self._socket.sendto(data, self.server)

    def close(self) -> None:
        self.wire.forget(self._socket)

    # -- in the wire's thread ----------------------------------------------------------------------------------

    def _received(self, at_ns: int, data: bytes) -> None:
        message = parse(data)
        if isinstance(message, Response):
            call = self._calls.get(message.call_id)
            if call is not None and message.cseq[1] == "INVITE" and message.status >= 200:
                call.acknowledge(message)
            waiting = self._answers.get(message.via.branch)
            if waiting is not None and message.status >= 200:
                waiting.put(message)
            return
        number, method = message.cseq
        key = (message.call_id, number, method)
        if method == "ACK":
            return
        if key not in self._replies:
            self._replies[key] = self._reply(message)
        self.put(self._replies[key])

    def _reply(self, request: Request) -> bytes:
        call = self._calls.get(request.call_id)
        if call is None and request.method == "INVITE" and self._expected:
            call = self._answer(request)
        if call is None:
            return Response.make(request, 481 if request.to_tag else 480).encode()
        if request.method == "INVITE":
            call.learn(request.body)
            headers = [("Contact", f"<{self.uri}>"), ("Content-Type", "application/sdp")]
            tag = call.local.rpartition("tag=")[2]
            return Response.make(request, 200, to_tag=tag, headers=headers, body=call.sdp()).encode()
        if request.method == "BYE":
            call.ended.set()
        return Response.make(request, 200).encode()

    def _answer(self, request: Request) -> "Call":
        contact = request.contact
        assert contact is not None
        call = Call(self, self._expected.popleft(), request.call_id, str(contact.uri))
        call.local = f"{request.headers.get('To')};tag={secrets.token_hex(4)}"
        call.remote = request.headers.get("From")
        self._calls[call.id] = call
        self._taken.put(call)
        return call


class Call:
    """One call of a line."""

    def __init__(self, line: Line, peer: Peer, call_id: str, target: str) -> None:
        self.line, self.peer, self.id, self.target = line, peer, call_id, target
        self.local = self.remote = ""
        self.direction = "sendrecv"
        self.host = HOST
        """What the c= line says."""
        self.codecs: Sequence[str] = (peer.codec,)
        self.ended = threading.Event()
        self.invite: Request | None = None
        self._cseq = itertools.count(1)
        self._version = 0
        self._offered: tuple[object, ...] = ()

    def sdp(self) -> bytes:
        """What the endpoint can and wants."""
        peer = self.peer
        now = (peer.port, self.codecs, self.direction, self.host)
        if now != self._offered:
            self._version, self._offered = self._version + 1, now
        types = [LAWS[codec] for codec in self.codecs] + ([peer.event_type] if peer.event_type >= 0 else [])
        lines = [
            "v=0", f"o=- 1 {self._version} IN IP4 {HOST}", "s=-", f"c=IN IP4 {self.host}", "t=0 0",
            f"m=audio {peer.port} RTP/AVP {' '.join(map(str, types))}",
            *(f"a=rtpmap:{LAWS[codec]} {codec}/8000" for codec in self.codecs),
        ]  # fmt: skip
        if peer.event_type >= 0:
            lines += [f"a=rtpmap:{peer.event_type} telephone-event/8000", f"a=fmtp:{peer.event_type} 0-15"]
        lines += [f"a=ptime:{peer.ptime}", f"a={self.direction}", ""]
        return "\r\n".join(lines).encode()

    def request(self, method: str, body: bytes = b"", kind: str = "application/sdp") -> Request:
        """A request of this dialog."""
        headers = [
            ("Via", f"SIP/2.0/UDP {HOST}:{self.line.port};rport;branch=z9hG4bK{secrets.token_hex(8)}"),
            ("Max-Forwards", "70"), ("From", self.local), ("To", self.remote), ("Call-ID", self.id),
            ("CSeq", f"{next(self._cseq)} {method}"), ("Contact", f"<{self.line.uri}>"),
        ]  # fmt: skip
        if body:
            headers.append(("Content-Type", kind))
        return Request.make(method, self.target, headers=headers, body=body)

    def send(self, request: Request) -> None:
        self.line.queue_of(request)
        self.line.put(request.encode())

    def final(self, request: Request) -> Response:
        """The final response to a request that was sent; it is repeated meanwhile."""
        waiting = self.line.queue_of(request)
        for _ in range(int(WAIT_S / REPEAT_S)):
            try:
                return waiting.get(timeout=REPEAT_S)
            except queue.Empty:
                self.line.put(request.encode())
        raise AssertionError(
            f"no answer to {request.method}; the wire {'goes on' if self.line.wire.alive else 'broke'}"
        )

    def ask(self, request: Request) -> Response:
        """Send a request; its final response."""
        self.send(request)
        return self.final(request)

    def wait(self) -> "Call":
        """Until it is answered."""
        assert self.invite is not None
        response = self.final(self.invite)
        assert response.status == 200, response.start_line
        self.learn(response.body)
        return self

    def acknowledge(self, response: Response) -> None:
        """ACK to a final response."""
        if response.contact is not None:
            self.target = str(response.contact.uri)
        self.remote = response.headers.get("To")
        number = response.cseq[0]
        request = self.request("ACK")
        request.headers.set("CSeq", f"{number} ACK")
        if response.status >= 300:
            request.headers.set("Via", response.headers.get("Via"))
        self.line.put(request.encode())

    def learn(self, sdp: bytes) -> None:
        """Talk to where this says."""
        found = _PORT.search(sdp)
        if found and int(found[1]):
            self.peer.start((HOST, int(found[1])))

    def reinvite(self) -> Response:
        """Tell what has changed."""
        response = self.ask(self.request("INVITE", self.sdp()))
        if response.status == 200:
            self.learn(response.body)
        return response

    def info(self, key: str, duration_ms: int = 100) -> None:
        """A key as INFO."""
        body = f"Signal={key}\r\nDuration={duration_ms}\r\n".encode()
        response = self.ask(self.request("INFO", body, "application/dtmf-relay"))
        assert response.status == 200, (
            f"{response.start_line}, the call has {'' if self.ended.is_set() else 'not '}ended"
        )

    def hang_up(self) -> None:
        """BYE, unless the other side was first."""
        if not self.ended.is_set():
            self.ended.set()
            self.ask(self.request("BYE"))
        self.peer.close()
