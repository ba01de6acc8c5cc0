"""SIP messages: requests, responses, and how they are read from and written to the wire (RFC 3261 section 7).

Header text is UTF-8. Some senders use Latin-1 all the same: a message whose head is not UTF-8 is read, written and
answered as Latin-1, so that its tags and Call-ID come back byte for byte.

`parse` checks what every element needs to go on: start line, Via, From, To, Call-ID, CSeq and Contact. Their typed
forms are then at hand without errors, each read once. After a change of headers the properties follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from trunkline.sip.errors import MalformedMessage as MalformedMessage
from trunkline.sip.headers import (
    SPELLINGS,
    Field,
    Headers,
    NameAddr,
    Via,
    canonical,
    first_value,
    parse_list,
    split_values,
)
from trunkline.sip.uri import Uri

VERSION: Final = "SIP/2.0"
MAX_HEAD_BYTES: Final = 32 * 1024
"""Start line and headers of one message."""
MAX_HEADER_FIELDS: Final = 256
MAX_VIAS: Final = 100
"""Hops; Max-Forwards begins at 70 by the RFC's advice."""
MAX_CSEQ: Final = 2**31 - 1
MAX_MESSAGE_BYTES: Final = 64 * 1024
"""Default bound of one message."""

REASONS: Final[dict[int, str]] = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    182: "Queued",
    183: "Session Progress",
    199: "Early Dialog Terminated",
    200: "OK",
    202: "Accepted",
    204: "No Notification",
    300: "Multiple Choices",
    301: "Moved Permanently",
    302: "Moved Temporarily",
    305: "Use Proxy",
    380: "Alternative Service",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    410: "Gone",
    412: "Conditional Request Failed",
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    421: "Extension Required",
    422: "Session Interval Too Small",
    423: "Interval Too Brief",
    428: "Use Identity Header",
    429: "Provide Referrer Identity",
    433: "Anonymity Disallowed",
    436: "Bad Identity Info",
    437: "Unsupported Credential",
    438: "Invalid Identity Header",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    484: "Address Incomplete",
    485: "Ambiguous",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    489: "Bad Event",
    491: "Request Pending",
    493: "Undecipherable",
    494: "Security Agreement Required",
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Server Time-out",
    505: "Version Not Supported",
    513: "Message Too Large",
    580: "Precondition Failure",
    600: "Busy Everywhere",
    603: "Decline",
    604: "Does Not Exist Anywhere",
    606: "Not Acceptable",
    607: "Unwanted",
    608: "Rejected",
}
"""Default reason phrases (IANA's registry of SIP response codes)."""

_ONCE: Final = ("From", "To", "Call-ID", "CSeq", "Max-Forwards", "Content-Length", "Content-Type")
"""Headers that a message has at most once (RFC 3261 section 7.3.1)."""
_COPIED: Final = frozenset({"Via", "From", "Call-ID", "CSeq"})
"""What a response repeats as it was (section 8.2.6.2); To may get a tag."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+").fullmatch
_FOLD: Final = re.compile(r"\n[ \t]+").sub


class Message:
    """What requests and responses share."""

    __slots__ = ("_cache", "body", "charset", "headers")

    def __init__(self, headers: Headers, body: bytes = b"", charset: str = "utf-8") -> None:
        self.headers = headers
        self.body = body
        self.charset = charset
        self._cache: dict[str, tuple[str, Any]] = {}  # typed values beside the text they were read from

    def _typed(self, name: str, read: Any) -> Any:
        raw = self.headers.get(name)
        cached = self._cache.get(name)
        if cached is not None and cached[0] is raw:
            return cached[1]
        value = read(raw)
        self._cache[name] = (raw, value)
        return value

    @property
    def via(self) -> Via:
        """The topmost one."""
        via: Via = self._typed("via", _read_via)
        return via

    def mark_via(self, via: Via) -> None:
        """Write another Via in place of the only one."""
        text = str(via)
        self.headers.set("Via", text)
        self._cache["via"] = text, via

    @property
    def vias(self) -> list[Via]:
        """All, topmost first; MalformedMessage (400) if a lower one is malformed."""
        values = split_values(self.headers.all("via"))
        if len(values) > MAX_VIAS:
            raise MalformedMessage(483, "Too Many Hops")
        return [Via.parse(value) for value in values]

    @property
    def from_(self) -> NameAddr:
        address: NameAddr = self._typed("from", NameAddr.parse)
        return address

    @property
    def to(self) -> NameAddr:
        address: NameAddr = self._typed("to", NameAddr.parse)
        return address

    @property
    def from_tag(self) -> str:
        """Empty if there is none."""
        return self.from_.tag

    @property
    def to_tag(self) -> str:
        """Empty if there is none."""
        return self.to.tag

    @property
    def call_id(self) -> str:
        return self.headers.get("call-id")

    @property
    def cseq(self) -> tuple[int, str]:
        """Number and method."""
        pair: tuple[int, str] = self._typed("cseq", _read_cseq)
        return pair

    @property
    def contact(self) -> NameAddr | None:
        """The first one; `None` without one or with `*`."""
        address: NameAddr | None = self._typed("contact", _read_contact)
        return address

    @property
    def content_type(self) -> str:
        """Lower case, without parameters; empty if there is none."""
        return self.headers.get("content-type").partition(";")[0].strip().lower()

    @property
    def start_line(self) -> str:
        raise TypeError("neither request nor response")

    def encode(self) -> bytes:
        """The bytes to send. Content-Length is that of the body; line breaks in a value become spaces."""
        fields = self.headers.fields
        lines = [f"{name}: {value}" for name, value in fields if name != "Content-Length"]
        length = len(lines)
        text = "\r\n".join(lines)
        if text.count("\n") != length - 1 or text.count("\r") != length - 1:
            text = "\r\n".join([_one_line(line) for line in lines])
        start = _one_line(self.start_line)
        text = f"{start}\r\n{text}\r\nContent-Length: {len(self.body)}\r\n\r\n"
        try:
            head = text.encode(self.charset)
        except UnicodeEncodeError:
            head = text.encode("utf-8", "replace")
        return head + self.body


class Request(Message):
    """A request. `uri` is the Request-URI as on the wire."""

    __slots__ = ("method", "uri")

    def __init__(self, method: str, uri: str, headers: Headers, body: bytes = b"", charset: str = "utf-8") -> None:
        super().__init__(headers, body, charset)
        self.method = method
        self.uri = uri

    @classmethod
    def make(cls, method: str, uri: str, *, headers: Iterable[Field] = (), body: bytes = b"") -> Request:
        return cls(method, uri, Headers(headers), body)

    @property
    def request_uri(self) -> Uri:
        """Typed; one that came from `parse` is well-formed."""
        cached = self._cache.get("")
        if cached is not None and cached[0] is self.uri:
            uri: Uri = cached[1]
            return uri
        parsed = Uri.parse(self.uri)
        self._cache[""] = (self.uri, parsed)
        return parsed

    @property
    def start_line(self) -> str:
        return f"{self.method} {self.uri} {VERSION}"

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"


class Response(Message):
    """A response."""

    __slots__ = ("reason", "status")

    def __init__(self, status: int, reason: str, headers: Headers, body: bytes = b"", charset: str = "utf-8") -> None:
        super().__init__(headers, body, charset)
        self.status = status
        self.reason = reason

    @classmethod
    def make(
        cls,
        request: Request,
        status: int,
        reason: str = "",
        *,
        to_tag: str = "",
        headers: Iterable[Field] = (),
        body: bytes = b"",
    ) -> Response:
        """A response to `request` with what it must repeat (RFC 3261 sections 8.2.6 and 12.1.1).

        `to_tag` is added unless To has a tag already; a 100 never gets one. Works for `MalformedMessage.partial` too.
        """
        route = 100 < status < 300
        fields: list[Field] = []
        for field in request.headers.fields:
            name = field[0]
            if name in _COPIED or (name == "Record-Route" and route) or (name == "Timestamp" and status == 100):
                fields.append(field)
            elif name == "To":
                fields.append((name, _tagged(request, field[1], to_tag)) if to_tag and status != 100 else field)
        fields.extend([(canonical(name), value) for name, value in headers])
        return cls(status, reason or REASONS.get(status, ""), Headers.of_canonical(fields), body, request.charset)

    @property
    def start_line(self) -> str:
        return f"{VERSION} {self.status} {self.reason}"

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason}>"


def parse(data: bytes) -> Request | Response:
    """The message in one datagram. Raises MalformedMessage.

    The body ends where Content-Length says; without one, at the datagram's end (section 18.3).
    """
    data = data.lstrip(b"\r\n")
    end, body_at = find_head_end(data)
    if end < 0:
        if len(data) > MAX_HEAD_BYTES:
            raise MalformedMessage(513, "Message Too Large")
        raise MalformedMessage(400, "No end of headers", _partial_of(data))
    message = parse_head(data[:end])
    length = content_length(message)
    available = len(data) - body_at
    if length is None:
        length = available
    elif length > available:
        raise MalformedMessage(400, "Content-Length larger than the datagram", _answerable(message))
    message.body = data[body_at : body_at + length]
    return message


def find_head_end(data: bytes | bytearray, start: int = 0) -> tuple[int, int]:
    """Where the headers end and where the body begins, (-1, -1) while the blank line is missing.

    Bare line feeds are taken as line ends too.
    """
    end = data.find(b"\r\n\r\n", start)
    bare = data.find(b"\n\n", start, end if end >= 0 else len(data))
    if bare >= 0:
        return bare, bare + 2
    return (end, end + 4) if end >= 0 else (-1, -1)


def parse_head(head: bytes) -> Request | Response:
    """A message without its body, from the bytes before the blank line. Raises MalformedMessage."""
    message, error = _read_head(head)
    if error is None:
        try:
            _check(message)
        except MalformedMessage as malformed:
            # A copy: one that was raised knows this frame, and the two would wait for the garbage collector.
            error = MalformedMessage(malformed.status, malformed.reason)
    if error is not None:
        raise MalformedMessage(error.status, error.reason, _answerable(message))
    return message


def content_length(message: Message) -> int | None:
    """What Content-Length says, `None` without one. Raises MalformedMessage (400)."""
    raw = message.headers.get("content-length", "none")
    if raw == "none":
        return None
    if not raw.isascii() or not raw.isdigit() or len(raw) > 9:
        raise MalformedMessage(400, "Bad Content-Length", _answerable(message))
    return int(raw)


def _read_head(head: bytes) -> tuple[Request | Response, MalformedMessage | None]:
    """The message as far as it can be read, and what is wrong with it. Raises when nothing can be made of it."""
    if len(head) > MAX_HEAD_BYTES:
        raise MalformedMessage(513, "Message Too Large")
    charset = "utf-8"
    try:
        text = head.decode()
    except UnicodeDecodeError:
        charset = "latin-1"
        text = head.decode(charset)
    text = text.replace("\r\n", "\n")
    start, _, rest = text.partition("\n")
    if "\n " in rest or "\n\t" in rest or rest.startswith((" ", "\t")):
        rest = _FOLD(" ", rest)
    headers, error = _read_fields(rest)
    if "\r" in text:
        error = MalformedMessage(400, "Bare carriage return")
    message: Request | Response
    if start[:4].upper() == "SIP/":
        message, start_error = _read_status_line(start, headers, charset)
    else:
        message, start_error = _read_request_line(start, headers, charset)
    return message, start_error or error


def _read_fields(text: str) -> tuple[Headers, MalformedMessage | None]:
    fields: list[Field] = []
    index: dict[str, list[str]] = {}
    error: MalformedMessage | None = None
    lines = text.split("\n") if text else []
    if len(lines) > MAX_HEADER_FIELDS:
        return Headers(), MalformedMessage(513, "Too many headers")
    for line in lines:
        name, colon, value = line.partition(":")
        known = key = SPELLINGS.get(name)
        if known is None or key is None:
            name = name.rstrip(" \t")
            if not colon or not _TOKEN(name):
                error = MalformedMessage(400, "Bad header line")
                continue
            known = canonical(name)
            key = known if known in SPELLINGS else known.lower()
        value = value.strip(" \t")
        fields.append((known, value))
        if key in index:
            index[key].append(value)
        else:
            index[key] = [value]
    return Headers.of_canonical(fields, index), error


def _read_request_line(line: str, headers: Headers, charset: str) -> tuple[Request, MalformedMessage | None]:
    parts = line.split(" ")
    method, uri = parts[0], parts[1] if len(parts) > 1 else ""
    request = Request(method, uri, headers, b"", charset)
    if not _TOKEN(method):
        raise MalformedMessage(400, "Bad method")
    version = parts[-1].upper()
    if len(parts) > 2 and version.startswith("SIP/") and version != VERSION:
        return request, MalformedMessage(505, REASONS[505])
    if len(parts) != 3 or version != VERSION:
        return request, MalformedMessage(400, "Bad Request-Line")
    return request, None


def _read_status_line(line: str, headers: Headers, charset: str) -> tuple[Response, MalformedMessage | None]:
    version, _, rest = line.partition(" ")
    code, _, reason = rest.partition(" ")
    if version.upper() != VERSION or len(code) != 3 or not code.isascii() or not code.isdigit():
        raise MalformedMessage(400, "Bad Status-Line")
    status = int(code)
    if not 100 <= status <= 699:
        raise MalformedMessage(400, "Bad status")
    return Response(status, reason, headers, b"", charset), None


def _check(message: Request | Response) -> None:
    """Raise MalformedMessage unless everything that all elements rely on is there and well-formed."""
    index = message.headers.index()
    for name in _ONCE:
        values = index.get(name)
        if values is not None and len(values) > 1:
            raise MalformedMessage(400, f"More than one {name}")
    vias = index.get("Via", _NONE)
    if len(vias) > MAX_VIAS:
        raise MalformedMessage(483, REASONS[483])
    if not index.get("Call-ID", _NONE)[0]:
        raise MalformedMessage(400, "No Call-ID")
    cache = message._cache
    for name, read, value in (
        ("via", _read_via, vias[0]),
        ("from", NameAddr.parse, index.get("From", _NONE)[0]),
        ("to", NameAddr.parse, index.get("To", _NONE)[0]),
        ("cseq", _read_cseq, index.get("CSeq", _NONE)[0]),
    ):
        cache[name] = value, read(value)
    if "Contact" in index:
        value = index["Contact"][0]
        cache["contact"] = value, _read_contact(value)
    if isinstance(message, Request):
        if cache["cseq"][1][1] != message.method:
            raise MalformedMessage(400, "CSeq method is not the request's")
        uri = Uri.parse(message.uri)
        if uri.headers:
            raise MalformedMessage(400, "Headers in the Request-URI")
        cache[""] = message.uri, uri


_NONE: Final = [""]


def _answerable(message: Message) -> Request | None:
    """The message itself when it is a request whose Via tells where an answer goes."""
    if not isinstance(message, Request):
        return None
    try:
        message.via  # noqa: B018 - raises when malformed
    except MalformedMessage:
        return None
    return message


def _partial_of(head: bytes) -> Request | None:
    try:
        return _answerable(_read_head(head.rstrip(b"\r\n"))[0])
    except MalformedMessage:
        return None


def _read_via(raw: str) -> Via:
    return Via.parse(first_value(raw))


def _read_cseq(raw: str) -> tuple[int, str]:
    parts = raw.split()
    if len(parts) != 2 or not _TOKEN(parts[1]):
        raise MalformedMessage(400, "Bad CSeq")
    digits = parts[0]
    if not digits.isascii() or not digits.isdigit() or len(digits) > 20 or int(digits) > MAX_CSEQ:
        raise MalformedMessage(400, "Bad CSeq")
    return int(digits), parts[1]


def _read_contact(raw: str) -> NameAddr | None:
    if not raw or raw == "*":
        return None
    if "," not in raw:
        return NameAddr.parse(raw)
    addresses = parse_list((raw,))
    return addresses[0] if addresses else None


def _tagged(request: Request, to: str, tag: str) -> str:
    try:
        has_tag = bool(request.to_tag)
    except MalformedMessage:
        has_tag = ";tag=" in to.lower().replace(" ", "")
    return to if has_tag else f"{to};tag={tag}"


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")
