"""SIP domains on this node: who may call and register where, copied from the `Database` like the rest of the directory.

Answers are dictionary look-ups. Networks are put together at their first use and kept until a mapping or an address
changes.
"""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any, Final

from trunkline.accounts.snapshot import Snapshot
from trunkline.model.sip_domain import (
    Ha1,
    Network,
    Purpose,
    SipCredential,
    SipDomain,
    SipIpAddress,
    SipMapping,
    domain_name_of,
)
from trunkline.model.sip_trunk import TRUNK_TWILIO_SUFFIX, OriginationUrl, SipTrunk
from trunkline.storage.database import Database

CREDENTIAL_LIST: Final = "CREDENTIAL_LIST"
IP_ACL: Final = "IP_ACL"
DEFAULT_SUFFIX: Final = "sip.localhost"
DEFAULT_TRUNK_SUFFIX: Final = "pstn.localhost"

NOBODY: Final[tuple[Ha1, ...]] = ()
NOWHERE: Final[tuple[Network, ...]] = ()
NO_LISTS: Final[tuple[str, ...]] = ()


class SipDirectory:
    """See the module. Records it returns are shared: read them, never change them."""

    def __init__(
        self, database: Database, suffix: str = DEFAULT_SUFFIX, trunk_suffix: str = DEFAULT_TRUNK_SUFFIX
    ) -> None:
        self._database = database
        self.suffix = suffix.lower()
        self.trunk_suffix = trunk_suffix.lower()
        self._domains: dict[str, SipDomain] = {}
        self._domain_of_sid: dict[str, SipDomain] = {}
        self._credentials: dict[str, SipCredential] = {}
        self._logins: dict[tuple[str, str], SipCredential] = {}
        self._addresses: dict[str, SipIpAddress] = {}
        self._networks: dict[str, dict[str, Network]] = {}
        self._mappings: dict[str, SipMapping] = {}
        self._lists: dict[tuple[str, str], tuple[str, ...]] = {}
        self._allowed: dict[tuple[str, str], tuple[Network, ...]] = {}
        self._trunks: dict[str, SipTrunk] = {}
        self._trunk_of_sid: dict[str, SipTrunk] = {}
        self._origination: dict[str, dict[str, OriginationUrl]] = {}
        self._trunk_of_url: dict[str, str] = {}

    def copies(self) -> list[Snapshot[Any]]:
        """What loads everything and follows its changes, once it is started."""
        database = self._database
        return [
            Snapshot(database, SipDomain, self._all_domains, self._domain),
            Snapshot(database, SipCredential, self._all_credentials, self._credential),
            Snapshot(database, SipIpAddress, self._all_addresses, self._address),
            Snapshot(database, SipMapping, self._all_mappings, self._mapping),
            Snapshot(database, SipTrunk, self._all_trunks, self._trunk),
            Snapshot(database, OriginationUrl, self._all_urls, self._url),
        ]

    async def start(self) -> None:
        """Load everything and follow its changes."""
        await asyncio.gather(*(copy.start() for copy in self.copies()))

    # Look-ups

    def domain(self, host: str) -> SipDomain | None:
        """The domain that a SIP URI's host means, in any case and below either suffix."""
        if not self._domains:
            return None
        name = domain_name_of(host.lower(), self.suffix)
        return None if name is None else self._domains.get(name)

    def is_name(self, host: str) -> bool:
        """Whether a host could be a domain's or a customer's trunk's, whether or not there is one of that name."""
        if not self._domains and not self._trunks:
            return False
        host = host.lower()
        return (
            domain_name_of(host, self.suffix) is not None
            or domain_name_of(host, self.trunk_suffix, TRUNK_TWILIO_SUFFIX) is not None
        )

    def domain_of_sid(self, sid: str) -> SipDomain | None:
        """The domain with this SID."""
        return self._domain_of_sid.get(sid)

    def trunk(self, host: str) -> SipTrunk | None:
        """The customer's trunk whose termination URI has this host, in any case and below either suffix."""
        if not self._trunks:
            return None
        name = domain_name_of(host.lower(), self.trunk_suffix, TRUNK_TWILIO_SUFFIX)
        return None if name is None else self._trunks.get(name)

    def trunk_of_sid(self, sid: str) -> SipTrunk | None:
        """The customer's trunk with this SID."""
        return self._trunk_of_sid.get(sid)

    def origination_urls(self, trunk_sid: str) -> tuple[OriginationUrl, ...]:
        """Where calls to the trunk's numbers go: those that are enabled, the lowest priority first."""
        enabled = [url for url in self._origination.get(trunk_sid, {}).values() if url.enabled]
        return tuple(sorted(enabled, key=lambda url: (url.priority, url.sid)))

    def lists(self, owner_sid: str, purpose: Purpose) -> tuple[str, ...]:
        """SIDs of the lists mapped to a domain or a trunk, in the order of the SIDs."""
        return self._lists.get((owner_sid, purpose), NO_LISTS)

    def auth_types(self, owner_sid: str, purpose: Purpose) -> tuple[str, ...]:
        """Which of `IP_ACL` and `CREDENTIAL_LIST` are mapped, in this order; nobody is let in where neither is."""
        kinds = {sid[:2] for sid in self.lists(owner_sid, purpose)}
        return tuple(auth for prefix, auth in (("AL", IP_ACL), ("CL", CREDENTIAL_LIST)) if prefix in kinds)

    def login(self, owner_sid: str, username: str, purpose: Purpose) -> tuple[Ha1, ...]:
        """The passwords that let this user in: one for each mapped list that has the user."""
        found = [self._logins.get((sid, username)) for sid in self.lists(owner_sid, purpose)]
        return tuple(Ha1(one.ha1_md5, one.ha1_sha256, one.realm) for one in found if one is not None) or NOBODY

    def addresses(self, owner_sid: str, purpose: Purpose) -> tuple[Network, ...]:
        """The networks that the mapped access control lists let in."""
        key = owner_sid, purpose
        allowed = self._allowed.get(key)
        if allowed is None:
            lists = self._lists.get(key)
            if lists is None:
                return NOWHERE
            allowed = tuple(network for sid in lists for network in self._networks.get(sid, {}).values())
            self._allowed[key] = allowed
        return allowed

    # Domains

    def _all_domains(self, records: Sequence[SipDomain]) -> None:
        self._domains.clear()
        self._domain_of_sid.clear()
        for domain in records:
            self._domain(domain.sid, domain)

    def _domain(self, sid: str, domain: SipDomain | None) -> None:
        old = self._domain_of_sid.pop(sid, None)
        if old is not None and self._domains.get(old.name) is old:  # the name may be another record's by now
            del self._domains[old.name]
        if domain is not None:
            self._domain_of_sid[sid] = domain
            self._domains[domain.name] = domain

    # Credentials

    def _all_credentials(self, records: Sequence[SipCredential]) -> None:
        self._credentials.clear()
        self._logins.clear()
        for credential in records:
            self._credential(credential.sid, credential)

    def _credential(self, sid: str, credential: SipCredential | None) -> None:
        old = self._credentials.pop(sid, None)
        if old is not None and self._logins.get((old.credential_list_sid, old.username)) is old:
            del self._logins[old.credential_list_sid, old.username]
        if credential is not None:
            self._credentials[sid] = credential
            self._logins[credential.credential_list_sid, credential.username] = credential

    # Addresses

    def _all_addresses(self, records: Sequence[SipIpAddress]) -> None:
        self._addresses.clear()
        self._networks.clear()
        for address in records:
            self._address(address.sid, address)
        self._allowed.clear()

    def _address(self, sid: str, address: SipIpAddress | None) -> None:
        self._allowed.clear()
        old = self._addresses.pop(sid, None)
        if old is not None:
            networks = self._networks[old.ip_access_control_list_sid]
            del networks[sid]
            if not networks:
                del self._networks[old.ip_access_control_list_sid]
        if address is not None:
            self._addresses[sid] = address
            network = ip_network(f"{address.ip_address}/{address.cidr_prefix_length}", strict=False)
            self._networks.setdefault(address.ip_access_control_list_sid, {})[sid] = network

    # Mappings

    def _all_mappings(self, records: Sequence[SipMapping]) -> None:
        self._mappings.clear()
        self._lists.clear()
        self._allowed.clear()
        for mapping in records:
            self._mapping(mapping.sid, mapping)

    def _mapping(self, sid: str, mapping: SipMapping | None) -> None:
        self._allowed.clear()
        old = self._mappings.pop(sid, None)
        if old is not None:
            key = old.owner_sid, old.purpose
            left = tuple(one for one in self._lists[key] if one != old.list_sid)
            if left:
                self._lists[key] = left
            else:
                del self._lists[key]
        if mapping is not None:
            self._mappings[sid] = mapping
            key = mapping.owner_sid, mapping.purpose
            self._lists[key] = tuple(sorted((*self._lists.get(key, NO_LISTS), mapping.list_sid)))

    # Customers' trunks

    def _all_trunks(self, records: Sequence[SipTrunk]) -> None:
        self._trunks.clear()
        self._trunk_of_sid.clear()
        for trunk in records:
            self._trunk(trunk.sid, trunk)

    def _trunk(self, sid: str, trunk: SipTrunk | None) -> None:
        old = self._trunk_of_sid.pop(sid, None)
        if old is not None and old.name is not None and self._trunks.get(old.name) is old:
            del self._trunks[old.name]
        if trunk is not None:
            self._trunk_of_sid[sid] = trunk
            if trunk.name is not None:
                self._trunks[trunk.name] = trunk

    def _all_urls(self, records: Sequence[OriginationUrl]) -> None:
        self._origination.clear()
        self._trunk_of_url.clear()
        for url in records:
            self._url(url.sid, url)

    def _url(self, sid: str, url: OriginationUrl | None) -> None:
        trunk_sid = self._trunk_of_url.pop(sid, None)
        if trunk_sid is not None:
            urls = self._origination[trunk_sid]
            del urls[sid]
            if not urls:
                del self._origination[trunk_sid]
        if url is not None:
            self._trunk_of_url[sid] = url.trunk_sid
            self._origination.setdefault(url.trunk_sid, {})[sid] = url
