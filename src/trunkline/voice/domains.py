"""Calls from and to the phones of SIP domains.

A call to a host that is a SIP domain of an active account is taken when its sender passes what the domain asks for: an
address of its access control lists, a login of its credential lists, or both where both are mapped; nobody, where
neither is. It then runs the domain's VoiceUrl, whoever was dialled: nothing is forwarded.

A call of ours to `sip:user@domain` goes to all phones that are registered as that user, if the domain is the account's
own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from trunkline.model.call import Call, Direction, StatusTarget
from trunkline.model.sid import CALL, new_sid
from trunkline.sip import number as numbers
from trunkline.sip.errors import MalformedMessage
from trunkline.sip.uri import SIP_SCHEMES, Uri
from trunkline.voice.edges import DIRECT, Edges
from trunkline.voice.logins import Login, Logins, Refused, WrongLogin
from trunkline.voice.params import SIP_DOMAIN
from trunkline.voice.registrations import ACTIVE, NOT_SECURE, Registrations

if TYPE_CHECKING:
    from trunkline.accounts.directory import Directory
    from trunkline.model.account import Account
    from trunkline.model.sip_domain import SipDomain
    from trunkline.model.sip_trunk import SipTrunk
    from trunkline.sip.flow import Flow
    from trunkline.sip.message import Request
    from trunkline.sip.registrar import Binding
    from trunkline.sip.server_invite import ServerInvite

CALLS: Final = "calls"
IP_ACL, CREDENTIAL_LIST = "IP_ACL", "CREDENTIAL_LIST"
NO_URL: Final = 11100
NOT_FOUND: Final = 32002
NOT_REGISTERED: Final = 32009
WRONG_ADDRESS: Final = 32201
WRONG_LOGIN: Final = 32202
NO_SRTP: Final = 32208
NO_USER: Final = 32223
MAX_URI: Final = 255
"""Characters of the caller's and the called address."""


log = logging.getLogger(__name__)


class Phones(NamedTuple):
    """Where a call to a user of a domain goes: all of `groups` at once, the flows of each one after the other. Without
    any it fails with `status`, and `code` is raised."""

    to: str
    """The address-of-record."""
    groups: tuple[tuple[Binding, ...], ...]
    status: int = 0
    code: int = 0
    why: str = ""
    secure: bool = False
    """Whether they take SRTP only."""

    def in_secret(self) -> Phones:
        """The same for a caller who wants TLS and SRTP only (`;secure=true`)."""
        if self.code or self.secure:
            return self
        why = f"no phone of {self.to} is registered by TLS"
        return self.encrypted() or self._replace(groups=(), status=480, code=NOT_SECURE, why=why)

    def encrypted(self) -> Phones | None:
        """Those that TLS leads to, to be offered SRTP after plain audio was refused; None: there are none, or they have
        been offered it. Through a proxy (Path) it is not known who reads the keys."""
        if self.secure:
            return None
        over_tls = (
            tuple(one for one in flows if one.flow.transport == "TLS" and not one.path) for flows in self.groups
        )
        groups = tuple(flows for flows in over_tls if flows)
        return self._replace(groups=groups, secure=True) if groups else None


class Domains:
    """See the module. `warn` raises an alert of a domain's account, but not all the time."""

    def __init__(
        self, directory: Directory, logins: Logins, registrations: Registrations, edges: Edges = DIRECT
    ) -> None:
        self._directory = directory
        self._edges = edges
        self._logins = logins
        self.registrations = registrations
        self.warn: Callable[[SipDomain | SipTrunk, int, str], None] = registrations.warn

    def host(self, invite: ServerInvite) -> str:
        """Where a call comes from, through an edge or not."""
        return self._edges.source(invite.request, invite.flow)

    # -- calls from phones -----------------------------------------------------------------------------------

    def of(self, request: Request) -> SipDomain | None:
        """The domain that a request is for."""
        host = request.request_uri.host
        return self._directory.sip_domain(host) if host else None

    def of_phone(self, request: Request, flow: Flow) -> SipDomain | None:
        """The domain of a phone that asks for a Contact of ours: the one in its From, else where it is registered from
        the address that the request comes from. It still has to prove itself."""
        try:
            domain = self._directory.sip_domain(request.from_.uri.host)
        except MalformedMessage:
            return None
        if domain is not None:
            return domain
        return self._directory.sip.domain_of_sid(self.registrations.domain_at(flow.remote))

    def is_name(self, request: Request) -> bool:
        """Whether a request is for what could be a domain or a customer's trunk."""
        return self._directory.is_sip_name(request.request_uri.host)

    def admit(self, invite: ServerInvite, domain: SipDomain) -> tuple[Account, str]:
        """The domain's account, and the user who calls (empty: known by the address only).

        Raises Asked, Refused.
        """
        account, username = self.let_in(invite, domain)
        if domain.secure and invite.flow.transport != "TLS":
            self.warn(domain, NOT_SECURE, f"a call from {self.host(invite)} by {invite.flow.transport}")
            raise Refused(403, f"{domain.domain_name} wants TLS")
        if not domain.voice_url:
            self.warn(domain, NO_URL, "was called, but has no voice URL")
            raise Refused(404, f"{domain.domain_name} has no voice URL")
        return account, username

    def let_in(self, invite: ServerInvite, domain: SipDomain | SipTrunk) -> tuple[Account, str]:
        """Whether the lists of a domain, or of a customer's trunk, let a caller in: the account, and the user.

        Raises Asked, Refused.
        """
        host = self.host(invite)
        account = self._directory.account(domain.account_sid)
        wanted = self._directory.sip_auth_types(domain.sid, CALLS)
        if account is None or not wanted:
            log.info("%s lets nobody in: it has no account, or no credential list and no address list", domain.sid)
            self.turn_away(invite)
            raise Refused(403, f"{domain.domain_name} lets nobody in")
        if IP_ACL in wanted and not self._lets_in(domain, host):
            self.warn(domain, WRONG_ADDRESS, f"a call from {host}")
            self.turn_away(invite)
            raise Refused(403, f"{host} is on no list of {domain.domain_name}")
        login = self._login(invite, domain) if CREDENTIAL_LIST in wanted else None
        if account.status != ACTIVE:
            raise Refused(403, f"account {account.sid} is {account.status}")
        return account, login.username if login is not None else ""

    def turn_away(self, invite: ServerInvite) -> None:
        """Strangers do not learn which domains and trunks there are, nor from where they let callers in: whoever calls
        what lets him in nowhere is asked for a login, and refused. Raises Asked, Refused."""
        self._logins.turn_away(invite.request, self.host(invite), _header(invite.request))

    def _lets_in(self, domain: SipDomain | SipTrunk, host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._directory.sip_addresses(domain.sid, CALLS))

    def _login(self, invite: ServerInvite, domain: SipDomain | SipTrunk) -> Login:
        host, request = self.host(invite), invite.request
        try:
            login = self._logins.check(
                request, host, lambda name: self._directory.sip_login(domain.sid, name, CALLS), _header(request)
            )
        except WrongLogin as wrong:
            self.warn(domain, WRONG_LOGIN, f"a call from {host}: {wrong}")
            raise Refused(403, str(wrong)) from None
        self._logins.use(login, host)
        return login

    # -- calls to phones -------------------------------------------------------------------------------------

    def phones(self, to: str, account_sid: str) -> Phones | None:
        """Where a call of an account's to a `sip:` URI goes; None: it is for no domain of ours."""
        uri = Uri.parse(to)
        domain = self._directory.sip_domain(uri.host)
        if domain is None:
            return None
        if domain.account_sid != account_sid:
            return Phones(to, (), 404, NOT_FOUND, f"{uri.host} is no SIP domain of the account")
        if not uri.user:
            return Phones(to, (), 404, NO_USER, f"{to} names no user")
        bindings = self.registrations.contacts(domain, uri.user)
        if not bindings:
            return Phones(to, (), 480, NOT_REGISTERED, f"{uri.user} is not registered with {domain.domain_name}")
        devices: dict[str, list[Binding]] = {}
        for binding in bindings:
            # One device may have several flows (RFC 5626 section 6): it is called over one at a time.
            name = binding.instance if binding.reg_id else f"{len(devices)} {binding.uri}"
            devices.setdefault(name, []).append(binding)
        groups = tuple(tuple(flows) for flows in devices.values())
        return Phones(f"<{address(uri, uri.host)}>", groups, secure=domain.secure)


def _header(request: Request) -> str:
    return "Proxy-Authorization" if "Proxy-Authorization" in request.headers else "Authorization"


def record(invite: ServerInvite, domain: SipDomain, username: str, now_ms: int, host: str) -> Call:
    """A call that came by a domain, from `host` and `username` (empty: known by the address only)."""
    request, caller = invite.request, invite.request.from_.uri
    came = {"SipDomain": domain.domain_name, "SipDomainSid": domain.sid, "SipSourceIp": host}
    call = Call(
        sid=new_sid(CALL, now_ms),
        account_sid=domain.account_sid,
        direction=Direction.INBOUND,
        from_=address(caller),
        to=address(request.request_uri, domain.domain_name),
        forwarded_from=numbers.forwarded_from(request),
        created_ms=now_ms,
        started_ms=now_ms,
        url=domain.voice_url,
        method=domain.voice_method,
        fallback_url=domain.voice_fallback_url,
        fallback_method=domain.voice_fallback_method,
        sip_headers=numbers.custom_headers(request),
    )
    call.extra[SIP_DOMAIN] = {**came, "SipUsername": username} if username else came
    if domain.voice_status_callback_url:
        call.status_callbacks = [StatusTarget(domain.voice_status_callback_url, domain.voice_status_callback_method)]
    return call


def address(uri: Uri, host: str = "") -> str:
    """`sip:user@host`, with the port unless the host is given."""
    found = Uri(user=uri.user, host=host) if host else Uri(uri.scheme, uri.user, None, uri.host, uri.port)
    return str(found)[:MAX_URI]


def is_sip(to: str) -> bool:
    """Whether an address is a `sip:` URI."""
    return to.partition(":")[0].lower() in SIP_SCHEMES


def user_of(text: str) -> str:
    """The user of a `sip:` URI; another text as it is."""
    return Uri.parse(text).user if is_sip(text) else text
