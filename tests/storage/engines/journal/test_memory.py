"""The journalled `MemoryStore`: what was put is there after the process has gone, whatever the journal's tail is."""

import os
import subprocess
import sys

import pytest

from trunkline.storage.engines.journal import memory
from trunkline.storage.engines.journal.memory import JournalStore
from trunkline.storage.memory import MAX_VALUE_BYTES, ValueTooLarge


class Clock:
    ms = 1000

    def now_ms(self):
        return self.ms

    def monotonic(self):
        return self.ms / 1000


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.journal"


def reopened(store, path, clock):
    store.close()
    return JournalStore(path, clock)


async def test_values_and_removals_are_there_again(path, clock):
    store = JournalStore(path, clock)
    await store.put("a", b"1")
    await store.put("a", b"2")
    await store.put("b", b"3")
    await store.delete("b")
    store = reopened(store, path, clock)
    assert await store.get("a") == b"2"
    assert await store.get("b") is None
    assert await store.scan("") == [("a", b"2")]


async def test_changes_together_are_one_write(path, clock, monkeypatch):
    store = JournalStore(path, clock)
    store.post("old", b"0")
    writes = []
    write = os.write
    monkeypatch.setattr(memory.os, "write", lambda file, data: writes.append(data) or write(file, data))
    store.post_all([("a", b"1"), ("old", None), ("b", b"2"), ("never there", None)], ttl_ms=100)
    store.post_all([("never there", None)])
    with pytest.raises(ValueTooLarge):
        store.post_all([("c", b"3"), ("d", b"x" * (MAX_VALUE_BYTES + 1))])
    monkeypatch.undo()
    assert len(writes) == 1
    store = reopened(store, path, clock)
    assert sorted(await store.scan("")) == [("a", b"1"), ("b", b"2")]
    clock.ms += 100
    assert await store.scan("") == []


async def test_what_a_killed_process_put_is_there(path, clock):
    code = (
        "import os, sys, signal; from pathlib import Path\n"
        "from trunkline.model.clock import SystemClock\n"
        "from trunkline.storage.engines.journal.memory import JournalStore\n"
        "JournalStore(Path(sys.argv[1]), SystemClock()).put('call', b'state')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert ended.returncode == -9
    assert await JournalStore(path, clock).get("call") == b"state"


async def test_expiry_and_compare_and_set(path, clock):
    store = JournalStore(path, clock)
    await store.put("k", b"v", ttl_ms=10)
    assert not await store.compare_and_set("k", None, b"x")
    assert await store.compare_and_set("k", b"v", b"w", ttl_ms=10)
    clock.ms += 10
    assert await store.get("k") is None
    assert await reopened(store, path, clock).scan("") == []


@pytest.mark.parametrize("cut", [1, 5, 9, 20])
async def test_a_torn_tail_costs_only_its_record(path, clock, cut):
    store = JournalStore(path, clock)
    await store.put("a", b"x" * 50)
    await store.put("b", b"y" * 50)
    os.truncate(path, path.stat().st_size - cut)
    store = reopened(store, path, clock)
    assert await store.get("a") == b"x" * 50
    assert await store.get("b") is None
    await store.put("c", b"z")
    store = reopened(store, path, clock)
    assert await store.get("c") == b"z"


async def test_a_damaged_record_ends_the_journal(path, clock):
    store = JournalStore(path, clock)
    await store.put("a", b"1")
    whole = path.stat().st_size
    await store.put("b", b"2")
    data = bytearray(path.read_bytes())
    data[whole + 9] ^= 0xFF
    path.write_bytes(data)
    store = reopened(store, path, clock)
    assert await store.scan("") == [("a", b"1")]


async def test_the_journal_is_rewritten_when_most_of_it_is_stale(path, clock, monkeypatch):
    monkeypatch.setattr(memory, "REWRITE_BYTES", 10_000)
    store = JournalStore(path, clock)
    await store.put("kept", b"k")
    for index in range(1000):
        await store.put("call", b"%d" % index * 30)
    assert path.stat().st_size < 12_000
    store = reopened(store, path, clock)
    assert await store.get("kept") == b"k"
    assert await store.get("call") == b"999" * 30


async def test_it_is_bounded(path, clock):
    store = JournalStore(path, clock, max_total_bytes=1000)
    for index in range(20):
        await store.put(f"k{index}", b"x" * 100)
    assert await store.get("k0") is None
    assert await store.get("k19") == b"x" * 100
    assert len(await store.scan("k")) == 9
    with pytest.raises(ValueTooLarge):
        store.put("large", b"x" * (MAX_VALUE_BYTES + 1))


async def test_it_is_read_beside_its_writer(path, clock):
    assert memory.peek(path, "", clock.now_ms()) == []
    store = JournalStore(path, clock)
    store.post("phone/a", b"1")
    store.post("phone/b", b"2")
    store.post("phone/a", b"3")
    store.post("phone/b", None)
    store.post("phone/c", b"4", ttl_ms=1)
    store.post("call/a", b"5")
    written = path.read_bytes()
    assert memory.peek(path, "phone/", clock.now_ms() + 2) == [("phone/a", b"3")]
    path.write_bytes(written + b"torn")
    assert memory.peek(path, "call/", clock.now_ms()) == [("call/a", b"5")]
    assert path.read_bytes() == written + b"torn"
