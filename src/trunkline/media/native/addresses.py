"""Addresses as the tick has them: 16 octets (IPv4 as ::ffff:a.b.c.d) beside the system's own form."""

import socket
import struct
import sys
from typing import Final

_MAPPED: Final = b"\0" * 10 + b"\xff\xff"


def packed_address(host: str) -> bytes:
    """16 octets of a numeric address; IPv4 as ::ffff:a.b.c.d. Raises OSError."""
    try:
        if ":" in host:
            return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        return _MAPPED + socket.inet_pton(socket.AF_INET, host)
    except ValueError as error:  # a NUL, or what is not ASCII
        raise OSError(str(error)) from error


def unpacked_address(packed: bytes) -> str:
    """The numeric address of 16 octets."""
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


def pack_sockaddr(packed: bytes, port: int, *, six: bool) -> bytes:
    """The system's socket address of 16 octets and a port, for an IPv6 socket or an IPv4 one."""
    if six:
        wire = struct.pack("!H", port)
        return struct.pack("=H2sI16sI", socket.AF_INET6, wire, 0, packed, 0)
    return struct.pack("=H2s4s8s", socket.AF_INET, struct.pack("!H", port), packed[12:], b"")


def unpack_sockaddr(data: bytes) -> tuple[str, int]:
    """The address and port of a system's socket address."""
    family = int.from_bytes(data[:2], sys.byteorder)
    port = int.from_bytes(data[2:4], "big")
    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, data[8:24]), port
    return socket.inet_ntop(socket.AF_INET, data[4:8]), port
