"""RFC 3711: its vectors and libsrtp's, libsrtp as the other side, and both of our own against each other."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pylibsrtp
import pytest
from pylibsrtp import Policy

from trunkline.media import native
from trunkline.media.native.compiled_srtp import CompiledSrtp
from trunkline.media.native.plain_srtp import PlainSrtp, _crypt
from trunkline.media.native.srtp import RTCP_ROOM, STREAMS, TAG_ROOM, TAGS, WINDOW, Streams
from trunkline.rtp import packet

KEY = bytes.fromhex("E1F97A0D3E018BE0D64FA32C06DE4139")
SALT = bytes.fromhex("0EC675AD498AFEEBB6960B3AABE6")
SSRC = 0xCAFEBABE
PROFILES = {10: Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 4: Policy.SRTP_PROFILE_AES128_CM_SHA1_32}
STRIDE = 800


@pytest.fixture(params=["compiled", "portable", "fallback"])
def srtp(request: pytest.FixtureRequest) -> Iterator[Any]:
    """`portable`: the compiled one without the processor's own AES and SHA."""
    made: Any = native.load("fallback" if request.param == "fallback" else "compiled").srtp()
    if request.param == "portable":
        assert made.hardware(False) == 0
    yield made
    if request.param == "portable":
        made.hardware(True)


class End:
    """One side: rows 0 and 1 of contexts; row 0 has no SRTP."""

    def __init__(self, srtp: Any, tag: int = 10, key: bytes = KEY + SALT) -> None:
        self.srtp = srtp
        self.contexts = np.zeros((2, srtp.context_bytes), np.uint8)
        srtp.keys(self.contexts[1], key[:16], key[16:], tag)
        self.on = np.array([0, 1], np.uint8)
        self.last = np.full(2, -1, np.int64)
        self.rtcp_last = np.full(2, -1, np.int64)
        self.streams, self.rtcp_streams = (
            Streams(
                np.full((2, STREAMS), -1, np.int64), np.zeros((2, STREAMS), np.int64), np.zeros((2, STREAMS), np.uint64)
            )
            for _ in range(2)
        )
        self.refused = np.zeros(2, np.int64)

    def protect(self, plain: bytes, row: int = 1) -> bytes:
        data, length = np.zeros((2, STRIDE + TAG_ROOM), np.uint8), np.zeros(2, np.int32)
        data[row, : len(plain)], length[row] = list(plain), len(plain)
        self.srtp.protect(np.array([row]), data, length, self.on, self.contexts, self.last)
        return data[row, : length[row]].tobytes()

    def unprotect(self, secret: bytes, row: int = 1, *, rtcp: bool = False) -> bytes:
        data, length = np.zeros((1, STRIDE + TAG_ROOM), np.uint8), np.array([len(secret)], np.int32)
        data[0, : len(secret)] = list(secret)
        streams = self.rtcp_streams if rtcp else self.streams
        self.srtp.unprotect(
            1, np.array([row], np.int32), data, length, self.on, self.contexts, streams, self.refused, rtcp=rtcp
        )
        return data[0, : length[0]].tobytes()

    def protect_rtcp(self, plain: bytes) -> bytes:
        found: bytes = self.srtp.protect_rtcp(plain, self.contexts[1], self.rtcp_last[1:2])
        return found


def library(tag: int = 10, *, outbound: bool, key: bytes = KEY + SALT) -> pylibsrtp.Session:
    kind = Policy.SSRC_ANY_OUTBOUND if outbound else Policy.SSRC_ANY_INBOUND
    policy = Policy(key=key, ssrc_type=kind, srtp_profile=PROFILES[tag])
    policy.window_size = 128
    return pylibsrtp.Session(policy)


def rtp(sequence: int, payload: bytes = b"\xab" * 16, ssrc: int = SSRC) -> bytes:
    return packet.Packet(
        payload_type=15, sequence=sequence & 0xFFFF, timestamp=0xDECAFBAD, ssrc=ssrc, payload=payload
    ).encode()


# -- vectors


def test_the_key_stream_of_rfc_3711_b2() -> None:
    key = bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3C")
    stream = _crypt(key, int("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000", 16), bytes(48))
    assert stream.hex().upper() == (
        "E03EAD0935C95E80E166B16DD92B4EB4D23513162B02D0F72A43A2FE4A5F97AB41E95B3BB0A2E8DD477901E4FCA894C0"
    )


def test_the_session_keys_of_rfc_3711_b3() -> None:
    plain, compiled = PlainSrtp(), CompiledSrtp(native.load("compiled")._library)  # type: ignore[attr-defined]
    context = np.zeros(plain.context_bytes, np.uint8)
    plain.keys(context, KEY, SALT, 10)
    raw = context.tobytes().hex().upper()
    assert raw.startswith(
        "C61E7A93744F39EE10734AFE3FF7A087CEBE321F6FF7716B6FD4AB49AF256A156D38BAA430CBBC08863D8C85D49DB34A9AE1"
    )
    context = np.zeros(compiled.context_bytes, np.uint8)
    compiled.keys(context, KEY, SALT, 10)
    if compiled.hardware(True) & 1:  # then the first round key is the key
        assert context[:16].tobytes().hex().upper() == "C61E7A93744F39EE10734AFE3FF7A087"
    assert context[216:230].tobytes().hex().upper() == "30CBBC08863D8C85D49DB34A9AE1"


def test_the_packets_of_libsrtps_own_test(srtp: Any) -> None:
    plain = bytes.fromhex("800f1234decafbadcafebabe") + b"\xab" * 16
    secret = "800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb"
    assert End(srtp).protect(plain).hex() == secret
    assert End(srtp).unprotect(bytes.fromhex(secret)) == plain
    report = bytes.fromhex("81c8000bcafebabe") + b"\xab" * 16
    secret = "81c8000bcafebabe7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798"
    end = End(srtp)
    end.rtcp_last[1] = 0
    assert library(outbound=True).protect_rtcp(report).hex() == secret
    assert end.protect_rtcp(report).hex() == secret
    assert end.unprotect(bytes.fromhex(secret), rtcp=True) == report


# -- with libsrtp


@pytest.mark.parametrize("tag", TAGS.values())
def test_libsrtp_and_we_read_each_other_across_the_wrap(srtp: Any, tag: int) -> None:
    ours, sender, receiver = End(srtp, tag), library(tag, outbound=True), library(tag, outbound=False)
    chance = random.Random(1)
    sizes = [0, 1, 15, 16, 17, 63, 64, 65, 160, 240, 255, 256, 257, 640]
    for n in range(65_500, 65_500 + 3 * len(sizes)):
        plain = rtp(n, chance.randbytes(sizes[n % len(sizes)]))
        secret = ours.protect(plain)
        assert secret == sender.protect(plain)
        assert len(secret) == len(plain) + tag
        assert receiver.unprotect(secret) == plain
        assert ours.unprotect(secret) == plain
    assert ours.last[1] >> 16 == 1
    assert ours.refused.tolist() == [0, 0]


def test_contributing_sources_and_extensions_stay_readable(srtp: Any) -> None:
    ours, sender, receiver = End(srtp), library(outbound=True), library(outbound=False)
    head = rtp(1)[:12]
    long = bytes((0x92,)) + head[1:] + bytes(range(8)) + b"\xbe\xde\0\2" + bytes(8) + b"voice"
    secret = ours.protect(long)
    assert secret == sender.protect(long)
    assert secret[:32] == long[:32]
    assert receiver.unprotect(secret) == long
    assert ours.unprotect(secret) == long


@pytest.mark.parametrize("tag", TAGS.values())
def test_rtcp_with_libsrtp(srtp: Any, tag: int) -> None:
    ours, sender, receiver = End(srtp, tag), library(tag, outbound=True), library(tag, outbound=False)
    chance = random.Random(2)
    for words in (1, 2, 7, 20, 100):
        report = bytes((0x80, 200, 0, words)) + SSRC.to_bytes(4, "big") + chance.randbytes(4 * (words - 1))
        secret = ours.protect_rtcp(report)
        assert len(secret) == len(report) + RTCP_ROOM
        assert receiver.unprotect_rtcp(secret) == report
        assert ours.unprotect(sender.protect_rtcp(report), rtcp=True) == report
    assert ours.refused.tolist() == [0, 0]


# -- what is refused


@pytest.mark.parametrize("tag", TAGS.values())
def test_whatever_is_changed_is_noticed(srtp: Any, tag: int) -> None:
    ours, sender = End(srtp, tag), library(tag, outbound=True)
    secret = sender.protect(rtp(5, b"\x55" * 20))
    for at in range(len(secret)):
        changed = secret[:at] + bytes((secret[at] ^ 1 << at % 8,)) + secret[at + 1 :]
        assert ours.unprotect(changed) == b"", at
    for end in range(len(secret)):
        assert ours.unprotect(secret[:end]) == b"", end
    assert int(ours.refused.sum()) == 2 * len(secret)
    assert ours.unprotect(secret) == rtp(5, b"\x55" * 20)
    report = sender.protect_rtcp(bytes((0x80, 200, 0, 2)) + bytes(8))
    for at in range(len(report)):
        assert ours.unprotect(report[:at] + bytes((report[at] ^ 0x80,)) + report[at + 1 :], rtcp=True) == b"", at
    assert ours.unprotect(report, rtcp=True)


def test_the_wrong_key_and_plain_packets_are_refused(srtp: Any) -> None:
    ours = End(srtp)
    assert ours.unprotect(library(outbound=True, key=bytes(30)).protect(rtp(1))) == b""
    assert ours.unprotect(rtp(1, bytes(160))) == b""
    assert ours.unprotect(b"\x00\x01\x00\x08" + bytes(28)) == b""
    assert ours.refused.tolist() == [3, 0]
    assert (ours.streams.ssrc == -1).all()


def test_a_report_that_is_not_encrypted_is_refused(srtp: Any) -> None:
    """UNENCRYPTED_SRTCP is never agreed on."""
    ours = End(srtp)
    secret = ours.protect_rtcp(bytes((0x80, 200, 0, 2)) + bytes(8))
    plain = secret[:-14] + bytes((secret[-14] & 0x7F,)) + secret[-13:]
    assert ours.unprotect(plain, rtcp=True) == b""


def test_a_packet_is_heard_once_and_in_any_order_within_the_window(srtp: Any) -> None:
    ours, sender = End(srtp), library(outbound=True)
    first = 65_536 - 40
    secrets = {n: sender.protect(rtp(n)) for n in range(first, first + 200)}
    order = list(range(first, first + 100))
    order[40:60] = order[40:60][::-1]
    for n in order:
        assert ours.unprotect(secrets[n]) == rtp(n), n
    for n in order:
        assert ours.unprotect(secrets[n]) == b"", n
    assert ours.refused[1] == len(order)
    assert ours.unprotect(secrets[first + 199]) == rtp(first + 199)
    assert ours.unprotect(secrets[first + 199 - WINDOW + 1]) == rtp(first + 199 - WINDOW + 1)
    assert ours.unprotect(secrets[first + 199 - WINDOW]) == b""
    report = sender.protect_rtcp(bytes((0x80, 200, 0, 2)) + bytes(8))
    assert ours.unprotect(report, rtcp=True)
    assert ours.unprotect(report, rtcp=True) == b""


def test_each_sender_has_indices_of_its_own(srtp: Any) -> None:
    ours = End(srtp)
    senders = [library(outbound=True) for _ in range(STREAMS)]
    secrets = []
    for n in range(70_000 // 20_000 * 4):
        for i, sender in enumerate(senders):
            secrets.append(sender.protect(rtp(60_000 + 700 * n, ssrc=10 + i)))
            assert ours.unprotect(secrets[-1]) == rtp(60_000 + 700 * n, ssrc=10 + i)
    assert [ours.unprotect(secret) for secret in secrets] == [b""] * len(secrets)


def test_no_index_is_used_twice(srtp: Any) -> None:
    ours = End(srtp)
    assert ours.protect(rtp(7))
    assert ours.protect(rtp(7, b"other")) == b""
    assert ours.protect(rtp(6)) == b""
    assert ours.protect(rtp(8))
    ours.last[1] = (1 << 48) - 1
    assert ours.protect(rtp(0)) == b""
    ours.rtcp_last[1] = (1 << 31) - 1
    assert ours.protect_rtcp(bytes(8)) == b""


def test_legs_without_srtp_pass_as_they_are(srtp: Any) -> None:
    ours = End(srtp)
    for data in (rtp(1), b"", b"x", bytes(STRIDE)):
        assert ours.unprotect(data, row=0) == data
        assert ours.protect(data, row=0) == data


def test_ours_do_the_same_with_whatever_comes() -> None:
    compiled, plain = End(native.load("compiled").srtp()), End(native.load("fallback").srtp())
    chance, sender = random.Random(4), library(outbound=True)
    sequence, kept = 65_000, [b""]
    mangle: list[Callable[[bytes], bytes]] = [
        lambda data: data,
        lambda data: data,
        lambda data: data,
        lambda data: data[: chance.randrange(len(data) + 1)],
        lambda data: chance.choice(kept),
        lambda data: chance.randbytes(chance.randrange(60)),
        lambda data: bytes((0x90,)) + data[1:],
    ]
    for _ in range(3000):
        sequence += chance.choice([1, 1, 1, 1, 2, 30, 100])
        data = chance.choice(mangle)(sender.protect(rtp(sequence, chance.randbytes(20), chance.choice([1, 2]))))
        kept = [*kept[-200:], data]
        assert compiled.unprotect(data) == plain.unprotect(data)
        assert compiled.refused.tolist() == plain.refused.tolist()
    for one, two in zip(compiled.streams, plain.streams, strict=True):
        assert np.array_equal(one, two)
