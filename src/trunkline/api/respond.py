"""Responses: JSON or Twilio-style XML bytes, ready to be sent and to be stored for replays."""

from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from typing import Any, Final

import orjson

from trunkline.api import xml_body
from trunkline.model.errors import ApiError

Headers = tuple[tuple[bytes, bytes], ...]
"""Lower-case names."""


class Format(StrEnum):
    """The representation that a path asks for."""

    JSON = "json"
    XML = "xml"
    CSV = "csv"


JSON_HEADERS: Final[Headers] = ((b"content-type", b"application/json"),)
XML_HEADERS: Final[Headers] = ((b"content-type", b"application/xml"),)


class Response:
    """A whole response. Content-Length and Twilio-Request-Id are added when it is sent."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes = b"", headers: Headers = ()) -> None:
        self.status = status
        self.body = body
        self.headers = headers

    def with_header(self, name: str, value: str) -> "Response":
        """A copy with one header more."""
        return Response(self.status, self.body, (*self.headers, header(name, value)))


class Streamed(Response):
    """A response whose `length` bytes come in pieces, for files that are too long to be held whole. Never replayed."""

    __slots__ = ("chunks", "length")

    def __init__(self, status: int, chunks: AsyncIterator[bytes], length: int, headers: Headers = ()) -> None:
        super().__init__(status, b"", headers)
        self.chunks = chunks
        self.length = length


def header(name: str, value: str) -> tuple[bytes, bytes]:
    """A header pair as ASGI wants it; characters that a header cannot carry become `?`."""
    text = "".join(c if " " <= c <= "\u00ff" and c != "\x7f" else "?" for c in value)
    return name.lower().encode("ascii"), text.encode("latin-1")


def json(content: Any, status: int = 200) -> Response:
    """A JSON body whatever the path asked for (the newer APIs know nothing else)."""
    return Response(status, orjson.dumps(content), JSON_HEADERS)


def resource(format_: Format, content: Mapping[str, Any], element: str, status: int = 200) -> Response:
    """One resource in the request's format. `element` is its XML name, e.g. `Message`."""
    if format_ is Format.XML:
        return Response(status, xml_body.resource(element, content), XML_HEADERS)
    return Response(status, orjson.dumps(content), JSON_HEADERS)


def no_content() -> Response:
    """204, as every DELETE answers."""
    return Response(204)


def redirect(location: str, status: int = 307) -> Response:
    """A redirect without a body."""
    return Response(status, b"", (header("location", location),))


def text(body: str | bytes, content_type: str = "text/plain; charset=utf-8", status: int = 200) -> Response:
    """Anything else."""
    raw = body.encode() if isinstance(body, str) else body
    return Response(status, raw, (header("content-type", content_type),))


def error(problem: ApiError, format_: Format) -> Response:
    """The REST error body."""
    content = problem.body()
    extra = tuple(header(name, value) for name, value in problem.headers)
    if format_ is Format.XML:
        return Response(problem.status, xml_body.error(content), XML_HEADERS + extra)
    return Response(problem.status, orjson.dumps(content), JSON_HEADERS + extra)
