"""Legs with SRTP. The other side is libsrtp."""

import random
from base64 import b64encode
from typing import Any

import numpy as np
import pylibsrtp
import pytest
from pylibsrtp import Policy

from tests.media.engine.rig import PEER, Peer, Rig, WiredHelper, exact, sine
from trunkline.media import native, protocol
from trunkline.rtp import packet, rtcp

SUITES = {
    "AES_CM_128_HMAC_SHA1_80": Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "AES_CM_128_HMAC_SHA1_32": Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
}
LONG, SHORT = SUITES


def key(seed: int) -> bytes:
    return random.Random(seed).randbytes(30)


def srtp(ours: int = 1, theirs: int = 2, suite: str = LONG) -> protocol.Srtp:
    return protocol.Srtp(suite=suite, ours=b64encode(key(ours)).decode(), theirs=b64encode(key(theirs)).decode())


def session(suite: str, number: int, *, outbound: bool) -> pylibsrtp.Session:
    kind = Policy.SSRC_ANY_OUTBOUND if outbound else Policy.SSRC_ANY_INBOUND
    return pylibsrtp.Session(Policy(key=key(number), ssrc_type=kind, srtp_profile=SUITES[suite]))


class SecurePeer(Peer):
    """The far end of a leg with SRTP."""

    def secure(self, ours: int = 1, theirs: int = 2, suite: str = LONG) -> None:
        """`ours` and `theirs` as the leg sees it."""
        self.sender = session(suite, theirs, outbound=True)
        self.receiver = session(suite, ours, outbound=False)

    def send(self, payload: bytes, payload_type: int = 0, *, marker: bool = False, copies: int = 1) -> None:
        super().send(payload, payload_type, marker=marker, copies=copies)
        queue = self.rig.wire.inbox[2 * self.slot]
        data, source, at = queue[-1]
        for _ in range(copies):
            queue.pop()
        queue.extend([(self.sender.protect(data), source, at)] * copies)

    def packets(self) -> list[packet.Packet]:
        sent = self.rig.wire.outbox[2 * self.slot][self._taken :]
        self._taken += len(sent)
        return [packet.parse(self.receiver.unprotect(data)) for data, _ in sent]

    def reports(self) -> list[rtcp.Report]:
        """Those that came since the last time."""
        outbox = self.rig.wire.outbox[2 * self.slot + 1]
        sent = [self.receiver.unprotect_rtcp(data) for data, _ in outbox]
        outbox.clear()
        return [rtcp.parse(data) for data in sent]


@pytest.fixture(params=["compiled", "fallback"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(request.param)


def open_secure(rig: Rig, name: str = "a", *, suite: str = LONG, **fields: Any) -> SecurePeer:
    plain = rig.open(name, srtp=srtp(suite=suite), **fields)
    peer = SecurePeer(rig, plain.slot)
    peer.secure(suite=suite)
    return peer


def talk(rig: Rig, peer: Peer, ticks: int = 6) -> None:
    for _ in range(ticks):
        peer.speak(sine(400))
        rig.tick()


def modify(rig: Rig, **fields: Any) -> None:
    rig.do(protocol.Modify(leg="a", payload_types={0: "PCMU", 101: "telephone-event"}, remote=PEER, **fields))


def hears_sine(rig: Rig, name: str = "a") -> bool:
    return bool(np.array_equal(rig.hears(name), exact(sine(400))))


@pytest.mark.parametrize("suite", SUITES)
def test_both_sides_hear_each_other(rig: Rig, suite: str) -> None:
    peer = open_secure(rig, suite=suite)
    rig.do(protocol.Play(leg="a", play="p", items=[protocol.Tone(parts=[((440,), 100)])], loop=0))
    talk(rig, peer, 10)
    assert hears_sine(rig)
    audio = peer.heard()
    assert len(audio) == 10 * 160
    assert np.abs(audio).max() > 1000
    assert peer.target() == PEER
    assert rig.engine.secure.not_authentic == rig.engine.secure.replayed == 0


def test_plain_packets_and_wrong_keys_are_neither_heard_nor_latched_to(rig: Rig) -> None:
    peer = open_secure(rig, latch_from=("198.51.100.9",))
    stranger = SecurePeer(rig, peer.slot, source=("198.51.100.9", 5000))
    stranger.secure(theirs=9)
    plain = Peer(rig, peer.slot, source=("198.51.100.9", 5002))
    for _ in range(6):
        stranger.speak(sine(400))
        plain.speak(sine(400))
        rig.tick()
    assert not rig.hears().any()
    assert not rig.state.latched[rig.row()]
    assert rig.engine.secure.not_authentic == 12
    assert peer.target() == PEER
    talk(rig, peer)
    assert hears_sine(rig)


def test_what_comes_twice_is_counted_once(rig: Rig) -> None:
    peer = open_secure(rig)
    for _ in range(10):
        peer.speak(sine(400), copies=3)
        rig.tick()
    assert rig.engine.secure.replayed == 20
    assert rig.state.received[rig.row()] == 10


def test_the_rollover_of_both_sides(rig: Rig) -> None:
    peer = open_secure(rig)
    rig.state.sequence[rig.row()] = 65_530
    talk(rig, peer, 20)
    assert peer.sequence > 65_536
    assert hears_sine(rig)
    assert [one.sequence for one in peer.packets()] == [n & 0xFFFF for n in range(65_530, 65_550)]
    assert rig.state.srtp_last[rig.row()] == 65_549


def test_keys_pressed_are_encrypted_and_heard(rig: Rig) -> None:
    peer = open_secure(rig)
    talk(rig, peer)
    rig.do(protocol.Play(leg="a", play="p", items=[protocol.Digits(digits="5")]))
    rig.tick(12)
    events = [one for one in peer.packets() if one.payload_type == 101]
    assert events
    assert events[0].payload[0] == 5
    peer.send(bytes((7, 0x80, 1, 0x40)), 101)
    rig.tick()
    assert [event.digit for event in rig.told(protocol.Digit)] == ["7"]


def test_reports_are_secret_too(rig: Rig) -> None:
    peer = open_secure(rig)
    talk(rig, peer, 200)
    assert peer.reports()[0].sender is not None
    own = int(rig.state.own_ssrc[rig.row()])
    report = rtcp.compound(77, "x", sender=None, blocks=(rtcp.Block(own, 0, 5),))
    rig.deliver(peer.slot, report, rtcp=True)
    rig.tick(30)
    assert rig.state.remote_lost[rig.row()] == 0
    rig.deliver(peer.slot, peer.sender.protect_rtcp(report), rtcp=True)
    rig.tick(30)
    assert rig.state.remote_lost[rig.row()] == 5
    rig.do(protocol.Close(leg="a"))
    assert peer.reports()[-1].bye


def test_a_secure_leg_is_bridged_with_a_plain_one(rig: Rig) -> None:
    peer, plain = open_secure(rig), rig.open("b", remote=("192.0.2.9", 6000))
    plain.source = ("192.0.2.9", 6000)
    rig.do(protocol.Bridge(a="a", b="b"))
    for _ in range(8):
        peer.speak(sine(400))
        plain.speak(sine(600))
        rig.tick()
    assert np.array_equal(plain.heard()[-160:], exact(exact(sine(400))))
    assert np.array_equal(peer.heard()[-160:], exact(exact(sine(600))))


# -- re-INVITEs


def test_the_same_keys_again_go_on_with_their_indices(rig: Rig) -> None:
    peer = open_secure(rig)
    talk(rig, peer)
    last = int(rig.state.srtp_last[rig.row()])
    modify(rig, srtp=srtp())
    talk(rig, peer)
    assert hears_sine(rig)
    assert rig.state.srtp_last[rig.row()] == last + 6
    assert len(peer.packets()) == 12


def test_a_new_key_of_theirs_begins_anew(rig: Rig) -> None:
    peer = open_secure(rig)
    talk(rig, peer, 12)  # over the wrap: the old key's rollover counter is 1
    modify(rig, srtp=srtp(theirs=5))
    peer.sender = session(LONG, 5, outbound=True)
    talk(rig, peer)
    assert hears_sine(rig)
    assert len(peer.packets()) == 18
    old = SecurePeer(rig, peer.slot)
    old.secure()
    old.sequence, old.timestamp = peer.sequence, peer.timestamp
    talk(rig, old, 1)
    assert rig.engine.secure.not_authentic == 1


def test_suites_may_change_to_and_fro_and_no_index_comes_twice(rig: Rig) -> None:
    peer = open_secure(rig)
    sent: set[tuple[str, int]] = set()
    ours = {LONG: 1, SHORT: 3}
    for suite in (LONG, SHORT, LONG, SHORT):
        modify(rig, srtp=srtp(ours=ours[suite], theirs=8, suite=suite))
        before = int(rig.state.srtp_last[rig.row()])
        rig.tick(5)
        used = {(suite, index) for index in range(before + 1, int(rig.state.srtp_last[rig.row()]) + 1)}
        assert len(used) >= 5
        assert not used & sent
        sent |= used
    assert not peer.rig.told(protocol.Refused)


def test_a_session_may_become_secure_and_plain(rig: Rig) -> None:
    plain = rig.open()
    talk(rig, plain)
    modify(rig, srtp=srtp())
    plain.packets()
    peer = SecurePeer(rig, plain.slot)
    peer.secure()
    peer._taken = plain._taken
    peer.sequence, peer.timestamp = 100, 5000
    talk(rig, peer)
    assert hears_sine(rig)
    assert len(peer.packets()) == 6
    last = int(rig.state.srtp_last[rig.row()])
    modify(rig)
    plain._taken = peer._taken
    plain.sequence, plain.timestamp = 200, 9000
    talk(rig, plain)
    assert hears_sine(rig)
    assert len(plain.packets()) == 6
    modify(rig, srtp=srtp())
    rig.tick()
    assert rig.state.srtp_last[rig.row()] > last


@pytest.mark.parametrize(
    "bad",
    [
        protocol.Srtp(suite="AES_256", ours=srtp().ours, theirs=srtp().theirs),
        protocol.Srtp(suite=LONG, ours="", theirs=srtp().theirs),
        protocol.Srtp(suite=LONG, ours=srtp().ours, theirs="A" * 41),
        protocol.Srtp(suite=LONG, ours=srtp().ours, theirs="é" * 40),
    ],
)
def test_keys_that_are_none_are_refused(rig: Rig, bad: protocol.Srtp) -> None:
    rig.do(protocol.Open(leg="x", slot=rig.engine.slots.leased()[0][0], srtp=bad))
    assert "SRTP" in rig.told(protocol.Refused)[0].reason
    assert "x" not in rig.engine.legs
    peer = open_secure(rig)
    modify(rig, srtp=bad)
    assert rig.told(protocol.Refused)
    talk(rig, peer)
    assert hears_sine(rig)


# -- successors


@pytest.mark.parametrize("helpers", [("compiled", "compiled"), ("compiled", "fallback"), ("fallback", "compiled")])
def test_a_successor_goes_on_and_hears_nothing_twice(helpers: tuple[str, str]) -> None:
    rig = Rig(helpers[0])
    peer = open_secure(rig)
    talk(rig, peer, 20)
    peer.speak(sine(400))
    repeated = rig.wire.inbox[2 * peer.slot].copy()
    rig.tick()
    rig.helper = WiredHelper(rig.wire, native.load(helpers[1]))
    rig.replace_process()
    rig.wire.inbox[2 * peer.slot].extend(repeated)
    talk(rig, peer, 20)
    assert hears_sine(rig)
    assert rig.engine.secure.replayed == 1
    assert [one.sequence for one in peer.packets()] == [
        (int(rig.state.sequence[rig.row()]) - 41 + n) & 0xFFFF for n in range(41)
    ]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("helper", ["compiled", "fallback"])
@pytest.mark.parametrize("where", ["pack", "protect", "send"])
def test_a_process_that_dies_while_it_sends_leaves_no_index_to_use_again(where: str, helper: str) -> None:
    rig = Rig(helper)
    peer = open_secure(rig)
    talk(rig, peer, 5)
    owner, name = {
        "pack": (rig.helper, "pack"),
        "protect": (rig.engine.secure, "send"),
        "send": (rig.helper, "send"),
    }[where]
    inner = getattr(owner, name)

    def die(*given: Any) -> None:
        inner(*given)
        raise Killed

    setattr(owner, name, die)
    with pytest.raises(Killed):
        rig.tick()
    rig.helper = WiredHelper(rig.wire, native.load(helper))
    rig.replace_process()
    talk(rig, peer, 5)
    sequences = [one.sequence for one in peer.packets()]
    assert len(sequences) == 10 + (where == "send")
    assert len(set(sequences)) == len(sequences)
    assert rig.engine.send_errors == 0


def test_keys_are_in_no_representation_and_no_event(rig: Rig) -> None:
    open_secure(rig)
    rig.tick(600)
    told = f"{rig.events!r} {rig.engine.snapshot()!r} {rig.engine.legs['a'].description!r} {srtp()}"
    assert not any(text in told for text in (srtp().ours, srtp().theirs))
