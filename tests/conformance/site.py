"""The server that the SDKs talk to: `trunkline serve` with TLS, the loopback connector, and accounts to use up."""

import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from tests.conformance import certificate
from tests.conformance.network import open_network
from tests.conformance.sdk import Login, Program
from tests.e2e.nodes import serving
from tests.e2e.server import listening_port
from trunkline.accounts.directory import create_account
from trunkline.model.account import Account
from trunkline.model.clock import Clock
from trunkline.model.numbers import PhoneNumber, ShortCode
from trunkline.model.sid import PHONE_NUMBER, SHORT_CODE, new_sid
from trunkline.storage.database import Database

TENANTS = 320
"""Accounts made beforehand: one for each test of a run."""
AREA_CODES = (201, 202, 203, 205, 206, 207, 208, 209, 210)
"""Of the tenants' numbers; 555-0100 to 555-0199 of each are kept for fiction."""
FREE_AREA_CODE = 415
"""Of the numbers that can be bought."""
FREE_NUMBERS = 100
TOLL_FREE = "+1800555{:04d}"
PLACE = {
    "region": "CA",
    "locality": "San Francisco",
    "postal_code": "94103",
    "rate_center": "SNFC CNTRL",
    "lata": "722",
    "latitude": 37.77,
    "longitude": -122.41,
}
"""Of the free numbers."""
CREDIT = Decimal(100)
NUMBER_PRICE = Decimal("1.15")
"""A month."""
MESSAGE_PRICE = Decimal("0.0075")
"""A segment."""
MINUTE_PRICE = Decimal("0.02")
"""A begun minute of a call out."""
WEB_S = 60.0
SETTINGS = {
    "profile": "development",
    "messaging": {"long_code_mps": 0, "toll_free_mps": 0, "short_code_mps": 0, "schedule_min_s": 300},
    "connectors": [{"name": "air", "kind": "loopback", "delay_s": 0.02}],
    "rates": [{"prefix": "", "price": str(MESSAGE_PRICE), "inbound_price": "0.0025"}],
    "sip": {"enabled": True, "port": 0},
    "media": {"legs": 50},
    "voice": {"calls_per_second": 0},
    "speech": {"engine": "tones"},
    "trunks": [{"name": "phones", "simulated": True, "price": str(MINUTE_PRICE), "inbound_price": "0.01"}],
    "log": {"format": "json", "level": "info"},
}


@dataclass(frozen=True)
class Tenant:
    """An account and what belongs to it."""

    account: Account
    numbers: tuple[str, str]
    short_code: str

    @property
    def sid(self) -> str:
        """The account's SID."""
        return self.account.sid

    @property
    def login(self) -> Login:
        """With the auth token."""
        return Login(self.account.sid, self.account.auth_token)

    @property
    def test_login(self) -> Login:
        """With the test credentials."""
        return Login(self.account.test_account_sid, self.account.test_auth_token)


class Site:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = open_network(folder)
        self.certificate = certificate.make(folder, ("*.twilio.com", "localhost"))
        tls = {
            "port": self.network.port,
            "tls_cert": str(self.certificate.chain),
            "tls_key": str(self.certificate.key),
        }
        self.server = serving(folder, {**SETTINGS, "server": tls}, self.network.prefix)
        self._tenants = deque(self.server.seed(_seed))
        self.server.start()
        self.network.serves(self.server.port)
        self._programs: dict[str, Program] = {}
        self._web = self._serve_files()

    def _serve_files(self) -> subprocess.Popen[bytes]:
        """A web server that the platform can fetch `files` from."""
        self.files = self.folder / "files"
        self.files.mkdir()
        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(self.files), "0"]
        web = subprocess.Popen([*self.network.prefix, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + WEB_S
        while (port := listening_port(web.pid)) is None:
            assert time.monotonic() < until, "the files' web server does not listen"
            time.sleep(0.02)
        self.files_url = f"http://127.0.0.1:{port}"
        return web

    def tenant(self) -> Tenant:
        """An account that nobody has used yet."""
        return self._tenants.popleft()

    def program(self, name: str) -> Program:
        """The process of one SDK."""
        if name not in self._programs:
            authority = str(self.certificate.authority)
            environment = {
                "REQUESTS_CA_BUNDLE": authority,
                "SSL_CERT_FILE": authority,
                "NODE_EXTRA_CA_CERTS": authority,
                **self.network.environment(),
            }
            self._programs[name] = Program(name, self.network.prefix, environment, self.folder / f"{name}.log")
        return self._programs[name]

    def close(self) -> None:
        """End everything."""
        for program in self._programs.values():
            program.close()
        self._web.kill()
        self._web.wait()
        self.server.close()
        self.network.close()


async def _seed(database: Database, clock: Clock) -> list[Tenant]:
    tenants = []
    local = iter([f"+1{area}555{line:04d}" for area in AREA_CODES for line in range(100, 200)])
    for index in range(TENANTS):
        account = await create_account(database, clock, f"Tenant {index}")
        account.credit = str(CREDIT)
        await database.update(account)
        numbers = next(local), next(local)
        short_code = str(20000 + index)
        await database.insert(
            *(_number(number, account.sid, clock.now_ms()) for number in numbers),
            ShortCode(sid=new_sid(SHORT_CODE), account_sid=account.sid, short_code=short_code, country="US"),
        )
        tenants.append(Tenant(account, numbers, short_code))
    free = [_number(f"+1{FREE_AREA_CODE}555{100 + index:04d}") for index in range(FREE_NUMBERS)]
    free += [_number(TOLL_FREE.format(100 + index), kind="tollfree") for index in range(10)]
    free += [_number(f"+4479009000{index:02d}", country="GB", kind="mobile") for index in range(10)]
    await database.insert(*free)
    return tenants


def _number(
    number: str, account_sid: str = "", bought_ms: int = 0, country: str = "US", kind: str = "local"
) -> PhoneNumber:
    return PhoneNumber(
        sid=new_sid(PHONE_NUMBER),
        account_sid=account_sid,
        phone_number=number,
        friendly_name=number,
        country=country,
        type=kind,
        mms_enabled=True,
        bought_ms=bought_ms,
        **(PLACE if number.startswith(f"+1{FREE_AREA_CODE}") else {}),
        monthly_price=str(NUMBER_PRICE),
    )
