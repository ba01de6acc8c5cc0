"""Customers under load: Twilio's own SDK with its default settings, plain requests, and requests with a key.

They send at a steady rate whatever happens, and keep a ledger. Plain requests and the SDK try once. Requests with an
`Idempotency-Key` are tried again, with the same key, until they are accepted or KEYED_S has passed.
"""

import asyncio
import itertools
import threading
import time
from typing import Any

import aiohttp

from lab import outside
from lab.ledgers import Request, Webhooks
from lab.node import Customer
from trunkline.testing.local import http_client

RECIPIENT = "+12125550180"
PLAIN_S = 60.0
"""A plain request without an answer by then has failed. (The SDK sets no limit of its own.)"""
KEYED_TRY_S = 15.0
KEYED_S = 60.0
RETRY_S = 0.2
MAX_UNDER_WAY = 2000
SDK_THREADS = 4
RAW, KEYED = 0.5, 0.25
"""Shares of the rate; the rest is the SDK's."""
LOST = (aiohttp.ClientError, ConnectionError, TimeoutError)


class Load:
    """`async with`: sends inside the block, `rate` requests a second."""

    def __init__(
        self, customer: Customer, webhooks: Webhooks, prefix: str,
        *, rate: float = 38.0,
    ) -> None:  # fmt: skip
        self._customer = customer
        self._webhooks = webhooks
        self._prefix = prefix
        self._rates = {"raw": rate * RAW, "keyed": rate * KEYED}
        self._sdk = rate * (1 - RAW - KEYED)
        self._running = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._drivers: list[asyncio.Task[None]] = []
        self._threads: list[threading.Thread] = []
        self.requests: list[Request] = []
        self.missed = 0
        """Requests that were due while MAX_UNDER_WAY waited already."""

    @property
    def _url(self) -> str:
        return f"http://{outside.EDGE}/2010-04-01/Accounts/{self._customer.sid}/Messages.json"

    def form(self, key: str) -> dict[str, str]:
        """The message of a key, which is in its text for the carrier and in its callback's URL for the customer."""
        return {
            "To": RECIPIENT, "From": self._customer.sender, "Body": f"K={key} lab",
            "StatusCallback": f"{self._webhooks.url}/status?k={key}",
        }  # fmt: skip

    async def __aenter__(self) -> "Load":
        connector = aiohttp.TCPConnector(limit=0)
        login = aiohttp.BasicAuth(self._customer.sid, self._customer.token)
        self._session = aiohttp.ClientSession(connector=connector, auth=login, trust_env=False)
        self._drivers = [asyncio.create_task(self._drive(kind, rate)) for kind, rate in self._rates.items() if rate]
        for number in range(SDK_THREADS if self._sdk else 0):
            thread = threading.Thread(target=self._sdk_thread, args=(number,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.stop()
        finally:
            await self._session.close()

    async def stop(self) -> None:
        """Send no more; wait for what is under way."""
        if not self._running:
            return
        self._running = False
        await asyncio.gather(*self._drivers)
        if self._tasks:
            await asyncio.wait(self._tasks)
        for thread in self._threads:
            await asyncio.to_thread(thread.join, PLAIN_S)
        await self._session.close()

    async def _drive(self, kind: str, rate: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in itertools.count():
            await asyncio.sleep(began + number / rate - loop.time())
            if not self._running:
                return
            if len(self._tasks) >= MAX_UNDER_WAY:
                self.missed += 1
                continue
            request = Request(kind, f"{self._prefix}{kind[0]}{number}", time.monotonic())
            self.requests.append(request)
            task = asyncio.create_task(self._plain(request) if kind == "raw" else self._keyed(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _post(self, request: Request, timeout_s: float, headers: dict[str, str]) -> None:
        request.tries += 1
        try:
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            async with self._session.post(
                self._url, data=self.form(request.key), headers=headers, timeout=timeout
            ) as answer:
                body: Any = await answer.json(content_type=None) if answer.status == 201 else await answer.read()
                request.outcome = str(answer.status)
                if answer.status == 201:
                    request.sid = body["sid"]
        except LOST as error:
            request.outcome = type(error).__name__
        request.ended = time.monotonic()

    async def _plain(self, request: Request) -> None:
        await self._post(request, PLAIN_S, {})

    async def _keyed(self, request: Request) -> None:
        deadline = request.began + KEYED_S
        while True:
            await self._post(request, KEYED_TRY_S, {"Idempotency-Key": f'"{request.key}"'})
            if request.sid or time.monotonic() > deadline:
                return
            await asyncio.sleep(RETRY_S)

    def _sdk_thread(self, number: int) -> None:
        """The SDK blocks, so each thread has its own share of the rate; one that waits for an answer sends less."""
        from twilio.rest import Client  # type: ignore[import-untyped]

        client = Client(self._customer.sid, self._customer.token, http_client=http_client(f"http://{outside.EDGE}"))
        for index in itertools.count():
            began = time.monotonic()
            if not self._running:
                return
            request = Request("sdk", f"{self._prefix}s{number}x{index}", began, tries=1)
            self.requests.append(request)
            form = self.form(request.key)
            try:
                made = client.messages.create(
                    to=form["To"], from_=form["From"], body=form["Body"], status_callback=form["StatusCallback"]
                )
                request.sid, request.outcome = str(made.sid), "201"
            except Exception as error:  # whatever the SDK raises is what its user sees
                request.outcome = type(error).__name__
            request.ended = time.monotonic()
            time.sleep(max(0.0, began + SDK_THREADS / self._sdk - time.monotonic()))
