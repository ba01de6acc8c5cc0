"""The media process as the node and the wire see it."""

import asyncio
import os
import wave
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.media.helpers import Leg, config, end_process, start_process, until
from trunkline.inherited import describe
from trunkline.media import protocol
from trunkline.media.client import MediaClient
from trunkline.media.ports import PortKeeper, PortService
from trunkline.rtp import g711

TONE = (8000 * np.sin(2 * np.pi * 440 * np.arange(160) / 8000)).astype("<i2").tobytes()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[MediaClient]:
    process = start_process(config(tmp_path))
    client = MediaClient("node")
    assert await client.start(str(tmp_path / "media.sock"))
    yield client
    await client.close()
    end_process(process)


async def test_a_leg_plays_a_file_and_tells_keys_and_its_end(client: MediaClient, tmp_path: Path) -> None:
    prompt = np.arange(1600, dtype="<i2") * 10
    (tmp_path / "prompt.raw").write_bytes(prompt.tobytes())
    leg = Leg(client, "CA1")
    client.send(protocol.Play(leg="CA1", play="p1", items=[protocol.Audio(path=str(tmp_path / "prompt.raw"))]))
    played = await leg.event(protocol.Played)
    assert (played.play, played.why) == ("p1", "end")
    packets = leg.received()
    assert len({p.ssrc for p in packets}) == 1
    assert packets[0].marker
    heard = b"".join(g711.decode(p.payload) for p in packets)
    assert g711.decode(g711.encode(prompt.tobytes())) in heard
    leg.speak(TONE)
    await leg.event(protocol.Flowing)
    leg.press(5)
    assert (await leg.event(protocol.Digit)).digit == "5"
    client.send(protocol.Close(leg="CA1"))
    closed = await leg.event(protocol.Closed)
    assert closed.numbers["packets_received"] == 7
    assert closed.numbers["packets_sent"] >= len(packets)
    leg.close()


async def test_bridged_legs_hear_each_other(client: MediaClient) -> None:
    a, b = Leg(client, "CA1"), Leg(client, "CA2")
    client.send(protocol.Bridge(a="CA1", b="CA2"))
    said = g711.encode(TONE)
    heard = b""
    for _ in range(50):
        a.speak(TONE)
        await asyncio.sleep(0.02)
        heard += b"".join(p.payload for p in b.received())
        if heard.count(said) >= 5:
            break
    assert heard.count(said) >= 5
    assert said not in b"".join(p.payload for p in a.received())
    a.close()
    b.close()


async def test_a_command_for_no_leg_is_refused(client: MediaClient) -> None:
    refused: list[protocol.Event] = []
    client.watch("CA9", refused.append)
    client.send(protocol.Stop(leg="CA9"))
    await until(lambda: bool(refused))
    assert isinstance(refused[0], protocol.Refused)
    assert (refused[0].what, refused[0].reason) == ("stop", "no such leg")


async def test_a_new_client_finds_the_legs_and_can_use_leased_slots_again(client: MediaClient, tmp_path: Path) -> None:
    leg = Leg(client, "CA1")
    client.send(protocol.Play(leg="CA1", play="p", items=[protocol.Silence(ms=60_000)]))
    await until(lambda: bool(leg.received()))
    second = MediaClient("second")
    legs: list[protocol.LegState] = []
    second.on_hello(legs.extend)
    assert await second.start(str(tmp_path / "media.sock"))
    assert [(state.leg, state.slot, state.play) for state in legs] == [("CA1", leg.slot, "p")]
    await until(lambda: second.free_slots > 0)
    assert leg.slot not in second._slots
    other = Leg(second, "CA2")
    await until(lambda: bool(other.received()))
    await second.close()
    leg.close()
    other.close()


async def test_a_successor_goes_on_with_the_same_legs(tmp_path: Path) -> None:
    (tmp_path / "prompt.raw").write_bytes(np.full(8000 * 60, 1000, "<i2").tobytes())
    settings = config(tmp_path, ports_path=str(tmp_path / "ports.sock"))
    keeper = PortKeeper("127.0.0.1", settings.port_min, settings.port_max, 40)
    service = PortService(keeper, settings.ports_path)
    settings.state_fd, settings.ring_fd = os.memfd_create("state"), os.memfd_create("ring")
    fds = (settings.state_fd, settings.ring_fd)
    first = start_process(settings, fds)
    client = MediaClient()
    assert await client.start(settings.control)
    leg = Leg(client, "CA1")
    client.send(protocol.Play(leg="CA1", play="p", items=[protocol.Audio(path=str(tmp_path / "prompt.raw"))]))
    await until(leg.waiting)
    leg.speak(TONE)
    await leg.event(protocol.Flowing)
    first.kill()
    first.wait()
    await until(lambda: not client.available)
    before = leg.received()[-1]
    client.send(protocol.Detect(leg="CA1", silence_ms=100))
    second = start_process(settings, fds)
    await until(lambda: client.available)
    await leg.event(protocol.Silent)
    after = leg.received()
    assert after[0].ssrc == before.ssrc
    assert (after[0].sequence - before.sequence) & 0xFFFF <= 3
    passed = (after[0].timestamp - before.timestamp) & 0xFFFFFFFF
    assert passed % 160 == 0
    assert 160 < passed < 8000 * 50, "the prompt goes on, however long the process takes to start"
    assert after[-1].payload == g711.encode(np.full(160, 1000, "<i2").tobytes())
    assert client.legs_lost == 0
    await client.close()
    end_process(second)
    service.close()
    keeper.close()
    for fd in fds:
        os.close(fd)
    leg.close()


def stands_by(pid: int) -> bool:
    """Whether a spare has loaded everything and waits at its pipe."""
    return "pipe" in Path(f"/proc/{pid}/wchan").read_text()


async def test_a_spare_goes_on_within_a_few_ticks(tmp_path: Path) -> None:
    settings = config(tmp_path, ports_path=str(tmp_path / "ports.sock"), state_fd="media-state", ring_fd="record-ring")
    keeper = PortKeeper("127.0.0.1", settings.port_min, settings.port_max, 40)
    service = PortService(keeper, settings.ports_path)
    memories = {"media-state": os.memfd_create("state"), "record-ring": os.memfd_create("ring")}
    first = start_process(settings, tuple(memories.values()), describe(memories))
    client = MediaClient()
    assert await client.start(settings.control)
    leg = Leg(client, "CA1")
    await until(leg.waiting)
    waits, go = os.pipe()
    spare = start_process(settings, (*memories.values(), waits), describe({**memories, "baton": waits}))
    await until(lambda: stands_by(spare.pid))
    before = leg.received()[-1]
    first.kill()
    first.wait()
    os.write(go, b"!")
    await until(leg.waiting)
    await asyncio.sleep(0.3)
    packets = [before, *leg.received()]
    gaps = [(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(packets)]
    assert {p.ssrc for p in packets} == {before.ssrc}
    assert max(gaps) <= 25 * 160
    await until(lambda: client.available)
    await client.close()
    end_process(spare)
    service.close()
    keeper.close()
    leg.close()
    for fd in (*memories.values(), waits, go):
        os.close(fd)


@pytest.mark.parametrize(("helper", "host"), [("compiled", "::1"), ("fallback", "127.0.0.1"), ("fallback", "::1")])
async def test_legs_work_over_ipv6_and_without_the_compiled_helper(tmp_path: Path, helper: str, host: str) -> None:
    process = start_process(config(tmp_path, host=host, helper=helper))
    client = MediaClient()
    assert await client.start(str(tmp_path / "media.sock"))
    a, b = Leg(client, "CA1", host=host), Leg(client, "CA2", host=host)
    client.send(protocol.Bridge(a="CA1", b="CA2"))
    said, heard = g711.encode(TONE), b""
    for _ in range(100):
        a.speak(TONE)
        await asyncio.sleep(0.02)
        heard += b"".join(p.payload for p in b.received())
        if heard.count(said) >= 3:
            break
    assert heard.count(said) >= 3
    a.close()
    b.close()
    await client.close()
    end_process(process)


async def test_a_recording_becomes_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "recordings" / "RE1"
    folder.mkdir(parents=True)
    process = start_process(config(tmp_path, recordings=str(tmp_path / "recordings")))
    client = MediaClient()
    assert await client.start(str(tmp_path / "media.sock"))
    leg = Leg(client, "CA1")
    client.send(protocol.Record(recording="RE1", leg="CA1", folder=str(folder), channels=2, max_ms=600))
    for _ in range(60):
        leg.speak(TONE)
        await asyncio.sleep(0.02)
        if any(isinstance(event, protocol.Recorded) for event in leg.events):
            break
    recorded = await leg.event(protocol.Recorded)
    assert (recorded.recording, recorded.why, recorded.duration_ms) == ("RE1", "max-length", 600)
    with wave.open(recorded.file) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 4800)
        tracks = np.frombuffer(file.readframes(4800), "<i2").reshape(-1, 2)
    assert np.abs(tracks[:, 0]).max() > 7000
    assert not tracks[:, 1].any()
    leg.close()
    await client.close()
    end_process(process)


async def test_memory_of_another_layout_is_laid_out_anew_and_a_foreign_ring_refused(tmp_path: Path) -> None:
    fd = os.memfd_create("memory")
    os.write(fd, b"x" * 4096)
    process = start_process(config(tmp_path, state_fd=fd), (fd,))
    client = MediaClient()
    assert await client.start(str(tmp_path / "media.sock"))
    await client.close()
    end_process(process)
    os.ftruncate(fd, 0)
    os.write(fd, b"x" * 4096)
    process = start_process(config(tmp_path, ring_fd=fd), (fd,))
    assert await asyncio.to_thread(process.wait, 10) == 3
    os.close(fd)
