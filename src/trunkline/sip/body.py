"""Where a message's session description is: its body, or one part of a multipart body (RFC 5621)."""

from typing import Final

from trunkline.sip.core import SDP_TYPE
from trunkline.sip.headers import header_params
from trunkline.sip.message import MalformedMessage, Request, Response

MAX_PARTS: Final = 16  # of a multipart body that are looked at


def session_description(message: Request | Response) -> bytes | None:
    """The SDP, empty if there is no body; None if there is a body without one (415 for a request)."""
    body = message.body
    if not body:
        return b""
    kind = message.content_type
    if kind == SDP_TYPE:
        return body
    return _part(body, message.headers.get("content-type")) if kind.startswith("multipart/") else None


def _part(body: bytes, content_type: str) -> bytes | None:
    try:
        boundary = header_params(";" + content_type.partition(";")[2]).get("boundary")
    except MalformedMessage:
        return None
    if not boundary:
        return None
    delimiter = b"\r\n--" + boundary.encode("utf-8", "replace")
    for part in (b"\r\n" + body).split(delimiter, MAX_PARTS)[1:]:
        head, blank, content = part.partition(b"\r\n\r\n")
        if blank and _is_sdp(head):
            return content
    return None


def _is_sdp(head: bytes) -> bool:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() in (b"content-type", b"c"):
            return value.partition(b";")[0].strip().lower() == SDP_TYPE.encode()
    return False
