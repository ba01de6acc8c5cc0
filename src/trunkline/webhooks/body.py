"""Content-Encoding of response bodies: gzip and deflate, with a bound on what comes out."""

from __future__ import annotations

import zlib
from typing import Final

_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS


class Undecodable(ValueError):
    """The body is not what its Content-Encoding says, or the encoding is unknown."""


def decode(body: bytes, encoding: str, max_bytes: int) -> tuple[bytes, bool]:
    """The decoded body, and whether it was cut at `max_bytes`.

    `deflate` is read with and without zlib's frame, as both are sent (RFC 9110 section 8.4.1.2).
    Raises Undecodable.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body, False
    if name in ("gzip", "x-gzip"):
        return _inflate(body, _GZIP, max_bytes)
    if name == "deflate":
        try:
            return _inflate(body, _ZLIB, max_bytes)
        except Undecodable:
            return _inflate(body, _RAW, max_bytes)
    raise Undecodable(f"content encoding {name[:40]!r} is not supported")


def _inflate(body: bytes, window: int, max_bytes: int) -> tuple[bytes, bool]:
    inflater = zlib.decompressobj(window)
    try:
        # One byte more than allowed tells "exactly at the limit" from "longer".
        data = inflater.decompress(body, max_bytes + 1)
    except zlib.error:
        raise Undecodable("the compressed body is damaged") from None
    if len(data) > max_bytes:
        return data[:max_bytes], True
    if not inflater.eof:
        raise Undecodable("the compressed body ends too early")
    return data, False
