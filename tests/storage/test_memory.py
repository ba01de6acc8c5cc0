"""The in-process `MemoryStore`: expiry, compare-and-set, and its bound."""

from trunkline.storage.memory import InProcess


class Clock:
    ms = 1000

    def now_ms(self):
        return self.ms

    def monotonic(self):
        return self.ms / 1000


async def test_a_value_expires():
    clock = Clock()
    store = InProcess(clock)
    await store.put("k", b"v", ttl_ms=10)
    assert await store.get("k") == b"v"
    clock.ms += 10
    assert await store.get("k") is None


async def test_compare_and_set_changes_only_what_is_as_expected():
    store = InProcess(Clock())
    assert await store.compare_and_set("k", None, b"1")
    assert not await store.compare_and_set("k", None, b"2")
    assert not await store.compare_and_set("k", b"0", b"2")
    assert await store.compare_and_set("k", b"1", b"2")
    assert await store.get("k") == b"2"
    await store.delete("k")
    assert await store.get("k") is None


async def test_the_oldest_written_leave_first():
    store = InProcess(Clock(), max_entries=2)
    for key in ("a", "b", "a", "c"):
        await store.put(key, key.encode())
    assert [await store.get(key) for key in "abc"] == [b"a", None, b"c"]
