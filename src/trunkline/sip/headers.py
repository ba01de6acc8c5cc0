"""Header fields: the ordered multimap, and the typed values of those that every element reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from trunkline.sip.errors import MalformedMessage
from trunkline.sip.uri import Params, Uri, parse_port, split_host_port

MAX_LIST_VALUES: Final = 256
"""Values of one comma-separated header, over all its fields."""

COMPACT: Final[dict[str, str]] = {
    "a": "Accept-Contact",
    "b": "Referred-By",
    "c": "Content-Type",
    "d": "Request-Disposition",
    "e": "Content-Encoding",
    "f": "From",
    "i": "Call-ID",
    "j": "Reject-Contact",
    "k": "Supported",
    "l": "Content-Length",
    "m": "Contact",
    "n": "Identity-Info",
    "o": "Event",
    "r": "Refer-To",
    "s": "Subject",
    "t": "To",
    "u": "Allow-Events",
    "v": "Via",
    "x": "Session-Expires",
    "y": "Identity",
}
"""Compact forms (IANA's registry of SIP header fields)."""

# fmt: off
_NAMES: Final = (
    "Accept", "Accept-Encoding", "Accept-Language", "Alert-Info", "Allow",
    "Authentication-Info", "Authorization", "CSeq", "Call-Info", "Content-Disposition",
    "Content-Language", "Date", "Diversion", "Error-Info", "Expires",
    "Geolocation", "History-Info", "In-Reply-To", "Join", "MIME-Version",
    "Max-Forwards", "Min-Expires", "Min-SE", "Organization", "P-Access-Network-Info",
    "P-Asserted-Identity", "P-Charging-Vector", "P-Preferred-Identity", "Path", "Priority",
    "Privacy", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Require", "RAck",
    "RSeq", "Reason", "Record-Route", "Remote-Party-ID", "Replaces",
    "Reply-To", "Require", "Retry-After", "Route", "Server",
    "Service-Route", "Session-ID", "Timestamp", "Unsupported", "User-Agent",
    "User-to-User", "WWW-Authenticate", "Warning",
)
# fmt: on

_CANONICAL: Final[dict[str, str]] = {name.lower(): name for name in (*_NAMES, *COMPACT.values())} | COMPACT
SPELLINGS: Final[dict[str, str]] = _CANONICAL | {name: name for name in _CANONICAL.values()}
"""Canonical name by the spellings that are common, so that few names need lower-casing."""

Field = tuple[str, str]


def canonical(name: str) -> str:
    """The full name as the RFCs spell it; an unknown one stays as it is."""
    return SPELLINGS.get(name) or _CANONICAL.get(name.lower(), name)


def _key(name: str) -> str:
    """What an index has a name under: the full name of a known one, another in lower case."""
    known = SPELLINGS.get(name)
    if known is None:
        name = name.lower()
        known = _CANONICAL.get(name, name)
    return known


class Headers:
    """Header fields in their order. Names are case-insensitive, compact forms are the same as long ones."""

    __slots__ = ("_index", "fields")

    def __init__(self, fields: Iterable[Field] = ()) -> None:
        self.fields: list[Field] = [(canonical(name), value) for name, value in fields]  # read only
        self._index: dict[str, list[str]] | None = None  # made when first asked

    @classmethod
    def of_canonical(cls, fields: list[Field], index: dict[str, list[str]] | None = None) -> Headers:
        """Take over a list whose names are canonical already, and its index if that is at hand."""
        headers = cls.__new__(cls)
        headers.fields = fields
        headers._index = index
        return headers

    def index(self) -> dict[str, list[str]]:
        """Values by full name, by lower-case name of those without one. Read only."""
        index = self._index
        if index is None:
            index = self._index = {}
            for name, value in self.fields:
                key = name if name in SPELLINGS else name.lower()
                if key in index:
                    index[key].append(value)
                else:
                    index[key] = [value]
        return index

    def get(self, name: str, default: str = "") -> str:
        """The value of the first field of that name."""
        found = (self._index or self.index()).get(SPELLINGS.get(name) or _key(name))
        return found[0] if found else default

    def all(self, name: str) -> list[str]:
        """One value per field, not split at commas."""
        return list(self.index().get(_key(name), ()))

    def add(self, name: str, value: str) -> None:
        """Append a field."""
        self.fields.append((canonical(name), value))
        self._index = None

    def prepend(self, name: str, value: str) -> None:
        """Put a field before all others."""
        self.fields.insert(0, (canonical(name), value))
        self._index = None

    def set(self, name: str, value: str) -> None:
        """Replace every field of that name by one, at the place of the first; append it if there was none."""
        key, index = _key(name), self._index
        if index is not None and len(index.get(key, ())) == 1 and (known := SPELLINGS.get(key)) is not None:
            old = (known, index[key][0])
            self.fields[self.fields.index(old)] = (known, value)
            index[key] = [value]
            return
        fields, placed = [], False
        for field in self.fields:
            if _key(field[0]) != key:
                fields.append(field)
            elif not placed:
                placed = True
                fields.append((canonical(name), value))
        if not placed:
            fields.append((canonical(name), value))
        self.fields, self._index = fields, None

    def remove(self, name: str) -> None:
        """Drop every field of that name, if there is one."""
        key = _key(name)
        self.fields = [field for field in self.fields if _key(field[0]) != key]
        self._index = None

    def items(self) -> list[Field]:
        """Every field: (name, value)."""
        return list(self.fields)

    def copy(self) -> Headers:
        return Headers.of_canonical(list(self.fields))

    def __contains__(self, name: str) -> bool:
        return _key(name) in self.index()

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __repr__(self) -> str:
        return f"Headers({self.fields!r})"


class NameAddr(msgspec.Struct, frozen=True):
    """`"Display" <uri>;params`, or `uri;params` (RFC 3261 section 20.10). `str()` of a parsed one is as received."""

    uri: Uri
    display: str = ""
    """Without quotes and escapes."""
    params: Params = {}
    """Header parameters, names in lower case, values without quotes."""
    wire: str = ""

    @classmethod
    def parse(cls, text: str) -> NameAddr:
        """Raises MalformedMessage (400)."""
        text = text.strip()
        if text.startswith('"'):
            end = _closing_quote(text, 0)
            display = unquote_string(text[: end + 1])
            opening = end + 1
            while text[opening : opening + 1].isspace():
                opening += 1
            if text[opening : opening + 1] != "<":
                raise MalformedMessage(400, "Bad name-addr")
        else:
            opening = text.find("<")
            if opening < 0:
                return cls._without_brackets(text)
            display = text[:opening].rstrip()
        closing = text.find(">", opening)
        if closing < 0:
            raise MalformedMessage(400, "Bad name-addr")
        uri = Uri.parse(text[opening + 1 : closing].strip())
        rest = text[closing + 1 :]
        return cls(uri, display, header_params(rest) if rest else {}, text)

    @classmethod
    def _without_brackets(cls, text: str) -> NameAddr:
        # Section 20.10: without brackets every parameter is the header's, and the URI has no comma or question mark.
        address, semicolon, params = text.partition(";")
        if "?" in address or "," in address:
            raise MalformedMessage(400, "URI needs brackets")
        return cls(Uri.parse(address.rstrip()), "", header_params(";" + params) if semicolon else {}, text)

    @property
    def tag(self) -> str:
        """The tag parameter, empty if there is none."""
        return self.params.get("tag") or ""

    def with_tag(self, tag: str) -> NameAddr:
        """A copy with this tag."""
        return NameAddr(self.uri, self.display, {**self.params, "tag": tag})

    def __str__(self) -> str:
        if self.wire:
            return self.wire
        display = f"{quote_string(self.display)} " if self.display else ""
        return f"{display}<{self.uri}>{format_header_params(self.params)}"


def parse_list(values: Iterable[str]) -> list[NameAddr]:
    """Every address of a header like Contact, Route or Record-Route, given one value per field.

    Raises MalformedMessage (400).
    """
    return [NameAddr.parse(part) for part in split_values(values)]


class Via(msgspec.Struct, frozen=True):
    """One hop (RFC 3261 section 20.42)."""

    transport: str
    """Upper case."""
    host: str
    """Lower case, an IPv6 address in brackets."""
    port: int | None = None
    params: Params = {}
    wire: str = ""

    @classmethod
    def parse(cls, text: str) -> Via:
        """Raises MalformedMessage (400)."""
        if text.startswith("SIP/2.0/"):
            transport, _, rest = text[8:].partition(" ")
            sent_by, semicolon, rest = rest.partition(";")
            if transport in _TRANSPORTS and " " not in sent_by and "\t" not in sent_by:
                host, number = split_host_port(sent_by)
                return cls(transport, host, number, header_params(";" + rest) if semicolon else {}, text)
        match = _VIA(text.strip())
        if match is None:
            raise MalformedMessage(400, "Bad Via")
        transport, host, port, rest = match.groups()
        host, none = split_host_port(host)
        if none is not None:
            raise MalformedMessage(400, "Bad Via")
        params = header_params(rest) if rest else {}
        return cls(transport.upper(), host, parse_port(port) if port is not None else None, params, text)

    @property
    def branch(self) -> str:
        """Empty if there is none."""
        return self.params.get("branch") or ""

    @property
    def received(self) -> str:
        """Where the request came from by the element that took it (section 18.2.1), empty if it does not say."""
        return self.params.get("received") or ""

    @property
    def wants_rport(self) -> bool:
        """Whether the sender asks for the response at its source port (RFC 3581)."""
        return "rport" in self.params

    @property
    def rport(self) -> int | None:
        """The port that the taker filled in, if it did."""
        value = self.params.get("rport") or ""
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 5 else None

    def with_params(self, **params: str | None) -> Via:
        """A copy with these parameters set."""
        return Via(self.transport, self.host, self.port, {**self.params, **params})

    def __str__(self) -> str:
        if self.wire:
            return self.wire
        port = "" if self.port is None else f":{self.port}"
        return f"SIP/2.0/{self.transport} {self.host}{port}{format_header_params(self.params)}"


_TRANSPORTS: Final = frozenset({"UDP", "TCP", "TLS", "WS", "WSS", "SCTP", "TLS-SCTP"})
_VIA: Final = re.compile(
    r"SIP\s*/\s*[0-9.]+\s*/\s*([A-Za-z0-9.!%*_+`'~-]+)\s+(\[[^\]]*\]|[^\s;:,\[\]]+)\s*(?::\s*(\d+)\s*)?(;.*)?\Z",
    re.IGNORECASE | re.DOTALL,
).match


def split_values(values: Iterable[str]) -> list[str]:
    """The comma-separated values of one header's fields, each stripped; empty ones are left out.

    Commas in quotes or angle brackets do not separate. Raises MalformedMessage (400) for an open quote, or for more
    than MAX_LIST_VALUES.
    """
    parts: list[str] = []
    for value in values:
        if "," not in value:
            pieces = [value]
        elif '"' in value or "<" in value:
            pieces = _split_outside(value, ",", brackets=True)
        else:
            pieces = value.split(",")
        parts.extend(part for piece in pieces if (part := piece.strip()))
        if len(parts) > MAX_LIST_VALUES:
            raise MalformedMessage(400, "Too many header values")
    return parts


def first_value(value: str) -> str:
    """The first of comma-separated values."""
    if "," not in value:
        return value
    return split_values((value,))[0] if value.strip(", \t") else ""


def header_params(text: str) -> Params:
    """`;name=value;name`, as after a header's main value; of a repeated name the first counts.

    Raises MalformedMessage (400) for an open quote, anything before the first semicolon, or an empty parameter that is
    not the last.
    """
    if text[-1:] == ";":
        text = text[:-1]
    if '"' in text:
        return _quoted_params(text)
    pieces = text.split(";")
    if pieces[0] and not pieces[0].isspace():
        raise MalformedMessage(400, "Bad parameter")
    params: Params = {}
    for piece in pieces[1:]:
        name, equals, value = piece.partition("=")
        name = name.strip().lower()
        if not name:
            raise MalformedMessage(400, "Empty parameter")
        if name not in params:
            params[name] = value.strip() if equals else None
    return params


def _quoted_params(text: str) -> Params:
    pieces = _split_outside(text, ";", brackets=False)
    if pieces[0].strip():
        raise MalformedMessage(400, "Bad parameter")
    params: Params = {}
    for piece in pieces[1:]:
        name, equals, value = piece.partition("=")
        name, value = name.strip().lower(), value.strip()
        if not name:
            raise MalformedMessage(400, "Empty parameter")
        if name in params:
            continue
        if value.startswith('"'):
            value = unquote_string(value[: _closing_quote(value, 0) + 1])
        params[name] = value if equals else None
    return params


def _split_outside(text: str, separator: str, *, brackets: bool) -> list[str]:
    """Split where the separator is in neither quotes nor (if asked) angle brackets."""
    pieces: list[str] = []
    start = at = 0
    for match in _MARKS[separator](text):
        if match.start() < at:
            continue
        mark = match.group()
        if mark == separator:
            pieces.append(text[start : match.start()])
            start = match.end()
        elif mark == '"':
            at = _closing_quote(text, match.start()) + 1
        elif brackets:
            closing = text.find(">", match.start())
            if closing < 0:
                raise MalformedMessage(400, "Open bracket")
            at = closing
    pieces.append(text[start:])
    return pieces


_MARKS: Final = {",": re.compile(r'[,"<]').finditer, ";": re.compile(r'[;"]').finditer}


def _closing_quote(text: str, opening: int) -> int:
    """Index of the quote that closes the one at `opening`."""
    at = opening + 1
    while True:
        at = text.find('"', at)
        if at < 0:
            raise MalformedMessage(400, "Open quote")
        slashes = at
        while text[slashes - 1] == "\\" and slashes - 1 > opening:
            slashes -= 1
        if (at - slashes) % 2 == 0:
            return at
        at += 1


_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL).sub
_SPECIAL: Final = re.compile(r'(["\\])').sub
_PLAIN_VALUE: Final = re.compile(r"[A-Za-z0-9.!%*_+`'~\[\]:-]+").fullmatch


def unquote_string(text: str) -> str:
    """The content of a quoted-string; other text stays as it is."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    inner = text[1:-1]
    return _ESCAPED(r"\1", inner) if "\\" in inner else inner


def quote_string(text: str) -> str:
    """As a quoted-string (RFC 3261 section 25.1)."""
    if '"' in text or "\\" in text:
        text = _SPECIAL(r"\\\1", text)
    return f'"{text}"'


def format_header_params(params: Params) -> str:
    """Header parameters with their leading semicolons; what is no token or host is quoted."""
    if not params:
        return ""
    return "".join(
        f";{name}" if value is None else f";{name}={value if _PLAIN_VALUE(value) else quote_string(value)}"
        for name, value in params.items()
    )
