"""The `[memory]` section, and the store that it opens."""

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest

from tests.redis import RedisServer, needs_redis
from trunkline.bootstrap_stores import check_memory, open_memory, peek_memory
from trunkline.model.clock import SystemClock
from trunkline.settings import Settings, SettingsError, load
from trunkline.storage.engines.journal.memory import JournalStore
from trunkline.storage.engines.valkey.servers import BadUrl
from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import StoreUnavailable

URL = "redis://me:hunter2@127.0.0.1:1/0"


def settings(folder: Path, **memory: Any) -> Settings:
    return load(None, {}, {"memory": memory, "data": {"path": str(folder / "data")}})


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        ({"engine": "valkey"}, "memory.url: engine = "),
        ({"url": URL}, "memory.url: is of no use"),
        ({"sentinels": ("a",)}, "memory.sentinels: is of no use"),
        ({"survives": "zone"}, "a journal cannot outlive its zone"),
        ({"engine": "valkey", "sentinels": ("a:b:c",)}, "is not host:port"),
        ({"engine": "valkey", "sentinels": ("a",), "service": ""}, "memory.service"),
        ({"engine": "valkey", "url": URL, "zones": ("a:1",)}, "is not NAME=ZONE"),
        ({"engine": "valkey", "url": URL, "tls_ca": "nowhere.pem"}, "memory.tls_ca"),
        ({"engine": "valkey", "url": URL, "wait_ms": 1}, "memory.wait_ms"),
        ({"engine": "redis"}, "memory.engine"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, memory: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why) as refused:
        settings(tmp_path, **memory)
    assert "hunter2" not in str(refused.value)


def test_settings_of_a_group_of_servers(tmp_path: Path) -> None:
    own = settings(
        tmp_path, engine="valkey", sentinels=("v1", "v2:26380", "[::1]:5"), survives="zone", zones=("v1:6379=eu/a",)
    )
    assert own.memory.sentinels == ("v1", "v2:26380", "[::1]:5")


async def test_the_journal_is_the_default(tmp_path: Path) -> None:
    own = settings(tmp_path)
    store = open_memory(own, SystemClock())
    assert isinstance(store, JournalStore)
    store.post("ban/a", b"1")
    assert await store.settled(1)
    assert peek_memory(own, "ban/") == [("ban/a", b"1")]
    store.close()


@needs_redis
async def test_valkey_where_the_settings_say_so(tmp_path: Path) -> None:
    server = RedisServer({"min-replicas-max-lag": "5"}).start()
    try:
        own = settings(tmp_path, engine="valkey", url=server.url)
        assert server.address in check_memory(own)
        store = open_memory(own, SystemClock())
        store.post("ban/a", b"1")
        assert await store.settled(5)
        assert peek_memory(own, "ban/") == [("ban/a", b"1")]  # beside a running event loop, too
        store.close()
        await asyncio.sleep(0)
        with pytest.raises(CannotSurvive, match="no replica"):
            open_memory(settings(tmp_path, engine="valkey", url=server.url, survives="zone"), SystemClock())
    finally:
        server.close()
    for unreachable in (open_memory, lambda own, _: peek_memory(own, "")):
        with pytest.raises(StoreUnavailable):
            unreachable(own, SystemClock())


def test_a_url_that_cannot_be_read_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(BadUrl) as refused:
        check_memory(settings(tmp_path, engine="valkey", url="http://me:hunter2@x"))
    assert "hunter2" not in str(refused.value)


def test_a_missing_driver_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'redis'", name="redis.asyncio")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(StoreUnavailable, match=r"trunkline\[cluster\]"):
        open_memory(settings(tmp_path, engine="valkey", url=URL), SystemClock())
