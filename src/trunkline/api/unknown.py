"""What a request names and this node of a cluster does not know: looked for before the request is refused."""

from collections.abc import Awaitable
from typing import Final, Protocol

from trunkline.api.auth import username
from trunkline.api.request import Request
from trunkline.model.account import Account, ApiKey
from trunkline.model.errors import ApiError
from trunkline.model.numbers import Application, MessagingService, PhoneNumber, ServiceSender, ShortCode
from trunkline.model.sid import is_sid
from trunkline.model.sip_trunk import SipTrunk

REFUSALS: Final = frozenset({20003, 20005, 20404})
"""Codes of a login or an account that this node may know too little of."""
SENDERS: Final = ("From", "CallerId")
"""Fields that name a number of the account's own."""
SIDS: Final = ("MG", "AP", "AC", "TK")
MAX_LOOKED: Final = 5
"""Things that one request can have looked for."""


class Looking(Protocol):
    """trunkline.accounts.misses.Misses."""

    def sid(self, sid: str) -> Awaitable[None]: ...

    def number(self, address: str) -> Awaitable[None]: ...

    def senders(self, service_sid: str) -> Awaitable[None]: ...


class SipTrunks(Protocol):
    """trunkline.accounts.sip_directory.SipDirectory."""

    def trunk_of_sid(self, sid: str) -> SipTrunk | None: ...


class Directory(Protocol):
    """trunkline.accounts.directory.Directory."""

    @property
    def sip(self) -> SipTrunks: ...

    def account(self, sid: str) -> Account | None: ...

    def api_key(self, sid: str) -> ApiKey | None: ...

    def application(self, sid: str) -> Application | None: ...

    def service(self, sid: str) -> MessagingService | None: ...

    def senders(self, service_sid: str) -> tuple[ServiceSender, ...]: ...

    def owned_sender(self, account_sid: str, address: str) -> PhoneNumber | ShortCode | None: ...


class Unknown:
    """See the module."""

    def __init__(self, directory: Directory, looking: Looking) -> None:
        self._directory = directory
        self._looking = looking

    @staticmethod
    def may_help(refusal: ApiError) -> bool:
        """Whether a login that is refused could be right."""
        return refusal.code in REFUSALS

    async def login(self, header: bytes | None, account_sid: str) -> None:
        """Look for who logs in, also if he is known (his secret may be another by now), and for the account of the
        path."""
        name = username(header)
        if is_sid(name, "AC", "SK"):
            await self._looking.sid(name)
            key = self._directory.api_key(name)
            if key is not None and self._directory.account(key.account_sid) is None:
                await self._looking.sid(key.account_sid)
        if account_sid != name and is_sid(account_sid, "AC"):
            await self._looking.sid(account_sid)

    async def named(self, request: Request) -> None:
        """Look for what a POST names and this node does not know."""
        left = MAX_LOOKED
        for name, values in request.form.items():
            for value in values:
                asked = self._missing(request.account_sid, name, value)
                if asked is not None:
                    await asked
                    left -= 1
                    if not left:
                        return

    def _missing(self, account_sid: str, name: str, value: str) -> Awaitable[None] | None:
        directory = self._directory
        if is_sid(value, *SIDS):
            if not self._knows(value):
                return self._looking.sid(value)
            service = value.startswith("MG") and not directory.senders(value)
            return self._looking.senders(value) if service else None
        is_sender = name in SENDERS and (value[1:] if value.startswith("+") else value).isdigit() and len(value) < 20
        if is_sender and directory.owned_sender(account_sid, value) is None:
            return self._looking.number(value)
        return None

    def _knows(self, sid: str) -> bool:
        directory = self._directory
        match sid[:2]:
            case "MG":
                return directory.service(sid) is not None
            case "AP":
                return directory.application(sid) is not None
            case "TK":
                return directory.sip.trunk_of_sid(sid) is not None
        return directory.account(sid) is not None
