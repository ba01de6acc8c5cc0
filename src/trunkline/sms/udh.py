"""The user data header of a short message (3GPP TS 23.040 §9.2.3.24): build it and parse it.

Parsing never raises: it keeps the elements that are whole and ignores the rest.
"""

from typing import Final, Literal

import msgspec

CONCAT_8: Final = 0x00
PORTS_8: Final = 0x04
PORTS_16: Final = 0x05
CONCAT_16: Final = 0x08
SINGLE_SHIFT: Final = 0x24
LOCKING_SHIFT: Final = 0x25

MAX_HEADER_OCTETS: Final = 139  # what one short message can carry, without the length octet

Element = tuple[int, bytes]


class HeaderTooLongError(ValueError):
    """The elements do not fit into one short message."""


class Concat(msgspec.Struct, frozen=True, gc=False):
    """Which part of which long message this is; `sequence` counts from 1, `width` is that of the reference."""

    reference: int
    total: int
    sequence: int
    width: Literal[8, 16]


class Ports(msgspec.Struct, frozen=True, gc=False):
    """Application port addressing."""

    destination: int
    source: int
    width: Literal[8, 16]


class Udh(msgspec.Struct, frozen=True, gc=False):
    """Every element as received, unknown ones too, and the ones we understand.

    `octets` is the size of the whole header, its length octet included: what packed septets align to.
    """

    elements: tuple[Element, ...] = ()
    octets: int = 0
    concat: Concat | None = None
    ports: Ports | None = None
    single_shift: int = 0
    locking_shift: int = 0


NO_UDH: Final = Udh()


def build(elements: tuple[Element, ...] | list[Element]) -> bytes:
    """The header with its length octet. Raises `HeaderTooLongError`."""
    body = b"".join([bytes((identifier, len(data))) + data for identifier, data in elements])
    if len(body) > MAX_HEADER_OCTETS:
        raise HeaderTooLongError(f"{len(body)} octets of header, at most {MAX_HEADER_OCTETS} fit")
    return bytes((len(body),)) + body


def concat_element(reference: int, total: int, sequence: int, width: Literal[8, 16] = 8) -> Element:
    """A concatenation element; the reference is taken modulo its width."""
    if width == 8:
        return CONCAT_8, bytes((reference & 0xFF, total, sequence))
    return CONCAT_16, (reference & 0xFFFF).to_bytes(2, "big") + bytes((total, sequence))


def concat_header(reference: int, total: int, sequence: int, width: Literal[8, 16] = 8, language: int = 0) -> bytes:
    """The header of one part of a long message, with the national single shift when `language` is not 0."""
    elements = [concat_element(reference, total, sequence, width)]
    if language:
        elements.append((SINGLE_SHIFT, bytes((language,))))
    return build(elements)


def parse(payload: bytes) -> tuple[Udh, bytes]:
    """Header and remaining body of a payload whose UDH indicator is set. Never raises.

    A length octet that points past the payload leaves an empty body; an element cut short is ignored.
    """
    if not payload:
        return NO_UDH, b""
    end = 1 + payload[0]
    body = payload[end:]
    elements: list[Element] = []
    at = 1
    limit = min(end, len(payload))
    while at + 2 <= limit:
        data = payload[at + 2 : at + 2 + payload[at + 1]]
        at += 2 + payload[at + 1]
        if at > limit:
            break
        elements.append((payload[at - len(data) - 2], data))
    return _understand(tuple(elements), min(end, len(payload))), body


def _understand(elements: tuple[Element, ...], octets: int) -> Udh:
    concat: Concat | None = None
    ports: Ports | None = None
    single_shift = locking_shift = 0
    for identifier, data in elements:  # the last of several equal elements counts (§9.2.3.24)
        if identifier == CONCAT_8 and len(data) == 3:
            concat = _concat(data[0], data[1], data[2], 8) or concat
        elif identifier == CONCAT_16 and len(data) == 4:
            concat = _concat(data[0] << 8 | data[1], data[2], data[3], 16) or concat
        elif identifier == PORTS_8 and len(data) == 2:
            ports = Ports(data[0], data[1], 8)
        elif identifier == PORTS_16 and len(data) == 4:
            ports = Ports(data[0] << 8 | data[1], data[2] << 8 | data[3], 16)
        elif identifier == SINGLE_SHIFT and len(data) == 1:
            single_shift = data[0]
        elif identifier == LOCKING_SHIFT and len(data) == 1:
            locking_shift = data[0]
    return Udh(elements, octets, concat, ports, single_shift, locking_shift)


def _concat(reference: int, total: int, sequence: int, width: Literal[8, 16]) -> Concat | None:
    # §9.2.3.24.1: an element with a zero total, or a sequence that is zero or above it, is ignored.
    return Concat(reference, total, sequence, width) if 0 < sequence <= total else None
