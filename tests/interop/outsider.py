"""Who is on the other side of an edge proxy, made of sockets and strings: a phone behind a NAT, a carrier; and a node
that refuses everything."""

import socket
import threading
from typing import Any

from tests.interop.raw_sip import MAX_DATAGRAM, PATIENCE_S, Message, RawCaller, read

INSIDE = "10.9.8.7"
"""What a phone behind a NAT takes for its address."""
COPIED = ("Via", "From", "To", "Call-ID", "CSeq", "Record-Route")
NUMBER = "+12015550100"
HEARD_S = 0.2


class Outsider(RawCaller):
    """See the module. `says` is the address that it tells of itself. `sources` are all that it has heard from."""

    def __init__(self, host: str, edge: Any = None, *, says: str = "") -> None:
        at, port = (edge.host, edge.port) if edge is not None else ("127.0.0.1", 9)
        super().__init__(at, port, NUMBER, host, sender="+12025550133")
        self._says = says or host
        self.routes: list[str] = []
        self.sources: set[tuple[str, int]] = set()

    @property
    def contact(self) -> str:
        return f"{self._says}:{self.sip.getsockname()[1]}"

    def offer(self) -> str:
        return super().offer().replace(f"IP4 {self.host}", f"IP4 {self._says}")

    def message(self, method: str, *, headers: Any = (), **more: Any) -> str:
        return super().message(method, headers=[*headers, *self.routes], **more)

    def receive(self, wanted: Any, timeout_s: float = PATIENCE_S) -> Message:
        self.sip.settimeout(timeout_s)
        while True:
            data, source = self.sip.recvfrom(MAX_DATAGRAM)
            self.sources.add(source)
            got = read(data)
            if wanted(got):
                return got

    def up(self, answer: Message) -> None:
        """The route that the edge has put itself into."""
        self.routes = [f"Route: {line.partition(':')[2].strip()}" for line in reversed(answer.headers("Record-Route"))]
        super().up(answer)

    def rings(self) -> None:
        """Let an INVITE ring."""
        invite = self.receive(lambda message: message.method == "INVITE")
        lines = [line for name in COPIED for line in invite.headers(name)]
        lines = [line + ";tag=callee" if line.startswith("To:") else line for line in lines]
        contact = f"Contact: <sip:{self.contact}>"
        self.send("\r\n".join(["SIP/2.0 180 Ringing", *lines, contact, "Content-Length: 0", "", ""]))

    def takes_invite(self) -> None:
        """Answer an INVITE, or a re-INVITE."""
        invite = self.receive(lambda message: message.method == "INVITE")
        if not invite.header("To").partition(";tag=")[2]:  # a call: from here on it is the other side's
            self.call_id, self.to = invite.header("Call-ID"), invite.header("From")
            self.me = f"{invite.header('To')};tag=callee"
            self.routes = [f"Route: {line.partition(':')[2].strip()}" for line in invite.headers("Record-Route")]
        lines = [line for name in COPIED for line in invite.headers(name)]
        lines = [line + ";tag=callee" if line.startswith("To:") and ";tag=" not in line else line for line in lines]
        body = self.offer()
        lines += [f"Contact: <sip:{self.contact}>", "Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        self.send("\r\n".join(["SIP/2.0 200 OK", *lines, "", body]))
        self.target = invite.header("Contact").partition("<")[2].partition(">")[0]
        sdp = invite.body.split("\r\n")
        host = next(line.split()[-1] for line in sdp if line.startswith("c="))
        self.remote_rtp = host, next(int(line.split()[1]) for line in sdp if line.startswith("m=audio"))
        self.branch = ""

    def is_heard(self) -> None:
        """Say something, as whoever wants to be found does, until something comes from where the other side says."""
        packet = b"\x80\x00" + b"\x00\x01" * 5 + b"\xff" * 160
        for _ in range(int(PATIENCE_S / HEARD_S)):
            self.rtp.sendto(packet, self.remote_rtp)
            self.rtp.settimeout(HEARD_S)
            try:
                if self.rtp.recvfrom(MAX_DATAGRAM)[1] == self.remote_rtp:
                    return
            except TimeoutError:
                continue
        raise AssertionError("no audio")


class Refusing:
    """A node that is there, and takes no calls: 503. `asked` are the methods of what came."""

    def __init__(self, host: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self.host, self.port = self._socket.getsockname()
        self.asked: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            data, source = self._socket.recvfrom(MAX_DATAGRAM)
            if not data:
                return
            request = read(data)
            self.asked.append(request.method)
            if request.method == "ACK" or request.status:
                continue
            line = "SIP/2.0 200 OK" if request.method == "OPTIONS" else "SIP/2.0 503 Service Unavailable"
            copied = [one for name in ("Via", "From", "To", "Call-ID", "CSeq") for one in request.headers(name)]
            self._socket.sendto("\r\n".join([line, *copied, "Content-Length: 0", "", ""]).encode(), source)

    def close(self) -> None:
        """No longer there."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.sendto(b"", (self.host, self.port))
        self._thread.join(PATIENCE_S)
        self._socket.close()
