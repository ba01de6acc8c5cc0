"""Frames between nodes and the handshake, without any I/O.

A frame is four bytes of length (big-endian, of what follows), one of kind, and a body.

    HELLO    server -> client   its nonce, its name
    PROVE    client -> server   its name, its nonce, HMAC(secret, "client", server nonce, client nonce, name, to whom)
    WELCOME  server -> client   HMAC(secret, "server", client nonce, server nonce, name, client's name)
    CALL     both ways          number (8 bytes), length of kind (1 byte), kind, payload
    ANSWER   both ways          number, payload
    ERROR    both ways          number, length of code, code, text
    PING, PONG                  nothing

Both sides show that they know the cluster's secret, over nonces of both, before anything else is read; the proof names
who speaks to whom, so that it cannot be passed on to another node or turned around. Without TLS what follows is neither
encrypted nor signed: a network between nodes that others can write to needs TLS.
"""

import hmac
import os
import struct
from hashlib import sha256
from typing import Final

MAX_FRAME_BYTES: Final = 8 * 1024 * 1024
MAX_HANDSHAKE_FRAME_BYTES: Final = 1024
MIN_SECRET_CHARS: Final = 32
NONCE_BYTES: Final = 32
MAX_NAME_BYTES: Final = 64
PROOF_BYTES: Final = 32

HELLO: Final = 1
PROVE: Final = 2
WELCOME: Final = 3
CALL: Final = 4
ANSWER: Final = 5
ERROR: Final = 6
PING: Final = 7
PONG: Final = 8

HEAD: Final = struct.Struct("!IB")
NUMBERED: Final = struct.Struct("!IBQ")
_NUMBER: Final = struct.Struct("!Q")
_MAGIC: Final = b"trunkline peers 1"


class Malformed(Exception):
    """The peer does not speak this protocol, or does not know the secret; the connection is closed."""


def frame(kind: int, body: bytes = b"") -> bytes:
    """A frame without a number."""
    return HEAD.pack(1 + len(body), kind) + body


def call(number: int, kind: bytes, payload: bytes) -> bytes:
    """A request."""
    return b"".join((NUMBERED.pack(10 + len(kind) + len(payload), CALL, number), bytes((len(kind),)), kind, payload))


def answer(number: int, payload: bytes) -> bytes:
    """What a handler returned."""
    return NUMBERED.pack(9 + len(payload), ANSWER, number) + payload


def error(number: int, code: str, text: str) -> bytes:
    """What a handler raised."""
    coded, told = code.encode()[:255], text.encode()[:2000]
    return NUMBERED.pack(10 + len(coded) + len(told), ERROR, number) + bytes((len(coded),)) + coded + told


def read_named(body: bytes) -> tuple[int, bytes, bytes]:
    """Number, kind (or code) and the rest, of CALL and ERROR. Raises Malformed."""
    if len(body) < 9 or len(body) < 9 + body[8]:
        raise Malformed("a frame is cut short")
    end = 9 + body[8]
    return _NUMBER.unpack_from(body)[0], body[9:end], body[end:]


def read_number(body: bytes) -> int:
    """The number of an ANSWER. Raises Malformed."""
    if len(body) < 8:
        raise Malformed("a frame is cut short")
    return int(_NUMBER.unpack_from(body)[0])


class Handshake:
    """One side's part of it."""

    def __init__(self, secret: bytes, name: str, nonce: bytes | None = None) -> None:
        self._secret = secret
        self.name = name
        self.nonce = nonce or os.urandom(NONCE_BYTES)

    def hello(self) -> bytes:
        """What the server says first."""
        return frame(HELLO, _MAGIC + self.nonce + self.name.encode())

    def prove(self, hello: bytes, server: str) -> bytes:
        """What the client answers, to the server that it means. Raises Malformed."""
        if len(hello) < len(_MAGIC) + NONCE_BYTES or not hello.startswith(_MAGIC):
            raise Malformed("no node of this protocol's version")
        theirs, name = hello[len(_MAGIC) :][:NONCE_BYTES], _name(hello[len(_MAGIC) + NONCE_BYTES :])
        if name != server:
            raise Malformed(f"it is {name}, not {server}; two nodes may have the same node.address")
        proof = self._proof(b"client", theirs, self.nonce, self.name, server)
        return frame(PROVE, self.nonce + proof + self.name.encode())

    def welcome(self, prove: bytes) -> tuple[str, bytes]:
        """The client's name, and what the server answers once it is proven. Raises Malformed."""
        theirs, proof = prove[:NONCE_BYTES], prove[NONCE_BYTES : NONCE_BYTES + PROOF_BYTES]
        name = _name(prove[NONCE_BYTES + PROOF_BYTES :])
        if not hmac.compare_digest(proof, self._proof(b"client", self.nonce, theirs, name, self.name)):
            raise Malformed(f"{name} knows another cluster.secret, or takes this node for another one")
        return name, frame(WELCOME, self._proof(b"server", theirs, self.nonce, self.name, name))

    def welcomed(self, hello: bytes, welcome: bytes, server: str) -> None:
        """The client makes sure of the server. Raises Malformed."""
        theirs = hello[len(_MAGIC) :][:NONCE_BYTES]
        if not hmac.compare_digest(welcome, self._proof(b"server", self.nonce, theirs, server, self.name)):
            raise Malformed(f"{server} knows another cluster.secret")

    def _proof(self, role: bytes, first: bytes, second: bytes, speaker: str, listener: str) -> bytes:
        told = b"\0".join((_MAGIC, role, speaker.encode(), listener.encode()))
        return hmac.new(self._secret, first + second + told, sha256).digest()


def _name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise Malformed("its name cannot be read") from None
    if not 0 < len(raw) <= MAX_NAME_BYTES or not name.isprintable():
        raise Malformed("its name cannot be read")
    return name
