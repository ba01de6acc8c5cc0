"""SRTP without a compiler: OpenSSL's AES and SHA-1, a packet at a time. Slower by a factor, otherwise the same."""

import hmac
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from trunkline.media.native.interface import HEADER, Bytes, Int32s, Ints
from trunkline.media.native.srtp import (
    KEY_BYTES,
    NOT_AUTHENTIC,
    REPLAYED,
    RTCP_TAG,
    SALT_BYTES,
    STREAMS,
    WINDOW,
    Streams,
)

AUTH_BYTES: Final = 20
_SESSION: Final = KEY_BYTES + AUTH_BYTES + SALT_BYTES
_RTP, _RTCP, _TAG = 0, _SESSION, 2 * _SESSION
"""Where in a context what lies."""
MOST_INDEX: Final = (1 << 48) - 1
MOST_RTCP: Final = (1 << 31) - 1
_MASK: Final = (1 << 64) - 1


class _Keys:
    """Session keys of RTP or RTCP, read from a context."""

    def __init__(self, context: Bytes, at: int) -> None:
        raw = context[at : at + _SESSION].tobytes()
        self.key, self.auth = raw[:KEY_BYTES], raw[KEY_BYTES : KEY_BYTES + AUTH_BYTES]
        self.salt = int.from_bytes(raw[KEY_BYTES + AUTH_BYTES :], "big")

    def crypt(self, ssrc: int, index: int, data: bytes) -> bytes:
        """RFC 3711 section 4.1.1."""
        return _crypt(self.key, self.salt << 16 ^ ssrc << 64 ^ index << 16, data)

    def tag(self, data: bytes) -> bytes:
        return hmac.digest(self.auth, data, "sha1")


def _crypt(key: bytes, iv: int, data: bytes) -> bytes:
    encryptor = Cipher(AES(key), CTR(iv.to_bytes(16, "big"))).encryptor()
    return encryptor.update(data) + encryptor.finalize()


class PlainSrtp:
    """See srtp.Srtp."""

    context_bytes = _TAG + 1

    def keys(self, context: Bytes, key: bytes, salt: bytes, tag: int) -> None:
        made = b""
        for label, length in enumerate(2 * (KEY_BYTES, AUTH_BYTES, SALT_BYTES)):
            made += _crypt(key, (int.from_bytes(salt, "big") ^ label << 48) << 16, bytes(length))
        context[:] = list(made + bytes((tag,)))

    def unprotect(
        self,
        count: int,
        rows: Int32s,
        data: Bytes,
        length: Int32s,
        on: Bytes,
        contexts: Bytes,
        streams: Streams,
        refused: Ints,
        *,
        rtcp: bool,
    ) -> None:
        opened = _open_rtcp if rtcp else _open_rtp
        for i in range(count):
            row = int(rows[i])
            if on[row]:
                mine = Streams(streams.ssrc[row], streams.highest[row], streams.window[row])
                plain = opened(contexts[row], mine, data[i, : length[i]].tobytes())
                if isinstance(plain, int):
                    refused[plain] += 1
                    plain = b""
                data[i, : len(plain)] = list(plain)
                length[i] = len(plain)

    def protect(self, rows: Ints, data: Bytes, length: Int32s, on: Bytes, contexts: Bytes, last: Ints) -> None:
        for row in rows.tolist():
            if on[row]:
                packet = self._protected(data[row, : length[row]].tobytes(), contexts[row], last[row : row + 1])
                data[row, : len(packet)] = list(packet)
                length[row] = len(packet)

    @staticmethod
    def _protected(packet: bytes, context: Bytes, last: Ints) -> bytes:
        at = _payload_at(packet)
        index = _index_of(int(last[0]), int.from_bytes(packet[2:4], "big"))
        if not at or index <= last[0] or index > MOST_INDEX:
            return b""
        last[0] = index
        keys = _Keys(context, _RTP)
        packet = packet[:at] + keys.crypt(int.from_bytes(packet[8:12], "big"), index, packet[at:])
        return packet + keys.tag(packet + (index >> 16).to_bytes(4, "big"))[: context[_TAG]]

    def protect_rtcp(self, packet: bytes, context: Bytes, last: Ints) -> bytes:
        index = int(last[0]) + 1
        if len(packet) < 8 or index > MOST_RTCP:
            return b""
        last[0] = index
        keys = _Keys(context, _RTCP)
        packet = packet[:8] + keys.crypt(int.from_bytes(packet[4:8], "big"), index, packet[8:])
        packet += (1 << 31 | index).to_bytes(4, "big")
        return packet + keys.tag(packet)[:RTCP_TAG]


def _open_rtp(context: Bytes, streams: Streams, packet: bytes) -> bytes | int:
    """The RTP packet, or why it is refused."""
    at, end = _payload_at(packet), len(packet) - int(context[_TAG])
    if not at or end < at:
        return NOT_AUTHENTIC
    ssrc = int.from_bytes(packet[8:12], "big")
    k = _find(streams, ssrc)
    index = _index_of(int(streams.highest[k]) if k < STREAMS else -1, int.from_bytes(packet[2:4], "big"))
    if index < 0 or _replayed(streams, k, index):
        return REPLAYED
    keys = _Keys(context, _RTP)
    tag = keys.tag(packet[:end] + (index >> 16).to_bytes(4, "big"))
    if not hmac.compare_digest(tag[: context[_TAG]], packet[end:]):
        return NOT_AUTHENTIC
    _came(streams, k, ssrc, index)
    return packet[:at] + keys.crypt(ssrc, index, packet[at:end])


def _open_rtcp(context: Bytes, streams: Streams, packet: bytes) -> bytes | int:
    """The RTCP packet, or why it is refused."""
    end = len(packet) - RTCP_TAG - 4
    if end < 8 or packet[0] >> 6 != 2:
        return NOT_AUTHENTIC
    ssrc, word = int.from_bytes(packet[4:8], "big"), int.from_bytes(packet[end : end + 4], "big")
    k, index = _find(streams, ssrc), word & MOST_RTCP
    if _replayed(streams, k, index):
        return REPLAYED
    keys = _Keys(context, _RTCP)
    if not word >> 31 or not hmac.compare_digest(keys.tag(packet[: end + 4])[:RTCP_TAG], packet[end + 4 :]):
        return NOT_AUTHENTIC
    _came(streams, k, ssrc, index)
    return packet[:8] + keys.crypt(ssrc, index, packet[8:end])


def _payload_at(packet: bytes) -> int:
    """Where the payload of an RTP packet begins, 0 if it is none."""
    if len(packet) < HEADER or packet[0] >> 6 != 2:
        return 0
    at = HEADER + 4 * (packet[0] & 15)
    if packet[0] & 0x10:
        if at + 4 > len(packet):
            return 0
        at += 4 + 4 * int.from_bytes(packet[at + 2 : at + 4], "big")
    return at if at <= len(packet) else 0


def _index_of(highest: int, sequence: int) -> int:
    """RFC 3711 section 3.3.1; negative: there is none."""
    if highest < 0:
        return sequence
    rollover, newest = highest >> 16, highest & 0xFFFF
    if newest < 0x8000:
        rollover -= sequence - newest > 0x8000
    else:
        rollover += newest - 0x8000 > sequence
    return -1 if rollover < 0 else rollover << 16 | sequence


def _find(streams: Streams, ssrc: int) -> int:
    """The column of a sender, STREAMS if it is new."""
    found = streams.ssrc.tolist()
    return found.index(ssrc) if ssrc in found else STREAMS


def _replayed(streams: Streams, k: int, index: int) -> bool:
    if k == STREAMS or index > streams.highest[k]:
        return False
    behind = int(streams.highest[k]) - index
    return behind >= WINDOW or bool(int(streams.window[k]) >> behind & 1)


def _came(streams: Streams, k: int, ssrc: int, index: int) -> None:
    """Note that a packet came; its sender goes first."""
    window = 1
    if k < STREAMS:
        highest, before = int(streams.highest[k]), int(streams.window[k])
        ahead = index - highest
        window = (before << min(ahead, WINDOW) | 1) & _MASK if ahead > 0 else before | 1 << -ahead
        index = max(index, highest)
    last = min(k, STREAMS - 1)
    for column in streams:
        column[1 : last + 1] = column[:last].copy()
    streams.ssrc[0], streams.highest[0], streams.window[0] = ssrc, index, window
