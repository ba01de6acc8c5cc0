"""The line of a phone that has an account of its own: a user of a SIP domain, registered there until it leaves."""

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Final

from trunkline.sip.message import Response
from trunkline.testing.phones.things import Registered, Registration

if TYPE_CHECKING:
    from trunkline.testing.phones.exchange import PhoneExchange

REFRESH: Final = 0.6
"""Share of a registration's time after which it is refreshed."""

log = logging.getLogger(__name__)


class Line:
    """See the module. `name` is the user part of its Contact: the phone that calls ring at."""

    def __init__(self, exchange: "PhoneExchange", name: str, wanted: Registration) -> None:
        self.wanted = wanted
        self.state = Registered()
        self._exchange = exchange
        self._name = name
        self._call_id = secrets.token_hex(10)
        self._cseq = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def uri(self) -> str:
        """What From says."""
        return f"sip:{self.wanted.user}@{self.wanted.domain}"

    @property
    def credentials(self) -> tuple[str, str]:
        return self.wanted.user, self.wanted.password

    def uri_of(self, to: str) -> str:
        """What it dials: somebody at its domain, or a whole URI."""
        return to if to.lower().startswith(("sip:", "sips:")) else f"sip:{to}@{self.wanted.domain}"

    async def register(self) -> Registered:
        """Register, or leave where the time is 0; how it went."""

        def heard(status: int, response: Response | None) -> None:
            if not done.done():
                done.set_result(_registered(status, response))

        self.stop()
        done: asyncio.Future[Registered] = asyncio.get_running_loop().create_future()
        wanted, exchange = self.wanted, self._exchange
        self._cseq += 2  # a challenge takes one
        exchange.stack.request(
            "REGISTER", f"sip:{wanted.domain}", to=f"<{self.uri}>", from_=f"<{self.uri}>",
            target=exchange.target("", wanted.transport), credentials=self.credentials,
            headers=[("Contact", f"{self._contact()};expires={wanted.expires_s}"), *wanted.headers.items()],
            call_id=self._call_id, cseq=self._cseq, on_response=heard,
        )  # fmt: skip
        self.state = await done
        if self.state.status == 200 and wanted.expires_s:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(wanted.expires_s * REFRESH, lambda: exchange.spawn(self._refresh()))
        return self.state

    async def _refresh(self) -> None:
        state = await self.register()
        if state.status != 200:
            log.warning("%s is no longer registered: %d", self.uri, state.status)

    def _contact(self) -> str:
        exchange, transport = self._exchange, self.wanted.transport
        host = f"[{exchange.host}]" if ":" in exchange.host else exchange.host
        parameter = "" if transport == "UDP" else f";transport={transport.lower()}"
        return f"<sip:{self._name}@{host}:{exchange.port}{parameter}>"

    def stop(self) -> None:
        """Refresh no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _registered(status: int, response: Response | None) -> Registered:
    if response is None:
        return Registered(status=status)
    headers = response.headers
    return Registered(status=status, contacts=headers.all("Contact"), headers=dict(headers.items()))
