"""A customer's web server: keeps every request and answers as it is told."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from aiohttp import web
from twilio.request_validator import RequestValidator

WAIT_S = 60.0


class Hook(NamedTuple):
    """One request that came in."""

    path: str
    form: dict[str, str]
    headers: dict[str, str]
    url: str

    def signed_by(self, token: str) -> bool:
        """Whether X-Twilio-Signature is right, in the judgement of Twilio's own validator."""
        return bool(RequestValidator(token).validate(self.url, self.form, self.headers["X-Twilio-Signature"]))


class Sink:
    """See the module. `answers` maps a path to the TwiML it returns, `files` to content type and content; other paths
    answer 204."""

    def __init__(self) -> None:
        self.hooks: list[Hook] = []
        self.answers: dict[str, str] = {}
        self.files: dict[str, tuple[str, bytes]] = {}
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> "Sink":
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def at(self, path: str) -> list[Hook]:
        """The requests at one path, in the order of their coming."""
        return [hook for hook in self.hooks if hook.path == path]

    async def until(self, done: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Wait until `done()`; it is asked after each request."""
        async with asyncio.timeout(timeout_s):
            while not done():
                self._changed.clear()
                await self._changed.wait()

    async def _take(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.hooks.append(Hook(request.path, form, dict(request.headers), f"{self.url}{request.path_qs}"))
        self._changed.set()
        if request.path in self.files:
            content_type, content = self.files[request.path]
            return web.Response(body=content, content_type=content_type)
        document = self.answers.get(request.path)
        if document is None:
            return web.Response(status=204)
        return web.Response(text=document, content_type="text/xml")
