"""Mutated SIP messages and session descriptions in bulk: only the documented errors, bounded time and memory."""

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sip.rfc4475 import behaviour, invalid, valid
from tests.sip.samples import INVITE, OFFER
from tests.sip.test_sdp import RICH
from trunkline.sip.digest import parse_challenge, parse_credentials, verify
from trunkline.sip.headers import parse_list
from trunkline.sip.message import MalformedMessage, Request, Response, parse
from trunkline.sip.number import called_of, caller_of, custom_headers, forwarded_from, reason_of
from trunkline.sip.offer_answer import Local, NotAcceptable, answer, conclude, offer, revise
from trunkline.sip.stream import KEEPALIVE, StreamParser

FAST, SLOW = 100_000, 1_000_000
"""Messages of a run, descriptions included."""
MAX_GROWTH_BYTES = 48 * 1024 * 1024
MAX_MESSAGE_S = 0.5
"""CPU time, far above what any one may take; catches what is not linear in the input."""
STREAM_BYTES = 16 * 1024

MESSAGES = [
    value
    for module in (valid, invalid, behaviour)
    for name, value in vars(module).items()
    if isinstance(value, bytes) and not name.startswith("_")
] + [
    INVITE,
    INVITE.replace(
        b"Max-Forwards: 70\r\n",
        b'Authorization: Digest username="u", realm="r", nonce="n", uri="sip:h", response="0", qop=auth, nc=00000001, '
        b'cnonce="c"\r\nDiversion: "x" <sip:+15551110001@h>;reason=unconditional\r\nX-A: 1\r\n'
        b"History-Info: <sip:a@h?Reason=SIP%3Bcause%3D302>;index=1, <sip:b@h>;index=1.1\r\n"
        b'Reason: Q.850;cause=16;text="x"\r\nRoute: <sip:p1;lr>, <sip:p2;lr>\r\nPrivacy: none\r\n',
    ),
]
OFFERS = [OFFER, RICH, INVITE.partition(b"\r\n\r\n")[2], valid.WSINV.partition(b"\r\n\r\n")[2]]
PIECES = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\r\n ", b"\x00", b"\xff", b"\xc3\xa9", b'"', b"\\", b"<", b">",
    b";", b",", b"=", b":", b"@", b"%", b"%00", b"[", b"]", b"/", b"?", b"sip:", b"tel:", b"SIP/2.0", b"-1", b"0",
    b"99999999999999999999", b"4294967296", b";tag=", b";lr", b"a=", b"m=audio 1 RTP/AVP 0\r\n", b"v=0\r\n",
    b"c=IN IP4 0.0.0.0\r\n", b"a=sendonly\r\n", b"Content-Length: 5\r\n", b"Via: SIP/2.0/UDP h\r\n", b"l: 0\r\n",
    b" " * 500, b'"' * 200, b"(" * 200, b";;" * 100, b"A" * 1000,
]  # fmt: skip


def mutated(dice: random.Random, seeds: list[bytes]) -> bytes:
    """One to six cuts, insertions, repetitions and swaps, mostly of few bytes."""
    data = dice.choice(seeds)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
        size = len(data)
        at = dice.randrange(size + 1)
        end = at + dice.choice((0, 1, 2, 10, 60))
        kind = dice.randrange(6)
        if kind <= 1:
            data = data[:at] + dice.choice(PIECES) + data[end:]
        elif kind == 2:
            data = data[:at] + data[end:]
        elif kind == 3:
            data = data[:at] + data[at:end] * dice.randint(2, 5) + data[end:]
        elif kind == 4:
            data = data[:at] + dice.randbytes(dice.randint(1, 4)) + data[end:]
        else:
            other = dice.choice(seeds)
            data = data[:at] + other[dice.randrange(len(other)) :][: dice.randint(1, 200)] + data[end:]
    return data


def use_message(data: bytes) -> None:
    """What the layers above do with every message."""
    message: Request | Response
    refused = None
    try:
        message = parse(data)
    except MalformedMessage as error:
        refused = error
    if refused is not None:
        assert 400 <= refused.status <= 599
        if refused.partial is None:
            return
        message = refused.partial
        assert Response.make(message, refused.status, to_tag="t").encode()
    if isinstance(message, Request):
        assert caller_of(message).number_or_uri
        called_of(message), forwarded_from(message), reason_of(message.headers)
        assert all(value.isprintable() for value in custom_headers(message).values())
        again = Response.make(message, 200, to_tag="t").encode()
        assert again.count(b"\r\n\r\n") == 1
    for name, read in (("Authorization", parse_credentials), ("WWW-Authenticate", parse_challenge)):
        if name in message.headers:
            try:
                parsed = read(message.headers.get(name))
            except MalformedMessage:
                continue
            assert read is parse_challenge or not verify(parsed, {"MD5": "0" * 32}, "INVITE")  # type: ignore[arg-type]
    with contextlib.suppress(MalformedMessage):
        parse_list(message.headers.all("Route"))


LOCAL = Local(address="198.51.100.7", port=30_000, session_id=1, version=1)
OURS = offer(LOCAL)


def use_description(data: bytes) -> None:
    for negotiate in (lambda: answer(data, LOCAL), lambda: conclude(OURS, data, LOCAL)):
        try:
            got = negotiate()
        except NotAcceptable:
            continue
        assert got.codec in ("PCMU", "PCMA")
        assert 0 <= got.send_payload_type <= 127
        assert 10 <= got.ptime <= 60
        assert got.remote is None or 0 < got.remote[1] < 65_536
        # Our next offer and the version of it can always be made.
        assert revise(got.sdp, offer(LOCAL, got.sdp)).startswith(b"v=0\r\n")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def hammer(count: int, seeds: list[bytes], use: Callable[[bytes], None], seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(min(count // 10, 5000)):  # caches fill first
        use(mutated(dice, seeds))
    before, worst, worst_of = resident_bytes(), 0.0, b""
    for _ in range(count):
        data = mutated(dice, seeds)
        began = time.thread_time()
        use(data)
        took = time.thread_time() - began
        if took > worst:
            worst, worst_of = took, data
    assert worst < MAX_MESSAGE_S, worst_of[:2000]
    assert resident_bytes() - before < MAX_GROWTH_BYTES


def use_stream() -> Callable[[bytes], None]:
    """One connection after another, each closed when it fails."""
    parsers = [StreamParser(STREAM_BYTES)]

    def feed(data: bytes) -> None:
        parser = parsers[0]
        for item in parser.feed(data):
            assert item is KEEPALIVE or isinstance(item, MalformedMessage) or item.encode()
        assert parser.held <= STREAM_BYTES
        if parser.failed:
            parsers[0] = StreamParser(STREAM_BYTES)

    return feed


def run(count: int, seed: int) -> None:
    hammer(count // 2, MESSAGES, use_message, seed)
    hammer(count // 4, OFFERS, use_description, seed + 1)
    hammer(count // 4, [*MESSAGES, b"\r\n\r\n", INVITE[:200], INVITE[200:]], use_stream(), seed + 2)


def test_a_hundred_thousand_mutated_messages() -> None:
    run(FAST, 4475)


@pytest.mark.slow
def test_a_million_mutated_messages() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    run(SLOW, seed)
