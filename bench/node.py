"""Trunkline as the system under test: `trunkline serve` on a fresh data folder, synced to disk before each answer."""

import asyncio
import base64
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from bench.gateway import TEXT, recipient
from bench.processes import Process, free_ports, python
from bench.sink import Sample
from trunkline.accounts.directory import create_account
from trunkline.bootstrap import open_database
from trunkline.model.account import Account
from trunkline.model.clock import SystemClock
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import PHONE_NUMBER, new_sid
from trunkline.settings import load

START_S = 120.0
QUERY_S = 60.0


class Customer(NamedTuple):
    """An account and the number that it sends from."""

    account: Account
    number: str
    authorization: str
    """Its credentials, as the header has them."""


class Trunkline:
    """See bench.gateway.Gateway. `rates` are the messages a second of each customer's number, 0 for no limit; requests
    are the first customer's unless `customer` is set. `messaging` and `storage` are settings of those sections, `more`
    of any. `module`: what is run instead of the package; `customers`: who is known already, and not made anew."""

    name = "trunkline"

    def __init__(
        self,
        folder: Path,
        smsc_port: int,
        window: int = 100,
        rates: tuple[float, ...] = (0,),
        messaging: Mapping[str, float] | None = None,
        storage: Mapping[str, str] | None = None,
        more: Mapping[str, Mapping[str, object]] | None = None,
        module: str = "trunkline",
        customers: list["Customer"] | None = None,
    ) -> None:
        self._module = module
        (self.port,) = free_ports(1)
        self._folder = folder
        self._configuration = folder / "trunkline.toml"
        sections: dict[str, Mapping[str, object]] = {
            "server": {"host": "127.0.0.1", "port": self.port},
            "data": {"path": str(folder / "data")},
            "log": {"level": "warning"},
            "messaging": {"long_code_mps": 0, **(messaging or {})},
            "storage": storage or {},
        }
        for name, section in (more or {}).items():
            sections[name] = {**sections.get(name, {}), **section}
        carrier = {
            "name": "carrier",
            "kind": "smpp",
            "host": "127.0.0.1",
            "port": smsc_port,
            "system_id": "trunkline",
            "window": window,
        }
        lines = ['profile = "integration"']
        for title, section in [
            *((f"[{name}]", section) for name, section in sections.items()),
            ("[[connectors]]", carrier),
        ]:
            lines += ["", title, *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
        self._configuration.write_text("\n".join(lines) + "\n")
        self.customers = customers or asyncio.run(self._seed(rates))
        self.customer = self.customers[0]
        self._process: Process | None = None

    async def _seed(self, rates: tuple[float, ...]) -> list[Customer]:
        database = open_database(load(self._configuration, {}))
        clock = SystemClock()
        customers = []
        try:
            for index, rate in enumerate(rates):
                account = await create_account(database, clock, f"Customer {index}")
                number = PhoneNumber(
                    sid=new_sid(PHONE_NUMBER),
                    account_sid=account.sid,
                    phone_number=f"+1202555014{index}",
                    messages_per_second=rate,
                    bought_ms=clock.now_ms(),
                )
                await database.insert(number)
                login = base64.b64encode(f"{account.sid}:{account.auth_token}".encode()).decode()
                customers.append(Customer(account, number.phone_number, f"Basic {login}"))
        finally:
            await database.close()
        return customers

    @property
    def roots(self) -> list[int]:
        return [self._process.pid] if self._process else []

    def start(self) -> None:
        command = python("-m", self._module, "--config", str(self._configuration), "serve")
        self._process = Process(command, self._folder, "trunkline.log")
        self._process.until(self._is_ready, START_S, "waiting for Trunkline")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return bool(json.load(answer)["ready"])
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def stop(self) -> None:
        if self._process:
            self._process.stop()

    def request(self, key: str, number: int, sink_url: str) -> bytes:
        account, sender, authorization = self.customer
        body = (
            f"To=%2B{recipient(number)}&From={quote(sender)}&Body={quote_plus(TEXT % key)}"
            f"&StatusCallback={quote(f'{sink_url}/status?k={key}', safe='')}"
        )
        return (
            f"POST /2010-04-01/Accounts/{account.sid}/Messages.json HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: {authorization}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def is_final(self, url: bytes, body: bytes) -> bool:
        return b"MessageStatus=delivered" in body

    def counters(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        stores = [line.rsplit(" ", 1) for line in lines if line.startswith("trunkline_store_")]
        return {name.removeprefix("trunkline_store_"): float(value) for name, value in stores}

    def genuine(self, url: str, sample: Sample) -> bool | None:
        validator = RequestValidator(self.customer.account.auth_token)
        return bool(validator.validate(url + sample.url.decode(), sample.form(), sample.signature))

    def query(self, sql: str) -> list[list[str]]:
        """The rows of one SELECT over the landed messages, by the command line (the server may have ended)."""
        command = python("-m", "trunkline", "--config", str(self._configuration), "archive", "query", sql)
        done = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_S, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()[1:]]
