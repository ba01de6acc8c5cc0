"""Who is who on this node: accounts, keys, numbers, services and applications, copied from the `Database`.

The hot path asks with plain dictionary look-ups and never waits. Staleness: a commit of this process is seen at once,
one of another process as soon as the engine tells of it (SQLite: within a second).
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, Protocol

from trunkline.accounts.sip_directory import DEFAULT_SUFFIX, DEFAULT_TRUNK_SUFFIX, SipDirectory
from trunkline.accounts.snapshot import Snapshot
from trunkline.model import sid as sids
from trunkline.model.account import Account, ApiKey
from trunkline.model.clock import Clock
from trunkline.model.dialing import DialingPermissions
from trunkline.model.numbers import Application, MessagingService, PhoneNumber, ServiceSender, ShortCode
from trunkline.model.record import Record
from trunkline.model.sid import new_sid
from trunkline.model.sip_domain import Ha1, Network, Purpose, SipDomain
from trunkline.storage.database import Database

TOKEN_BYTES = 16
"""Randomness of an auth token or an API key's secret: 128 bits, written as 32 hex digits."""
MOST = 200
"""Records that `Directory.read` takes at once."""

P = ParamSpec("P")

NO_SENDERS: tuple[ServiceSender, ...] = ()


class Directory:
    """See the module. Records it returns are shared: read them, never change them."""

    def __init__(
        self,
        database: Database,
        sip_suffix: str = DEFAULT_SUFFIX,
        trunk_suffix: str = DEFAULT_TRUNK_SUFFIX,
    ) -> None:
        self._database = database
        self.sip = SipDirectory(database, sip_suffix, trunk_suffix)
        self.generation = 0
        """Counts changes of accounts and keys, so that verified credentials can be remembered until one happens."""
        self.rates_changed: Callable[[], None] = lambda: None
        """Told after accounts, numbers or short codes have changed, and with them the rates of senders."""
        self._accounts: dict[str, Account] = {}
        self._test_accounts: dict[str, Account] = {}
        self._smpp: dict[str, Account] = {}
        self._keys: dict[str, ApiKey] = {}
        self._numbers: dict[str, PhoneNumber] = {}
        self._number_of_sid: dict[str, str] = {}
        self._short_codes: dict[str, ShortCode] = {}
        self._short_code_of_sid: dict[str, str] = {}
        self._applications: dict[str, Application] = {}
        self._services: dict[str, MessagingService] = {}
        self._sender: dict[str, ServiceSender] = {}
        self._pools: dict[str, tuple[ServiceSender, ...]] = {}
        self._service_of: dict[tuple[str, str], str] = {}
        self._dialing: dict[str, DialingPermissions] = {}
        self._copies: dict[type[Record], Snapshot[Any]] = {}

    async def start(self) -> None:
        """Load everything and follow its changes."""
        database, tell = self._database, self._then_tell
        copies: list[Snapshot[Any]] = [
            Snapshot(database, Account, tell(self._all_accounts), tell(self._account)),
            Snapshot(database, ApiKey, self._all_keys, self._key),
            Snapshot(database, PhoneNumber, tell(self._all_numbers), tell(self._number)),
            Snapshot(database, ShortCode, tell(self._all_short_codes), tell(self._short_code)),
            Snapshot(database, Application, self._all_applications, self._application),
            Snapshot(database, MessagingService, self._all_services, self._service),
            Snapshot(database, ServiceSender, self._all_senders, self._service_sender),
            Snapshot(database, DialingPermissions, self._all_dialing, self._dialing_of),
            *self.sip.copies(),
        ]
        self._copies = {copy.kind: copy for copy in copies}
        await asyncio.gather(*(copy.start() for copy in copies))

    async def read(self, kind: type[Record], where: Mapping[str, str]) -> bool:
        """Take the records that match (MOST at most) from the database now, whether or not it has told of them; whether
        there are any. Raises what the database raises."""
        found = await self._database.find(kind, where, limit=MOST)
        if found and (news := self._copies[kind].changed([record.sid for record in found])) is not None:
            await news
        return bool(found)

    def _then_tell(self, take: Callable[P, None]) -> Callable[P, None]:
        """`take`, and `rates_changed` told after it."""

        def taken(*args: P.args, **kwargs: P.kwargs) -> None:
            take(*args, **kwargs)
            self.rates_changed()

        return taken

    # Look-ups

    def account(self, sid: str) -> Account | None:
        """The account with this SID, whatever its status."""
        return self._accounts.get(sid)

    def accounts(self) -> list[Account]:
        """Every account, whatever its status."""
        return list(self._accounts.values())

    def test_account(self, sid: str) -> Account | None:
        """The account whose test credentials have this SID."""
        return self._test_accounts.get(sid)

    def by_smpp_system_id(self, system_id: str) -> Account | None:
        """The account whose SMPP clients bind with this system_id."""
        return self._smpp.get(system_id)

    def api_key(self, sid: str) -> ApiKey | None:
        """The API key with this SID."""
        return self._keys.get(sid)

    def number(self, e164: str) -> PhoneNumber | None:
        """Any number of the inventory, bought or available."""
        return self._numbers.get(e164)

    def short_code(self, code: str) -> ShortCode | None:
        """Any short code."""
        return self._short_codes.get(code)

    def owned_sender(self, account_sid: str, address: str) -> PhoneNumber | ShortCode | None:
        """The number or short code at `address`, if it is this account's own."""
        found = self._numbers.get(address) or self._short_codes.get(address)
        return found if found is not None and found.account_sid == account_sid else None

    def application(self, sid: str) -> Application | None:
        """The TwiML application with this SID."""
        return self._applications.get(sid)

    def service(self, sid: str) -> MessagingService | None:
        """The Messaging Service with this SID."""
        return self._services.get(sid)

    def senders(self, service_sid: str) -> tuple[ServiceSender, ...]:
        """The service's sender pool, in the order of the SIDs."""
        return self._pools.get(service_sid, NO_SENDERS)

    def service_of_sender(self, account_sid: str, address: str) -> MessagingService | None:
        """The service that a number or short code of the account is in (it can be in one only)."""
        service_sid = self._service_of.get((account_sid, address))
        return None if service_sid is None else self._services.get(service_sid)

    def dialing_permissions(self, account_sid: str) -> DialingPermissions | None:
        """Those that hold for an account, its parent's where it inherits them; None: the defaults."""
        if not self._dialing:
            return None
        mine = self._dialing.get(account_sid)
        if mine is not None and not mine.inherit:
            return mine
        account = self._accounts.get(account_sid)
        if account is None or account.owner_account_sid in ("", account_sid):
            return mine
        return self._dialing.get(account.owner_account_sid)

    # SIP domains

    def sip_domain(self, host: str) -> SipDomain | None:
        """The SIP domain that a URI's host means, in any case."""
        return self.sip.domain(host)

    def is_sip_name(self, host: str) -> bool:
        """Whether a URI's host could be a SIP domain's or a customer's trunk's: what strangers are told of those that
        exist, they are told of all such."""
        return self.sip.is_name(host)

    def sip_login(self, domain_sid: str, username: str, purpose: Purpose) -> tuple[Ha1, ...]:
        """The digests that let this user into the domain (or trunk), one for each of its lists that has the user."""
        return self.sip.login(domain_sid, username, purpose)

    def sip_addresses(self, domain_sid: str, purpose: Purpose) -> tuple[Network, ...]:
        """The networks that are let into the domain (or trunk)."""
        return self.sip.addresses(domain_sid, purpose)

    def sip_auth_types(self, domain_sid: str, purpose: Purpose) -> tuple[str, ...]:
        """`IP_ACL` and `CREDENTIAL_LIST`, as far as lists are mapped: a caller must pass each of them."""
        return self.sip.auth_types(domain_sid, purpose)

    # Accounts and keys

    def _all_dialing(self, records: Sequence[DialingPermissions]) -> None:
        self._dialing = {one.account_sid: one for one in records}

    def _dialing_of(self, sid: str, one: DialingPermissions | None) -> None:
        if one is not None:
            self._dialing[one.account_sid] = one
            return
        self._dialing = {account: each for account, each in self._dialing.items() if each.sid != sid}

    def _all_accounts(self, records: Sequence[Account]) -> None:
        self._accounts.clear()
        self._test_accounts.clear()
        self._smpp.clear()
        for account in records:
            self._account(account.sid, account)
        self.generation += 1

    def _account(self, sid: str, account: Account | None) -> None:
        self.generation += 1
        old = self._accounts.pop(sid, None)
        if old is not None:
            self._test_accounts.pop(old.test_account_sid, None)
            if old.smpp_system_id and self._smpp.get(old.smpp_system_id) is old:
                del self._smpp[old.smpp_system_id]
        if account is None:
            return
        self._accounts[sid] = account
        if account.test_account_sid:
            self._test_accounts[account.test_account_sid] = account
        if account.smpp_system_id:
            self._smpp[account.smpp_system_id] = account

    def _all_keys(self, records: Sequence[ApiKey]) -> None:
        self._keys.clear()
        self._keys.update((key.sid, key) for key in records)
        self.generation += 1

    def _key(self, sid: str, key: ApiKey | None) -> None:
        self.generation += 1
        if key is None:
            self._keys.pop(sid, None)
        else:
            self._keys[sid] = key

    # Numbers

    def _all_numbers(self, records: Sequence[PhoneNumber]) -> None:
        self._numbers.clear()
        self._number_of_sid.clear()
        for number in records:
            self._number(number.sid, number)

    def _number(self, sid: str, number: PhoneNumber | None) -> None:
        old = self._numbers.get(self._number_of_sid.pop(sid, ""))
        if old is not None and old.sid == sid:  # the address may be another record's by now
            del self._numbers[old.phone_number]
        if number is not None:
            self._number_of_sid[sid] = number.phone_number
            self._numbers[number.phone_number] = number

    def _all_short_codes(self, records: Sequence[ShortCode]) -> None:
        self._short_codes.clear()
        self._short_code_of_sid.clear()
        for short_code in records:
            self._short_code(short_code.sid, short_code)

    def _short_code(self, sid: str, short_code: ShortCode | None) -> None:
        old = self._short_codes.get(self._short_code_of_sid.pop(sid, ""))
        if old is not None and old.sid == sid:
            del self._short_codes[old.short_code]
        if short_code is not None:
            self._short_code_of_sid[sid] = short_code.short_code
            self._short_codes[short_code.short_code] = short_code

    # Applications, services and their senders

    def _all_applications(self, records: Sequence[Application]) -> None:
        self._applications.clear()
        self._applications.update((application.sid, application) for application in records)

    def _application(self, sid: str, application: Application | None) -> None:
        if application is None:
            self._applications.pop(sid, None)
        else:
            self._applications[sid] = application

    def _all_services(self, records: Sequence[MessagingService]) -> None:
        self._services.clear()
        self._services.update((service.sid, service) for service in records)

    def _service(self, sid: str, service: MessagingService | None) -> None:
        if service is None:
            self._services.pop(sid, None)
        else:
            self._services[sid] = service

    def _all_senders(self, records: Sequence[ServiceSender]) -> None:
        self._sender.clear()
        self._service_of.clear()
        pools: dict[str, list[ServiceSender]] = {}
        for sender in records:
            self._sender[sender.sid] = sender
            pools.setdefault(sender.service_sid, []).append(sender)
            if sender.kind != "alpha":
                self._service_of[sender.account_sid, sender.address] = sender.service_sid
        self._pools.clear()
        self._pools.update((service, tuple(sorted(pool, key=_by_sid))) for service, pool in pools.items())

    def _service_sender(self, sid: str, sender: ServiceSender | None) -> None:
        old = self._sender.pop(sid, None)
        if old is not None:
            self._service_of.pop((old.account_sid, old.address), None)
            self._pools[old.service_sid] = tuple(one for one in self._pools[old.service_sid] if one.sid != sid)
        if sender is None:
            return
        self._sender[sid] = sender
        pool = (*self._pools.get(sender.service_sid, NO_SENDERS), sender)
        self._pools[sender.service_sid] = tuple(sorted(pool, key=_by_sid))
        if sender.kind != "alpha":
            self._service_of[sender.account_sid, sender.address] = sender.service_sid


def _by_sid(sender: ServiceSender) -> str:
    return sender.sid


# What the REST resources and the command line create


class SecretHasher(Protocol):
    """What `create_api_key` needs of `trunkline.storage.secrets.Secrets`."""

    def hash_secret(self, secret: str) -> str: ...


def new_token() -> str:
    """A fresh auth token or secret: 32 lower-case hex digits."""
    return secrets.token_hex(TOKEN_BYTES)


async def create_account(
    database: Database,
    clock: Clock,
    friendly_name: str,
    owner: Account | None = None,
    *,
    price_unit: str = "",
) -> Account:
    """Create a main account, or a subaccount of `owner`, with its tokens and test credentials."""
    now = clock.now_ms()
    sid = new_sid(sids.ACCOUNT, now)
    account = Account(
        sid=sid,
        account_sid=sid,
        friendly_name=friendly_name,
        type="Full" if owner is None else owner.type,
        owner_account_sid=sid if owner is None else owner.sid,
        auth_token=new_token(),
        test_account_sid=new_sid(sids.ACCOUNT, now),
        test_auth_token=new_token(),
        price_unit=price_unit or ("USD" if owner is None else owner.price_unit),
        created_ms=now,
        updated_ms=now,
    )
    await database.insert(account)
    return account


async def create_api_key(
    database: Database,
    clock: Clock,
    hasher: SecretHasher,
    account_sid: str,
    friendly_name: str = "",
    *,
    main: bool = False,
) -> tuple[ApiKey, str]:
    """Create an API key; the secret is returned this once and kept as a hash only."""
    now = clock.now_ms()
    secret = new_token()
    key = ApiKey(
        sid=new_sid(sids.API_KEY, now),
        account_sid=account_sid,
        friendly_name=friendly_name,
        secret_hash=hasher.hash_secret(secret),
        main=main,
        created_ms=now,
        updated_ms=now,
    )
    await database.insert(key)
    return key, secret
