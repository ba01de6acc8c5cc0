"""A caller made of plain sockets and strings, which can also do what no phone would: any header, source and SDP."""

import itertools
import os
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple

PATIENCE_S = 60.0
MAX_DATAGRAM = 65_536
_numbers = itertools.count(1)


class Message(NamedTuple):
    """A response (`status`) or a request (`method`)."""

    status: int
    method: str
    head: str
    body: str

    def header(self, name: str) -> str:
        """The first value; empty if there is none."""
        for line in self.head.split("\r\n")[1:]:
            found, _, value = line.partition(":")
            if found.strip().lower() == name.lower():
                return value.strip()
        return ""

    def headers(self, name: str) -> list[str]:
        """All lines of that name."""
        return [line for line in self.head.split("\r\n") if line.lower().startswith(f"{name.lower()}:")]

    @property
    def answers(self) -> str:
        """The method that a response is for."""
        return self.header("CSeq").rpartition(" ")[2]


def read(data: bytes) -> Message:
    """A message off the wire."""
    head, _, body = data.decode("utf-8", "replace").partition("\r\n\r\n")
    first, second, *_ = [*head.split("\r\n", 1)[0].split(" "), ""]
    if first.startswith("SIP/"):
        return Message(int(second), "", head, body)
    return Message(0, first, head, body)


def offer(host: str, port: int) -> str:
    """What a phone with G.711 and telephone-events offers."""
    return (
        f"v=0\r\no=raw 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\n"
        "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n"
    )


class RawCaller:
    """One call over UDP from `host` to the server at (`server`, `port`); it has an RTP socket, too."""

    def __init__(
        self, server: str, port: int, number: str, host: str = "127.0.0.1", sender: str = "+12025550100"
    ) -> None:
        self.host, self.server, self.sender = host, (server, port), sender
        self.sip = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sip.bind((host, 0))
        self.sip.settimeout(PATIENCE_S)
        self.rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rtp.bind((host, 0))
        self.call_id = f"{os.getpid()}-{next(_numbers)}-{os.urandom(4).hex()}@{host}"
        self.target = f"sip:{number}@{server}:{port}"
        self.to = f"<{self.target}>"
        self.tag = f"t{self.call_id.partition('@')[0]}"
        self.me = ""
        """Its own side of the dialog, if that is not what a caller says."""
        self.branch = ""
        self.remote_rtp = ("", 0)
        self._cseq = 0

    @property
    def contact(self) -> str:
        """Where it is reached."""
        return "{}:{}".format(*self.sip.getsockname())

    def close(self) -> None:
        """Close its sockets."""
        self.sip.close()
        self.rtp.close()

    def message(
        self, method: str, *, headers: Iterable[str] = (), body: str = "", kind: str = "application/sdp", cseq: int = 0
    ) -> str:
        """A request of this call."""
        if method not in ("ACK", "CANCEL") or not self.branch:
            self._cseq += not cseq
            self.branch = f"z9hG4bK{os.urandom(6).hex()}"
        lines = [
            f"{method} {self.target} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.contact};rport;branch={self.branch}",
            f"From: {self.me or f'<sip:{self.sender}@{self.host}>;tag={self.tag}'}",
            f"To: {self.to}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {cseq or self._cseq} {method}",
            "Max-Forwards: 70",
            f"Contact: <sip:{self.contact}>",
            *headers,
            *([f"Content-Type: {kind}"] if body else []),
            f"Content-Length: {len(body.encode())}",
        ]
        return "\r\n".join(lines) + "\r\n\r\n" + body

    def send(self, text: str | bytes) -> None:
        """Put a message on the wire."""
        self.sip.sendto(text.encode() if isinstance(text, str) else text, self.server)

    def offer(self) -> str:
        """Its session description."""
        return offer(self.host, self.rtp.getsockname()[1])

    def receive(self, wanted: Callable[[Message], bool], timeout_s: float = PATIENCE_S) -> Message:
        """The next message of that kind; others are dropped. Raises TimeoutError."""
        self.sip.settimeout(timeout_s)
        while True:
            got = read(self.sip.recv(MAX_DATAGRAM))
            if wanted(got):
                return got

    def final(self, method: str = "INVITE", timeout_s: float = PATIENCE_S) -> Message:
        """The final response to a request; a refused INVITE is acknowledged."""
        got = self.receive(lambda message: message.status >= 200 and message.answers == method, timeout_s)
        if method == "INVITE":
            self.to = got.header("To")
            if got.status >= 300:
                self.send(self.message("ACK"))
        return got

    def invite(self, *, headers: Iterable[str] = (), body: str | None = None) -> Message:
        """Call; the final response."""
        self.send(self.message("INVITE", headers=headers, body=self.offer() if body is None else body))
        return self.final()

    def calls(self) -> "RawCaller":
        """Call, and be answered."""
        answer = self.invite()
        assert answer.status == 200, answer.head
        self.up(answer)
        return self

    def up(self, answer: Message) -> None:
        """Take a 200 to the INVITE."""
        cseq = int(answer.header("CSeq").split()[0])
        self.target = answer.header("Contact").partition("<")[2].partition(">")[0]
        lines = answer.body.split("\r\n")
        host = next(line.split()[-1] for line in lines if line.startswith("c="))
        port = next(int(line.split()[1]) for line in lines if line.startswith("m=audio"))
        self.remote_rtp = host, port
        self.branch = ""
        self.send(self.message("ACK", cseq=cseq))

    def hang_up(self) -> int:
        """BYE; the status of its answer."""
        self.send(self.message("BYE"))
        return self.final("BYE").status
