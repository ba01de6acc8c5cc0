"""What the media engine costs a leg and how many a core carries: `python -m bench.media`.

    bare       the engine's receive and send helper alone, in a loop: what the system calls cost
    ivr        every leg plays a prompt and listens for keys
    bridged    pairs of legs hear each other, and every leg is recorded in both directions
    g722       pairs of legs hear each other, all G.722
    pairs      the same, all PCMU
    srtp       the same, all PCMU by SRTP (AES_CM_128_HMAC_SHA1_80)
    srtp-batch SRTP alone, by the processor's own AES and SHA and without
    opus       the same, all Opus, with the repeats for lost packets that 5 % of loss asks for

The media process runs on one core, the load generator (rtp_load.c) on the other: audio both ways, 0.5 % of the packets
left out, RTCP, keys as events and as tones, received prompts compared octet by octet. CPU is that of the process
itself, user and system, from /proc, over the middle of the run; `us` is CPU per leg and tick of 20 ms, `share` the bare
loop's part of it when it ran before with as many legs.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tests.media.sounds import voice

from trunkline.media import native, protocol
from trunkline.media.client import MediaClient
from trunkline.media.native import libopus
from trunkline.media.native.build import SOURCES, compiler
from trunkline.media.native.coding import OpusSettings
from trunkline.media.native.interface import ADDRESS_BYTES, FRAME, SEND_BYTES, Batch
from trunkline.media.native.srtp import STREAMS, TAG_ROOM, Streams
from trunkline.media.ports import PortKeeper
from trunkline.media.process import PRIORITY, Config
from trunkline.rtp import dtmf, g711, g722

HERE = Path(__file__).parent
PORTS = (20_000, 29_998)
SOCKETS = 16
"""Of the generator."""
SETTLE_S = 3.0
LOSS_PER_MILLE = 5
KEYS, KEY_MS = "23456789", 100
"""What the generator presses: not 1, which would end the prompt."""
PROMPTS, PROMPT_SAMPLES = 20, 80_000
SRTP_ROUNDS = 200
TICK_S = 0.020
PLAIN: dict[str, Any] = {"payload_types": {0: "PCMU", 101: "telephone-event"}}
CODECS: dict[str, dict[str, Any]] = {
    "g722": {"codec": "G722", "send_payload_type": 9, "payload_types": {9: "G722", 101: "telephone-event"}},
    "srtp": {**PLAIN, "srtp": protocol.Srtp(suite="AES_CM_128_HMAC_SHA1_80", ours="A" * 40, theirs="A" * 40)},
    "opus": {"codec": "opus", "send_payload_type": 111, "payload_types": {111: "opus", 101: "telephone-event/48000"}},
}
"""How the legs of a scenario are opened."""


def build_load(folder: Path) -> Path:
    """The generator."""
    program = folder / "rtp_load"
    sources = [HERE / "rtp_load.c", *(path for path in SOURCES if path.name == "srtp.c")]
    subprocess.run([*compiler(), "-O3", "-o", str(program), *map(str, sources)], check=True)
    return program


def cpu_s(pid: int) -> tuple[float, float]:
    """User and system seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / ticks, int(fields[12]) / ticks


def start_load(
    program: Path, ports: list[int], seconds: float, core: int, audio: list[str], prompts: int = 0
) -> "subprocess.Popen[str]":
    """The generator on its core; leg n plays prompt n modulo `prompts`, if there are any."""
    load = subprocess.Popen(
        ["taskset", "-c", str(core), str(program), str(seconds), str(SOCKETS), *audio, "loss", str(LOSS_PER_MILLE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert load.stdin
    load.stdin.write("\n".join(f"{port} {n % prompts if prompts else -1}" for n, port in enumerate(ports)))
    load.stdin.close()
    load.stdin = None  # so that communicate() does not flush it
    return load


def result(name: str, legs: int, load: dict[str, Any], used: tuple[float, float], window: float) -> dict[str, Any]:
    """One line of figures."""
    total = sum(used)
    return {
        "scenario": name,
        "legs": legs,
        "cpu": round(100 * total / window, 1),
        "user": round(100 * used[0] / window, 1),
        "us": round(total / window * TICK_S / legs * 1e6, 2),
        "lost": load["lost"],
        "silent": load["silent"],
        "late": load["late"],
        "judged": load["judged"],
        "jitter_ms": load["jitter_ms"],
        "left_out": load["left_out"],
    }


def audio_of(name: str, folder: Path) -> list[str]:
    """The generator's arguments for what it sends: noise and keys, or 20 s of a voice as our own coders write it."""
    if name not in CODECS or name == "srtp":
        path = folder / "audio"
        tones = b"".join(dtmf.key(digit, KEY_MS).tobytes() for digit in KEYS)
        path.write_bytes(g711.encode(tones) + b"".join(g711.encode(pcm) for pcm in prompts()))
        return ["audio", str(path), *(["srtp"] if name == "srtp" else ["rtcp"])]
    audio, path = voice(20), folder / f"{name}.payloads"
    if name == "opus":
        encoder = libopus.Encoder(OpusSettings(), loss=5)
        payloads = [encoder.encode(audio[at : at + 160].tobytes()) for at in range(0, len(audio), 160)]
    else:
        data = g722.Encoder().encode(array("h", audio.tobytes()))
        payloads = [data[at : at + 160] for at in range(0, len(data), 160)]
    path.write_bytes(b"".join(bytes([len(payload)]) + payload for payload in payloads))
    return ["rtcp", "coded", *(("111", "960") if name == "opus" else ("9", "160")), str(path)]


def prompts() -> list[bytes]:
    """PCM: noise, so that every place of it is told from every other."""
    waves = (np.random.default_rng(number).normal(0, 2000, PROMPT_SAMPLES) for number in range(PROMPTS))
    return [np.clip(wave, -32000, 32000).astype("<i2").tobytes() for wave in waves]


class Pressed:
    """The keys that the engine told of, checked against what the generator presses on each leg: KEYS in turn."""

    def __init__(self) -> None:
        self.count = {"rfc4733": 0, "in-band": 0}
        self.wrong = 0
        self._next: dict[str, int] = {}

    def take(self, event: protocol.Event) -> None:
        if not isinstance(event, protocol.Digit):
            return
        number = int(event.leg.removeprefix("CA"))
        expected = self._next.get(event.leg, number % len(KEYS))
        here = KEYS.find(event.digit)
        self.count[event.how] += 1
        self.wrong += here != expected or event.how != ("rfc4733", "in-band", "none")[min(number % 10, 2)]
        self._next[event.leg] = (here + 1) % len(KEYS)

    def figures(self, load: dict[str, Any]) -> dict[str, Any]:
        """Told / pressed; `wrong`: not the key whose turn it was (one that was missed makes one wrong)."""
        heard = self.count
        return {
            "events": [heard["rfc4733"], load["pressed"][0]],
            "tones": [heard["in-band"], load["pressed"][1]],
            "wrong": self.wrong,
        }


async def engine_run(name: str, legs: int, seconds: float, program: Path, folder: Path) -> dict[str, Any]:
    """One run of the media process."""
    config = Config(
        control=str(folder / "media.sock"), port_min=PORTS[0], port_max=PORTS[1], legs=legs, priority=True,
        recordings=str(folder / "recordings") if name == "bridged" else "",
    )  # fmt: skip
    (folder / "recordings").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "trunkline.media.process", "--config-json", msgspec.json.encode(config).decode()]
    process = subprocess.Popen(["taskset", "-c", "1", *command])
    try:
        client, pressed = MediaClient(), Pressed()
        client.otherwise = pressed.take
        assert await client.start(config.control), "the media process does not answer"
        ports = await open_legs(client, name, legs, folder)
        move_recorder(process.pid)
        audio = audio_of(name, folder)
        load = start_load(program, ports, seconds + SETTLE_S + 1, 0, audio, PROMPTS if name == "ivr" else 0)
        await asyncio.sleep(SETTLE_S)
        before, began = cpu_s(process.pid), time.monotonic()
        stats_before = client.stats
        await asyncio.sleep(seconds)
        after, window = cpu_s(process.pid), time.monotonic() - began
        printed = await asyncio.to_thread(load.communicate)
        stats = client.stats
        await client.close()
    finally:
        process.terminate()
        process.wait()
    counted = json.loads(printed[0])
    figures = result(name, legs, counted, (after[0] - before[0], after[1] - before[1]), window)
    figures["keys"], figures["reports"] = pressed.figures(counted), counted["reports"]
    if name == "ivr":
        figures["compared"], figures["mismatched"] = counted["compared"], counted["mismatched"]
    if stats is not None:
        figures["skipped"] = stats.skipped - (stats_before.skipped if stats_before else 0)
        figures["tick_us"] = percentiles(stats, stats_before)
        figures["recorded_dropped"] = stats.recorded_dropped
        if name == "srtp":
            figures["refused"] = stats.packets_not_authentic + stats.packets_replayed
    return figures


async def open_legs(client: MediaClient, name: str, legs: int, folder: Path) -> list[int]:
    """Open, and start, every leg; their ports."""
    items = []
    for number, pcm in enumerate(prompts() if name == "ivr" else []):
        path = folder / f"prompt{number}.raw"
        path.write_bytes(pcm)
        items.append(protocol.Audio(path=str(path)))
    ports = []
    for number in range(legs):
        while (slot := client.take_slot()) is None:
            await asyncio.sleep(0.01)
        leg = f"CA{number}"
        client.send(protocol.Open(leg=leg, slot=slot[0], **CODECS.get(name, PLAIN)))
        if name == "ivr":
            start = random.randrange(9000)
            item = items[number % PROMPTS]
            client.send(protocol.Play(leg=leg, play="p", items=[item], loop=0, start_ms=start, barge="1"))
        elif number % 2:
            client.send(protocol.Bridge(a=f"CA{number - 1}", b=leg))
        if name == "bridged":
            client.send(
                protocol.Record(recording=f"RE{number}", leg=leg, folder=str(folder / "recordings"), channels=2)
            )
        ports.append(slot[1])
    return ports


def move_recorder(pid: int) -> None:
    """The recorder is another process: it runs on the other core."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        for task in Path(f"/proc/{child}/task").iterdir():
            os.sched_setaffinity(int(task.name), {0})


def percentiles(stats: protocol.Stats, before: protocol.Stats | None) -> dict[str, float]:
    """Upper bounds within which so many ticks of the window lay."""
    counts = [n - (before.tick_us[i] if before else 0) for i, n in enumerate(stats.tick_us)]
    bounds = [*protocol.TICK_BOUNDS_US, 1_000_000]
    total, found = sum(counts) or 1, {}
    for share in (0.5, 0.99, 0.999):
        sum_, wanted = 0, share * total
        for bound, count in zip(bounds, counts, strict=True):
            sum_ += count
            if sum_ >= wanted:
                found[f"p{share * 100:g}"] = bound
                break
    return found


def bare_run(legs: int, seconds: float, program: Path, folder: Path) -> dict[str, Any]:
    """The helper's receive and send for so many sockets, and nothing else."""
    os.sched_setaffinity(0, {1})
    with contextlib.suppress(OSError):  # as the media process
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    keeper = PortKeeper("127.0.0.1", *PORTS, legs)
    while len(keeper.pairs) < legs and keeper.open_block():
        pass
    helper, batch = native.load(), Batch(legs * 4 + 64)
    fds = np.array([pair[0].fileno() for pair in keeper.pairs], np.int32)
    rows = np.arange(legs)
    rows32 = rows.astype(np.int32)
    data, length = np.zeros((legs, SEND_BYTES), np.uint8), np.full(legs, SEND_BYTES, np.int32)
    data[:, 0] = 0x80
    to, to_length = np.zeros((legs, ADDRESS_BYTES), np.uint8), np.zeros(legs, np.int32)
    load = start_load(program, keeper.ports, seconds + SETTLE_S + 1, 0, audio_of("bare", folder))
    began = time.monotonic()
    measured: tuple[float, tuple[float, float]] | None = None
    number = 0
    while (now := time.monotonic()) - began < SETTLE_S + seconds:
        if measured is None and now - began > SETTLE_S:
            measured = now, cpu_s(os.getpid())
        count = helper.receive(fds, rows32, batch)
        for i in np.flatnonzero(to_length[batch.row[:count]] == 0):
            row, packed = int(batch.row[i]), struct.pack("=H", socket.AF_INET) + int(batch.port[i]).to_bytes(2, "big")
            packed += batch.address[i, 12:].tobytes() + bytes(8)
            to[row, : len(packed)], to_length[row] = np.frombuffer(packed, np.uint8), len(packed)
        number += 1
        data[:, 2], data[:, 3] = number >> 8 & 255, number & 255
        data[:, 4:8] = np.frombuffer((number * FRAME).to_bytes(4, "big"), np.uint8)
        ready = rows[to_length > 0]
        if len(ready):
            helper.send(fds[ready], ready, data, length, to, to_length)
        time.sleep(max(0.0, began + number * TICK_S - time.monotonic()))
    assert measured
    after = cpu_s(os.getpid())
    used = after[0] - measured[1][0], after[1] - measured[1][1]
    window = time.monotonic() - measured[0]
    printed, _ = load.communicate()
    keeper.close()
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.sched_setaffinity(0, {0, 1})
    return result("bare", legs, json.loads(printed), used, window)


def srtp_cost(legs: int, *, hardware: bool) -> dict[str, Any]:
    """CPU of a packet of 20 ms each way, in batches of a packet of each leg; without sockets."""
    srtp: Any = native.load("compiled").srtp()
    used = srtp.hardware(hardware)
    contexts = np.zeros((legs, srtp.context_bytes), np.uint8)
    for row in range(legs):
        srtp.keys(contexts[row], bytes(16), bytes(14), 10)
    on, rows, rows32 = np.ones(legs, np.uint8), np.arange(legs), np.arange(legs, dtype=np.int32)
    last, refused = np.full(legs, -1, np.int64), np.zeros(2, np.int64)
    none, nothing = np.full((legs, STREAMS), -1, np.int64), np.zeros((legs, STREAMS), np.int64)
    streams = Streams(none, nothing, np.zeros((legs, STREAMS), np.uint64))
    data = np.zeros((legs, SEND_BYTES + TAG_ROOM), np.uint8)
    length = np.zeros(legs, np.int32)
    spent = [0.0, 0.0]
    for number in range(SRTP_ROUNDS):
        data[:, 0], data[:, 2], data[:, 3], length[:] = 0x80, number >> 8, number & 255, SEND_BYTES
        began = time.thread_time()
        srtp.protect(rows, data, length, on, contexts, last)
        between = time.thread_time()
        srtp.unprotect(legs, rows32, data, length, on, contexts, streams, refused, rtcp=False)
        spent[0] += between - began
        spent[1] += time.thread_time() - between
    srtp.hardware(True)
    assert not refused.any()
    each = [round(s / SRTP_ROUNDS / legs * 1e6, 3) for s in spent]
    return {"scenario": "srtp-batch", "legs": legs, "hardware": used, "protect_us": each[0], "unprotect_us": each[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="*", default=["bare", "ivr", "bridged"])
    parser.add_argument("--legs", type=int, nargs="*", default=[400, 800])
    parser.add_argument("--seconds", type=float, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = build_load(folder)
        for legs in options.legs:
            bare = 0.0
            for scenario in options.scenario:
                if scenario == "srtp-batch":
                    print(json.dumps(srtp_cost(legs, hardware=True)), flush=True)
                    figures = srtp_cost(legs, hardware=False)
                elif scenario == "bare":
                    figures = bare_run(legs, options.seconds, program, folder)
                else:
                    figures = asyncio.run(engine_run(scenario, legs, options.seconds, program, folder))
                if scenario == "bare":
                    bare = figures["us"]
                elif bare and "us" in figures:
                    figures["share"] = round(bare / figures["us"], 3)
                print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
