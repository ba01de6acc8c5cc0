"""A name server for a handful of names: A records over UDP, as `lab.outside` starts it. What it does not know does not
exist.
"""

import argparse
import socket
import struct

A, ANY_CLASS = 1, 1
TTL_S = 5
HEADER = struct.Struct(">HHHHHH")
ANSWERS, NO_SUCH_NAME = 0x8580, 0x8583
"""Flags of an answer with authority."""
POINTER = b"\xc0\x0c"
"""To the name in the question."""


def question(data: bytes) -> tuple[str, int, int]:
    """Name, type, and where the question ends. Raises ValueError, IndexError."""
    labels, at = [], HEADER.size
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode("ascii").lower())
        at += 1 + length
    return ".".join(labels), int.from_bytes(data[at + 1 : at + 3], "big"), at + 5


def ask(name: str, number: int) -> bytes:
    """A query for its address."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return HEADER.pack(number, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, A, ANY_CLASS)


def answer(data: bytes, known: dict[str, str]) -> bytes:
    """The response to a query. Raises ValueError, IndexError."""
    name, kind, end = question(data)
    address = known.get(name)
    records = b""
    if address and kind == A:
        records = POINTER + struct.pack(">HHIH", A, ANY_CLASS, TTL_S, 4) + socket.inet_aton(address)
    flags = ANSWERS if address else NO_SUCH_NAME
    return (
        HEADER.pack(int.from_bytes(data[:2], "big"), flags, 1, bool(records), 0, 0) + data[HEADER.size : end] + records
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("names", nargs="+", help="name=address")
    given = parser.parse_args()
    known = dict(pair.lower().split("=", 1) for pair in given.names)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.bind((given.host, given.port))
        while True:
            data, client = line.recvfrom(4096)
            try:
                line.sendto(answer(data, known), client)
            except (ValueError, IndexError):
                continue  # no query


if __name__ == "__main__":
    main()
