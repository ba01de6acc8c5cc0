"""A gateway that does nothing but keep the books, and loses and doubles messages when told to."""

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import aiohttp
from aiohttp import web
from bench.sink import Sample

FAULTS = (
    "lose",
    "submit twice",
    "tell nothing",
    "tell twice",
    "tell failure",
    "refuse",
    "refuse and submit",
    "cut",
)


class Books:
    """A stand-in for the SMSC: what it was given, as bench.smsc.Smsc tells it."""

    def __init__(self) -> None:
        self.seen: dict[str, list[int]] = {}

    async def later(self, path: str, **query: float | str) -> object:
        if path == "/reset":
            self.seen.clear()
        return self.seen if path == "/times" else {"sessions": 1, "keys": len(self.seen)}


class Stub:
    """`fault(number)` names what goes wrong with the message of that number, or is empty."""

    name = "stub"

    def __init__(self, books: Books, clock: Callable[[], int], fault: Callable[[int], str]) -> None:
        self._books = books
        self._clock = clock
        self._fault = fault
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.roots: list[int] = []

    async def __aenter__(self) -> "Stub":
        self._session = aiohttp.ClientSession()
        app = web.Application()
        app.router.add_get("/send", self._send)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._tasks)
        await self._session.close()
        await self._runner.cleanup()

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def counters(self) -> dict[str, float]:
        return {}

    def genuine(self, url: str, sample: Sample) -> bool | None:
        return sample.signature == "right"

    def is_final(self, url: bytes, body: bytes) -> bool:
        return body == b"delivered"

    def request(self, key: str, number: int, sink_url: str) -> bytes:
        target = f"/send?key={key}&number={number}&to={sink_url}/cb"
        return f"GET {target} HTTP/1.1\r\nHost: stub\r\n\r\n".encode()

    async def _send(self, request: web.Request) -> web.StreamResponse:
        key, url = request.query["key"], request.query["to"]
        fault = "" if key.startswith("warm") else self._fault(int(request.query["number"]))
        if fault == "cut":
            assert request.transport is not None
            request.transport.abort()
        if fault not in ("lose", "refuse", "cut"):
            entry = self._books.seen.setdefault(key, [self._clock(), 0])
            entry[1] += 2 if fault == "submit twice" else 1
            task = asyncio.create_task(self._tell(f"{url}?k={key}", fault))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return web.Response(status=503 if fault.startswith("refuse") else 201, text="{}")

    async def _tell(self, url: str, fault: str) -> None:
        if fault in ("tell nothing", "refuse and submit"):
            return
        assert parse_qs(urlsplit(url).query)["k"]
        bodies = ["sent", "failed" if fault == "tell failure" else "delivered"]
        if fault == "tell twice":
            bodies.append("delivered")
        for body in bodies:
            async with self._session.post(url, data=body, headers={"X-Twilio-Signature": "right"}):
                pass
