"""The load generator of the media bench sends what it says and finds what is wrong in what it gets."""

import json
import select
import socket
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import media
from trunkline.media.native.build import BuildFailed, compiler
from trunkline.rtp import dtmf, g711, packet, rtcp
from trunkline.rtp.telephone_event import Press, parse, track

LEGS = 12
"""So that one more than the first ten presses each kind of key."""
SECONDS = 4.0
FRAME, PROMPT = 160, 80_000
WRONG, LOST, EARLY = 150, 170, 150
"""Frames with a wrong octet, on leg 0, left out, on leg 1, and 100 ms before their time, on leg 2."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ports in a row."""
    while True:
        first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        try:
            first.bind(("127.0.0.1", 0))
            second.bind(("127.0.0.1", first.getsockname()[1] + 1))
        except OSError:
            first.close()
            second.close()
        else:
            return first, second


class Player:
    """Answers each packet of a leg with the next frame of its prompt, and keeps what came."""

    def __init__(self, prompts: list[bytes]) -> None:
        self.pairs = [pair() for _ in range(LEGS)]
        self.prompts = prompts
        self.heard: dict[int, list[packet.Packet]] = defaultdict(list)
        self.reports: dict[int, list[bytes]] = defaultdict(list)
        self._next = [0] * LEGS

    def answer(self, leg: int) -> None:
        data, source = self.pairs[leg][0].recvfrom(2000)
        self.heard[leg].append(packet.parse(data))
        number = self._next[leg]
        self._next[leg] += 1
        if (leg, number) == (1, LOST):
            return
        prompt = self.prompts[leg % len(self.prompts)]
        at = (number * FRAME + 321 * leg) % PROMPT
        payload = bytearray((prompt + prompt)[at : at + FRAME])
        if (leg, number) == (0, WRONG):
            payload[80] ^= 1
        stamp = number * FRAME + (800 if (leg, number) == (2, EARLY) else 0)
        sent = packet.Packet(payload_type=0, sequence=number, timestamp=stamp, ssrc=5, payload=bytes(payload))
        self.pairs[leg][0].sendto(sent.encode(), source)

    def serve(self, load: "subprocess.Popen[str]") -> dict[str, Any]:
        sockets = {rtp: (leg, False) for leg, (rtp, _) in enumerate(self.pairs)}
        sockets |= {control: (leg, True) for leg, (_, control) in enumerate(self.pairs)}
        while load.poll() is None:
            for ready in select.select(list(sockets), [], [], 0.05)[0]:
                leg, report = sockets[ready]
                if report:
                    self.reports[leg].append(ready.recv(2000))
                else:
                    self.answer(leg)
        for sock in sockets:
            sock.close()
        counted: dict[str, Any] = json.loads(load.communicate()[0])
        return counted


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Player, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("load")
    try:
        compiler()
    except BuildFailed:
        pytest.skip("no C compiler")
    arguments = media.audio_of("ivr", folder)
    audio = Path(arguments[1]).read_bytes()[-media.PROMPTS * PROMPT :]
    player = Player([audio[n * PROMPT : (n + 1) * PROMPT] for n in range(media.PROMPTS)])
    ports = [rtp.getsockname()[1] for rtp, _ in player.pairs]
    load = media.start_load(media.build_load(folder), ports, SECONDS, 0, arguments, media.PROMPTS)
    return player, player.serve(load)


def test_what_comes_back_is_compared_and_counted(run: tuple[Player, dict[str, Any]]) -> None:
    _, counted = run
    assert counted["mismatched"] == 1
    assert counted["compared"] > 100 * LEGS
    assert counted["lost"] == 1
    assert counted["silent"] == 0
    assert 1 <= counted["late"] < counted["judged"]


def test_packets_are_left_out(run: tuple[Player, dict[str, Any]]) -> None:
    player, counted = run
    gaps = 0
    for packets in player.heard.values():
        numbers = [p.sequence for p in packets]
        gaps += (numbers[-1] - numbers[0]) % 65536 + 1 - len(numbers)
    assert 0 < gaps <= counted["left_out"] < 0.02 * counted["sent"]


def test_keys_are_pressed_as_events_and_as_tones(run: tuple[Player, dict[str, Any]]) -> None:
    player, counted = run
    told, press = [], Press()
    for p in player.heard[10]:
        event = parse(p.payload) if p.payload_type == 101 else None
        if event is not None:
            told.append(track(press, p.timestamp, event))
    assert [digit for digit in told if digit] == [media.KEYS[10 % 8]]
    audio = b"".join(g711.decode(p.payload) for p in player.heard[11])
    detector, heard = dtmf.Detector(1), []
    for frame in np.frombuffer(audio, "<i2").reshape(-1, 1, FRAME):
        _, codes, ended = detector.feed(np.array([0]), frame)
        heard += [dtmf.KEYS[code] for code, over in zip(codes, ended, strict=True) if not over]
    assert heard == [media.KEYS[11 % 8]]
    assert counted["pressed"] == [1, 1]


def test_every_leg_reports_with_its_own_ssrc(run: tuple[Player, dict[str, Any]]) -> None:
    player, counted = run
    assert counted["reports"][0] == LEGS
    for leg in range(LEGS):
        (report,) = player.reports[leg]
        assert int.from_bytes(report[4:8], "big") == player.heard[leg][0].ssrc
        assert rtcp.parse(report).sender is not None
