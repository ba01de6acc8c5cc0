"""Session descriptions (RFC 8866): read into sections of lines, in their order, so that nothing is lost.

What offer/answer needs (RFC 3264) is asked of the sections; attributes of things to come (crypto, candidates, fmtp of
other codecs) stay where they are.
"""

from __future__ import annotations

from typing import Final

import msgspec

from trunkline.sip.errors import MalformedSdp as MalformedSdp

MAX_BYTES: Final = 32 * 1024
MAX_LINES: Final = 1000
MAX_MEDIA: Final = 32
"""m-lines."""
MAX_FORMATS: Final = 100
"""Formats of one m-line."""
MAX_PORT: Final = 65_535
MAX_VERSION_DIGITS: Final = 20
"""RFC 8866 section 5.2 asks for 64 bits' worth."""

DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")

Line = tuple[str, str]
"""Type letter and value."""


class Section(msgspec.Struct):
    """The session part, or one media part without its m-line."""

    lines: list[Line] = []

    def value(self, kind: str) -> str | None:
        """The value of the first line of that type."""
        for letter, value in self.lines:
            if letter == kind:
                return value
        return None

    def attribute(self, name: str) -> str | None:
        """The value of the first `a=name:value`, "" for `a=name`."""
        found = self.attributes(name)
        return found[0] if found else None

    def attributes(self, name: str) -> list[str]:
        """The values of all `a=name:value`."""
        prefix = name + ":"
        return [
            value[len(prefix) :]
            for letter, value in self.lines
            if letter == "a" and (value.startswith(prefix) or value == name)
        ]

    @property
    def direction(self) -> str:
        """Its own direction attribute, "" without one."""
        for letter, value in self.lines:
            if letter == "a" and value in DIRECTIONS:
                return value
        return ""

    @property
    def address(self) -> str:
        """Of its own c= line, without a time-to-live; "" without one."""
        return connection_address(self.value("c") or "")


class Media(Section):
    """An m-line and what belongs to it."""

    kind: str = "audio"
    port: int = 0
    port_count: int = 1
    protocol: str = "RTP/AVP"
    formats: tuple[str, ...] = ()

    def rtpmap(self) -> dict[int, str]:
        """Encoding (`PCMU/8000`) by payload type, from the rtpmap attributes."""
        mapped: dict[int, str] = {}
        for value in self.attributes("rtpmap"):
            number, _, encoding = value.partition(" ")
            payload_type = payload_number(number)
            if payload_type >= 0:
                mapped.setdefault(payload_type, encoding.strip())
        return mapped

    def fmtp(self, payload_type: int) -> str:
        """The format parameters of a payload type, "" if there are none."""
        prefix = f"{payload_type} "
        for value in self.attributes("fmtp"):
            if value.startswith(prefix):
                return value[len(prefix) :].strip()
        return ""

    @property
    def m_line(self) -> str:
        count = "" if self.port_count == 1 else f"/{self.port_count}"
        return f"{self.kind} {self.port}{count} {self.protocol} {' '.join(self.formats)}"


class SessionDescription(Section):
    """A whole description."""

    media: list[Media] = []

    @property
    def version(self) -> int:
        """sess-version of the o= line; -1 if it has none that can be read."""
        parts = (self.value("o") or "").split()
        return _version(parts[2]) if len(parts) == 6 else -1

    @property
    def session_id(self) -> str:
        """sess-id of the o= line, "" without one."""
        parts = (self.value("o") or "").split()
        return parts[1] if len(parts) == 6 else ""

    def direction_of(self, media: Media) -> str:
        """A medium's direction: its own, else the session's, else `sendrecv` (RFC 8866 section 6.7)."""
        return media.direction or self.direction or "sendrecv"

    def address_of(self, media: Media) -> str:
        """Where a medium is received: its own c= line's address, else the session's, "" if neither says."""
        return media.address or self.address

    def encode(self) -> bytes:
        """The bytes, every line in its place."""
        lines = [f"{letter}={value}" for letter, value in self.lines]
        for media in self.media:
            lines.append(f"m={media.m_line}")
            lines.extend(f"{letter}={value}" for letter, value in media.lines)
        lines.append("")
        return "\r\n".join(lines).encode()


def parse(body: bytes) -> SessionDescription:
    """Raises MalformedSdp. Bare line feeds, missing s= and t= lines and unknown line types are tolerated."""
    if len(body) > MAX_BYTES:
        raise MalformedSdp("too long")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    rows = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n \t\x00").split("\n")
    if len(rows) > MAX_LINES:
        raise MalformedSdp("too many lines")
    if rows[0].strip() != "v=0":
        raise MalformedSdp("does not begin with v=0")
    description = SessionDescription(lines=[], media=[])
    lines = description.lines
    for row in rows:
        if row[1:2] != "=" or not row[0].isalpha():
            raise MalformedSdp("a line is not of the form x=value")
        if row[0] == "m":
            if len(description.media) >= MAX_MEDIA:
                raise MalformedSdp("too many m-lines")
            media = _media(row[2:])
            description.media.append(media)
            lines = media.lines
        else:
            lines.append((row[0], row[2:].strip()))
    return description


def _media(value: str) -> Media:
    parts = value.split()
    if len(parts) < 4 or len(parts) > MAX_FORMATS + 3:
        raise MalformedSdp("bad m-line")
    port, slash, count = parts[1].partition("/")
    number, ports = _small(port), _small(count) if slash else 1
    if number < 0 or ports < 1:
        raise MalformedSdp("bad port in m-line")
    return Media([], parts[0], number, ports, parts[2], tuple(parts[3:]))


def _small(text: str) -> int:
    """A number up to 65535, else -1."""
    if len(text) > 5 or not text.isascii() or not text.isdigit():
        return -1
    number = int(text)
    return number if number <= MAX_PORT else -1


_PAYLOAD_NUMBERS: Final = {str(number): number for number in range(128)}


def payload_number(text: str) -> int:
    """An RTP payload type (0 to 127), else -1."""
    return _PAYLOAD_NUMBERS.get(text, -1)


def _version(text: str) -> int:
    readable = text.isascii() and text.isdigit() and len(text) <= MAX_VERSION_DIGITS
    return int(text) if readable else -1


def connection_address(value: str) -> str:
    """The address of a c= value (`IN IP4 192.0.2.1/127`), "" if it is none."""
    parts = value.split()
    if len(parts) < 3 or parts[0] != "IN" or parts[1] not in ("IP4", "IP6"):
        return ""
    return parts[2].partition("/")[0]


def rtcp_address(media: Media, host: str) -> tuple[str, int]:
    """Where a medium's RTCP is received: the rtcp attribute (RFC 3605), else the port above."""
    parts = (media.attribute("rtcp") or "").split()
    port = _small(parts[0]) if parts else -1
    if port < 1:
        return host, min(media.port + 1, MAX_PORT)
    return (connection_address(" ".join(parts[1:4])) or host) if len(parts) >= 4 else host, port


def milliseconds(value: str | None) -> int:
    """Of ptime and maxptime: whole milliseconds, 0 if absent or unreadable; fractions are dropped."""
    return max(_small((value or "").strip().partition(".")[0]), 0)


def address_type(address: str) -> str:
    """`IP4` or `IP6`."""
    return "IP6" if ":" in address else "IP4"
