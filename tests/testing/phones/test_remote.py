"""The phones' process, from the node."""

import asyncio
import os
import sys
import wave

import msgspec
import numpy as np
import pytest

from trunkline.settings import load
from trunkline.testing.phones import process, wire
from trunkline.testing.phones.control import Control
from trunkline.testing.phones.exchange import PhoneExchange
from trunkline.testing.phones.remote import CannotStart, Phones, wanted, with_phones
from trunkline.testing.simulator import Simulator

ADA, BOB = "+15555550101", "+15555550102"
JSON = {b"content-type": b"application/json"}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_call_through_the_process_and_the_simulator(tmp_path):
    phones = await Phones.start(tmp_path, engine="tones")
    simulator = Simulator(None, phones)

    async def ask(method, path, body=None, query=""):
        content = msgspec.json.encode(body) if body is not None else b""
        status, headers, answer = await simulator.handle(path, method, JSON, query.encode(), content)
        assert status < 300, answer
        return msgspec.json.decode(answer) if dict(headers)[b"content-type"] == b"application/json" else answer

    try:
        await ask("POST", f"phones/{BOB}", {"does": "answers"})
        call = f"phones/{ADA}/calls/{(await ask('POST', f'phones/{ADA}/calls', {'to': BOB}))['id']}"
        while (await ask("GET", call, query="wait_s=2&after=1"))["state"] != "up":
            pass
        noise = (np.random.default_rng(1).normal(size=4000) * 3000).astype("<i2")
        with wave.open(str(tmp_path / "noise.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(noise.tobytes())
        theirs = f"phones/{BOB}/calls/1"
        await ask("POST", call, {"do": "say", "what": {"kind": "text", "text": "Hello"}})
        await ask("POST", call, {"do": "say", "what": {"kind": "file", "path": str(tmp_path / "noise.wav")}})
        for what in ({"kind": "text", "text": "Hello"}, {"kind": "file", "path": str(tmp_path / "noise.wav")}):
            outcome = await ask("POST", theirs, {"do": "hear", "what": what, "wait_s": 2, "explain": True})
            assert outcome["heard"], outcome
        assert (await ask("GET", f"{theirs}/heard.wav")).startswith(b"RIFF")
        status, _, answer = await simulator.handle(
            theirs, "POST", JSON, b"", b'{"do": "say", "what": {"kind": "file", "path": "/nowhere.wav"}}'
        )
        assert status == 400
        assert b"nowhere" in answer
        assert (await simulator.handle("phones", "POST", {}, b"", b"{}"))[0] == 415
    finally:
        await phones.stop()
    assert not alive(phones.ready.pid)


async def test_the_next_node_finds_the_phones_again(tmp_path):
    first = await Phones.start(tmp_path)
    await first.ask("POST", f"phones/{ADA}", body=b'{"does": "busy"}')
    await first.detach()  # as when the node dies
    second = await Phones.start(tmp_path)
    try:
        assert second.ready == first.ready
        reply = await second.ask("GET", f"phones/{ADA}")
        assert b'"busy"' in reply.body
        await second.point_at(wire.Platform(host="127.0.0.1", port=5070, username="u", password="p"))
        reply = await second.ask("GET", "phones")
        assert msgspec.json.decode(reply.body)["platform"] == ["127.0.0.1", 5070]
    finally:
        await second.stop()
        await first._process.wait()
    assert not (tmp_path / "phones.json").exists()
    assert (await second.ask("GET", "phones")).status == 503
    third = await Phones.start(tmp_path)
    try:
        assert third.ready.pid != first.ready.pid
    finally:
        await third.stop()


async def test_a_process_that_dies_is_noticed(tmp_path):
    phones = await Phones.start(tmp_path)
    os.kill(phones.ready.pid, 9)
    await phones._process.wait()
    assert (await phones.ask("GET", "phones")).status == 503
    await phones.stop()


async def test_a_process_that_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(CannotStart, match="did not start"):
        await Phones.start(tmp_path)


async def test_it_ends_when_it_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "ORPHAN_S", 0.2)
    exchange = PhoneExchange()
    server = process.Server(exchange, Control(exchange, None))
    listener = await server.start(str(tmp_path / "control"))
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control"))
    await asyncio.sleep(0.3)
    assert not server.ended.is_set()
    writer.write(wire.frame(wire.Request(id=1, method="GET", path="phones")))
    assert wire.decode_reply(await wire.read(reader)).status == 200
    writer.close()
    await asyncio.wait_for(server.ended.wait(), 60)
    listener.close()


def test_simulated_trunks_lead_to_the_phones(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text(
        '[sip]\nenabled = true\n[[trunks]]\nname = "a"\nsimulated = true\n'
        '[[trunks]]\nname = "b"\ngateways = ["sip:192.0.2.1"]\n'
    )
    settings = load(file, {"TRUNKLINE_PROFILE": "development"})
    assert wanted(settings)
    ready = wire.Ready(pid=1, host="127.0.0.1", sip_port=5099, control="x")
    changed = with_phones(settings, Phones(ready, tmp_path / "note", None))
    assert changed.trunks[0].gateways == ("sip:127.0.0.1:5099",)
    assert changed.trunks[0].addresses == ("127.0.0.1",)
    assert changed.trunks[1] == settings.trunks[1]
    assert not wanted(load(None, {"TRUNKLINE_PROFILE": "development"}))
