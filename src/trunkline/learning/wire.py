"""What the parts of a learning run say to each other, as MessagePack: the node to the keeper (a batch a packet), and
the keeper to the processes that follow the work."""

from typing import Any, Final

import msgspec

MAX_PACKET: Final = 160_000
"""Bytes of one packet: below the send buffer that a Unix socket has by default (212,992)."""
MAX_ITEM: Final = 64_000
"""Bytes of a record or document; a larger one is shed."""


class Submit(msgspec.Struct, array_like=True, frozen=True, tag="submit"):
    """What a connector wrote for a message, as it would go to the wire with sequence number 0."""

    sid: str
    connector: str
    now_ms: int
    pdus: list[bytes]


class Step(msgspec.Struct, array_like=True, frozen=True, tag="step"):
    """A step of a message that was committed, with the callbacks that it owes."""

    sid: str
    status: str
    record: bytes
    owed: list[bytes]
    bound: str = ""
    """The connector that the sender's number is bound to."""
    avoid: list[str] = []
    """Connectors that were down."""


class Page(msgspec.Struct, array_like=True, frozen=True, tag="page"):
    """A document that a call runs, as it was fetched."""

    sid: str
    number: int
    """Counts the documents of the call."""
    url: str
    content_type: str
    body: bytes
    steps: list[str]
    """Its verbs, as production understood them."""
    verbs: int = 0
    """That the call had run before it."""
    method: str = ""
    """By which it was asked for; empty: it was given, by the API."""
    asked: str = ""
    """The URL, as the document before has it."""
    params: list[tuple[str, str]] = []
    """Beside the standard ones."""


class CallStep(msgspec.Struct, array_like=True, frozen=True, tag="call"):
    """The step that has ended a call, with the callbacks that it owes."""

    sid: str
    status: str
    record: bytes
    owed: list[bytes]


Item = Submit | Step | Page | CallStep


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """One packet of the node."""

    shed: int
    """What this node has shed so far since it found the run."""
    items: list[Item]


class Work(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a process is to follow: a step, with what the connectors wrote before it."""

    item: Item
    submits: list[Submit] = []
    pages: list[Page] = []


class Answer(msgspec.Struct, omit_defaults=True):
    """What a process made of it."""

    views: dict[str, Any] = {}
    """Aspect -> what it came to (see trunkline.learning.views)."""
    error: str = ""
    """What was raised."""
    followed: bool = True
    """False: it cannot say anything (it has not seen the beginning)."""
    ms: float = 0.0
    cpu_ms: float = 0.0


encode_batch = msgspec.msgpack.Encoder().encode
decode_batch = msgspec.msgpack.Decoder(Batch).decode
encode = msgspec.msgpack.Encoder().encode
decode_work = msgspec.msgpack.Decoder(Work).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
