"""What peers do to their streams in the middle of a call: hold, other codecs, packets of any length, new sources,
pauses, clocks that drift; and what the reports to them say."""

import secrets
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tests.e2e.audio_bridge import bridged, heard, noise, sounding
from tests.e2e.audio_line import Call, Line
from tests.e2e.audio_peer import MASK, Network, Peer, Samples, Wire, decoded, encoded, quiet
from tests.e2e.audio_world import RTP_TIMEOUT_S
from tests.e2e.test_audio_prompts import check_order
from tests.e2e.test_audio_recordings import channels
from tests.e2e.test_calls import wav
from tests.interop.switch import Switch

FRAME = 160
NTP_EPOCH_S = 2_208_988_800
BUFFER_MS = 40
"""What is held back of a stream when another takes its place."""


# -- hold, another codec -------------------------------------------------------------------------------------------


def wait_for(done: Callable[[], bool], what: str, timeout_s: float = 5.0) -> None:
    until = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < until, what
        time.sleep(0.01)


def test_a_prompt_is_held_and_goes_on_in_another_codec(audio_switch: Switch, line: Line, wire: Wire) -> None:
    prompt = noise(20, 21)
    audio_switch.app.files["/hold.wav"] = ("audio/wav", wav(prompt))
    audio_switch.answers(f"<Play>{audio_switch.app.url}/hold.wav</Play>")
    peer = Peer(wire)
    call = line.dial(audio_switch.number, peer)
    wait_for(lambda: len(sounding(peer)) > 10, "the prompt is not heard")
    for direction, host in (("sendonly", "127.0.0.1"), ("inactive", "127.0.0.1"), ("sendrecv", "0.0.0.0")):
        call.direction, call.host = direction, host
        answer = call.reinvite()
        assert answer.status == 200
        assert (b"a=inactive" if direction == "inactive" else b"a=recvonly") in answer.body, (direction, host)
        time.sleep(0.1)
        before = len(peer.got)
        time.sleep(0.3)
        assert len(peer.got) == before, "who holds hears nothing"
        call.direction, call.host = "sendrecv", "127.0.0.1"
        assert call.reinvite().status == 200
        wait_for(lambda: len(peer.got) > before + 10, "the prompt does not go on")  # noqa: B023
    call.codecs = ("PCMA",)
    assert call.reinvite().status == 200
    peer.codec = "PCMA"
    wait_for(lambda: len(peer.audio("PCMA")) > 20, "the codec does not change")
    call.hang_up()
    check_order(peer.got)  # one stream: SSRC and numbering go on, jumps of the timestamp are marked
    changes = np.flatnonzero(np.diff([got.payload_type for got in peer.got]))
    assert len(changes) == 1, "once PCMA, never PCMU again"
    whole = {codec: encoded(prompt, codec) for codec in ("PCMU", "PCMA")}
    last = -1
    for got in peer.got[10:]:
        at = whole["PCMU" if got.payload_type == 0 else "PCMA"].find(got.payload)
        if set(got.payload) != {0xFF}:
            assert at > last, "the prompt goes forward"
            last = at


def test_the_codec_of_one_side_of_a_bridge_changes(audio_switch: Switch, line: Line, wire: Wire) -> None:
    caller, callee = Peer(wire, seed=1), Peer(wire, seed=2)
    with bridged(audio_switch, line, caller, callee) as (call, _):
        call.codecs = ("PCMA",)
        assert call.reinvite().status == 200
        caller.codec = "PCMA"
        to_callee, to_caller = noise(0.4, 5), noise(0.4, 6)
        caller.say(to_callee)
        callee.say(to_caller)
        heard(callee, encoded(decoded(encoded(to_callee, "PCMA"), "PCMA")))
        heard(caller, encoded(decoded(encoded(to_caller)), "PCMA"))
        assert not any(got.payload_type == 8 for got in callee.got), "the other side keeps its own"


# -- streams, by what a recording of them holds --------------------------------------------------------------------


class Said(NamedTuple):
    """What a leg says; most ms that may be missing of it, and whether silence may be put in."""

    name: str
    peer: Peer
    pieces: Sequence[Samples]
    missing_ms: int = 0


def new_stream(peer: Peer) -> None:
    """As after a transfer inside the peer's network."""
    peer.ssrc, peer.sequence = secrets.randbits(32), secrets.randbits(16)
    peer.timestamp = secrets.randbits(32)


def jump(peer: Peer) -> None:
    peer.timestamp = (peer.timestamp + 3_000_000) & MASK


def noises(peer: Peer) -> None:
    peer.noise_type = 13


def recorded(
    switch: Switch, line: Line, legs: Sequence[Said], between: Sequence[Callable[[Peer], None]]
) -> list[Samples]:
    """Each leg says its pieces, with something done to its stream after the first; what its recording holds."""
    switch.answers('<Record playBeep="false" trim="do-not-trim" timeout="0" recordingStatusCallback="/kept"/>')
    calls = [line.dials(switch.number, leg.peer, f"+1555{index:07d}") for index, leg in enumerate(legs)]
    for call in calls:
        call.wait()
    for leg in legs:
        leg.peer.say(quiet(200), leg.pieces[0])
    for leg, change in zip(legs, between, strict=True):
        leg.peer.said(5)
        change(leg.peer)
    time.sleep(0.5)
    for leg in legs:
        leg.peer.say(*leg.pieces[1:])
    for leg in legs:
        leg.peer.said(5)
    time.sleep(0.3)
    for call in calls:
        call.hang_up()
    urls = {form["CallSid"]: form["RecordingUrl"] for form in switch.app.wait("/kept", len(calls))}
    callers = {form["From"]: form["CallSid"] for form in switch.app.at("/voice")}
    return [channels(switch.fetch(f"{urls[callers[f'+1555{i:07d}']]}.wav"))[0] for i in range(len(calls))]


def missing_ms(audio: Samples, piece: Samples) -> float:
    """How much of a piece is not in a recording, by frames; what is there is in order, each once."""
    wanted, octets = piece.astype("<i2").tobytes(), audio.astype("<i2").tobytes()
    frames = [wanted[at : at + FRAME * 2] for at in range(0, len(wanted) - FRAME * 2 + 1, FRAME * 2)]
    places = [octets.find(frame) for frame in frames]
    there = [place for place in places if place >= 0]
    assert there == sorted(set(there)), "out of order"
    assert all(octets.count(frame) <= 1 for frame in frames), "twice"
    return (len(frames) - len(there)) * 20.0


def test_packets_of_any_length_pauses_and_new_streams(audio_switch: Switch, line: Line, wire: Wire) -> None:
    pieces = noise(0.6, 31), noise(0.6, 32)
    none: Callable[[Peer], None] = lambda peer: None  # noqa: E731
    cases: list[tuple[str, Peer, Callable[[Peer], None], int]] = [
        (f"ptime {ptime}", Peer(wire, ptime=ptime, codec=codec, seed=ptime), none, 0)
        for ptime, codec in ((10, "PCMU"), (20, "PCMA"), (30, "PCMU"), (40, "PCMA"), (60, "PCMU"))
    ]
    cases += [
        ("comfort noise", Peer(wire, seed=3), noises, 0),
        ("new stream", Peer(wire, seed=4), new_stream, BUFFER_MS),
        ("jump", Peer(wire, seed=5), jump, BUFFER_MS),
    ]
    legs = [Said(name, peer, pieces, most) for name, peer, _, most in cases]
    kept = recorded(audio_switch, line, legs, [change for _, _, change, _ in cases])
    for leg, audio in zip(legs, kept, strict=True):
        gone = [missing_ms(audio, piece) for piece in code_pieces(leg)]
        print(f"{leg.name}: {gone} ms missing")
        assert sum(gone) <= leg.missing_ms, leg.name


def code_pieces(leg: Said) -> list[Samples]:
    """The pieces as they left: through the peer's codec."""
    return [decoded(encoded(piece, leg.peer.codec), leg.peer.codec) for piece in leg.pieces]


# -- reports -------------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """A reception report (RFC 3550 section 6.4.1)."""

    ssrc: int
    fraction: int
    lost: int
    highest: int
    jitter: int
    last_sr: int
    since: int


class SenderReport(NamedTuple):
    """Its sender information, and its first block."""

    ssrc: int
    ntp_s: float
    timestamp: int
    packets: int
    octets: int
    block: Block | None


def read_report(data: bytes) -> SenderReport:
    first, kind, _, ssrc = struct.unpack_from("!BBHI", data)
    assert kind == 200, "a leg that sends tells sender reports"
    seconds, fraction, timestamp, packets, octets = struct.unpack_from("!IIIII", data, 8)
    block = None
    if first & 31:
        source, loss, highest, jitter, last_sr, since = struct.unpack_from("!IIIIII", data, 28)
        block = Block(source, loss >> 24, loss & 0xFFFFFF, highest, jitter, last_sr, since)
    return SenderReport(ssrc, seconds - NTP_EPOCH_S + fraction / 2**32, timestamp, packets, octets, block)


def sender_report(peer: Peer, at_ns: int) -> bytes:
    seconds, rest = divmod(at_ns, 1_000_000_000)
    ntp = seconds + NTP_EPOCH_S, (rest << 32) // 1_000_000_000
    head = struct.pack("!BBHIII", 0x80, 200, 6, peer.ssrc, *ntp)
    return head + struct.pack("!III", peer.timestamp, peer.packets, peer.octets)


def start_reports(switch: Switch, line: Line, wire: Wire) -> list[tuple[Call, int]]:
    """Calls of peers with and without losses, that have told how much they sent; and when they did."""
    peers = [Peer(wire, seed=index) for index in range(6)]
    for peer in peers[:5]:
        peer.network = Network(loss=0.1, jitter_ms=10)
    calls = [line.dials(switch.number, peer) for peer in peers]
    for call in calls:
        call.wait()
    time.sleep(0.4)
    told = []
    for call in calls:
        told.append((call, time.time_ns()))
        call.peer.send_rtcp(sender_report(call.peer, told[-1][1]))
    time.sleep(0.6)  # their RTCP sockets are read twice a second
    for peer in peers:
        peer.reports.clear()
    return told


def check_reports(told: list[tuple[Call, int]]) -> None:
    wait_for(lambda: all(call.peer.reports for call, _ in told), "no reports", 9)
    for call, _ in told:
        call.hang_up()
    for call, told_ns in told:
        at_ns, data = call.peer.reports[0]
        check_report(call.peer, at_ns, read_report(data), told_ns)


def jitter_of(peer: Peer, end: int) -> list[float]:
    """Interarrival jitter in ms (RFC 3550 A.8) at the last packets before this sequence number, as they left."""
    jitter, jitters = 0.0, list[float]()
    transit: float | None = None
    for at_ns, sequence, timestamp in peer.departed:
        if ((sequence - end) & 0xFFFF) < 0x8000:
            continue
        before, transit = transit, at_ns / 1e6 - timestamp / 8
        if before is not None and abs(transit - before) < 1000:  # as timestamps that jump, or wrap
            jitter += (abs(transit - before) - jitter) / 16
            jitters.append(jitter)
    return jitters[-4:]


def check_report(peer: Peer, at_ns: int, report: SenderReport, told_ns: int) -> None:
    before = [got for got in peer.audio() if got.at_ns <= at_ns]
    assert report.ssrc == before[0].ssrc
    assert abs(report.packets - len(before)) <= 1
    assert report.octets == report.packets * FRAME
    assert abs(report.ntp_s - at_ns / 1e9) < 0.2
    assert abs(((report.timestamp - before[-1].timestamp + 2**31) & MASK) - 2**31) <= FRAME
    block = report.block
    assert block is not None
    assert block.ssrc == peer.ssrc
    first = peer.first_sequence
    expected = (block.highest - first) + 1
    assert abs(expected - sum(one.at_ns <= at_ns for one in peer.sent)) <= 3
    truly = sum((number - first) & 0xFFFF < expected for number in peer.lost)
    jitters = jitter_of(peer, (first + expected) & 0xFFFF)
    print(f"{block.lost} of {expected} lost ({truly}), {block.fraction / 2.56:.0f} %, jitter {block.jitter / 8:.1f} ms")
    assert abs(block.lost - truly) <= 1, "those that are on their way may count as lost"
    # The peer's times are those before its system call, so a packet may come a little later than noted.
    assert min(jitters) - 2 <= block.jitter / 8 <= max(jitters) + 2
    if peer.network:
        assert block.jitter / 8 > 1
    ntp = int((told_ns / 1e9 + NTP_EPOCH_S) * 65536) & MASK
    assert abs(block.last_sr - ntp) <= 2
    assert abs(block.since / 65536 - (at_ns - told_ns) / 1e9) < 0.2


# -- silence of the stream -----------------------------------------------------------------------------------------


def test_reports_and_silent_streams(audio_switch: Switch, line: Line, wire: Wire) -> None:
    """Peers are told what came of theirs; one that is not heard any more, and does not report, is hung up."""
    audio_switch.answers("<Gather timeout='60'/>")
    told = start_reports(audio_switch, line, wire)
    peers = [Peer(wire, seed=index) for index in range(4)]
    calls = [line.dial(audio_switch.number, peer, f"+1555{index:07d}") for index, peer in enumerate(peers)]
    held, reports, silent, speaks = calls
    held.direction = "sendonly"
    assert held.reinvite().status == 200
    held.direction = "inactive"
    assert held.reinvite().status == 200
    for call in (held, reports, silent):
        call.peer.talks = False
    stopped = time.monotonic()
    done = threading.Event()

    def tell() -> None:
        while not done.wait(0.5):
            reports.peer.send_rtcp(sender_report(reports.peer, time.time_ns()))

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        assert silent.ended.wait(RTP_TIMEOUT_S + 3)
        took = time.monotonic() - stopped
        time.sleep(1)
        assert not any(call.ended.is_set() for call in (held, reports, speaks))
    finally:
        done.set()
        thread.join()
    check_reports(told)
    print(f"hung up after {took:.1f} s without RTP and RTCP")
    assert RTP_TIMEOUT_S - 0.1 <= took <= RTP_TIMEOUT_S + 1.5
    for call in calls:
        call.hang_up()
