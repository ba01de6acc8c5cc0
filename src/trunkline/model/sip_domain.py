"""SIP domains, and who may use them: credential lists, IP access control lists and their mappings.

A domain (or a customer's trunk) is the *owner* of mappings; each mapping lets one list in for one *purpose*. Passwords
are never kept: a credential holds the two digests of RFC 7616 section 3.4.2 that verify them, for one realm.
"""

from ipaddress import IPv4Network, IPv6Network
from typing import ClassVar, Literal, TypeAlias

import msgspec

from trunkline.model.record import Record

Purpose: TypeAlias = Literal["calls", "registrations"]
"""What a list lets its users do: send INVITEs to a domain (or a trunk), or register phones with it."""
Network: TypeAlias = IPv4Network | IPv6Network

TWILIO_SUFFIX = "sip.twilio.com"
"""What SIP domains end with at Twilio; always taken, so that programs need no change."""
_TWILIO_EDGES = ".twilio.com"


class Ha1(msgspec.Struct, frozen=True):
    """One password as digest authentication needs it: hex of H(username:realm:password)."""

    md5: str
    sha256: str
    realm: str

    @property
    def by_algorithm(self) -> dict[str, str]:
        """By the names of the IANA registry."""
        return {"MD5": self.md5, "SHA-256": self.sha256}


class SipDomain(Record, kw_only=True):
    """A SIP domain (spec `api.v2010.account.sip.sip_domain`)."""

    TABLE: ClassVar[str] = "sip_domains"

    domain_name: str
    """The full host as the account asked for it, lower case."""
    name: str
    """`domain_name` without its suffix, unique: `acme` and `acme` below another suffix are the same domain."""
    friendly_name: str = ""
    voice_url: str = ""
    voice_method: str = "POST"
    voice_fallback_url: str = ""
    voice_fallback_method: str = "POST"
    voice_status_callback_url: str = ""
    voice_status_callback_method: str = "POST"
    sip_registration: bool = False
    """Whether phones may register."""
    secure: bool = False
    """Whether only TLS with SRTP is taken."""
    emergency_calling_enabled: bool = False
    emergency_caller_sid: str = ""
    byoc_trunk_sid: str = ""


class SipCredentialList(Record, kw_only=True):
    """Users with passwords (spec `api.v2010.account.sip.sip_credential_list`)."""

    TABLE: ClassVar[str] = "sip_credential_lists"

    friendly_name: str = ""


class SipCredential(Record, kw_only=True):
    """One user of a credential list; the user name is unique in it."""

    TABLE: ClassVar[str] = "sip_credentials"

    credential_list_sid: str
    username: str
    """As digest authentication sends it; case matters."""
    realm: str
    """The realm that the digests are for."""
    ha1_md5: str
    """Hex; encrypted at rest: it is as good as the password within its realm."""
    ha1_sha256: str


class SipIpAccessControlList(Record, kw_only=True):
    """Addresses that are let in (spec `api.v2010.account.sip.sip_ip_access_control_list`)."""

    TABLE: ClassVar[str] = "sip_ip_access_control_lists"

    friendly_name: str = ""


class SipIpAddress(Record, kw_only=True):
    """One address, or the network around it, of an access control list."""

    TABLE: ClassVar[str] = "sip_ip_addresses"

    ip_access_control_list_sid: str
    ip_address: str
    """As the account wrote it; IPv4 at Twilio, IPv6 here too."""
    cidr_prefix_length: int = 32
    friendly_name: str = ""


class SipMapping(Record, kw_only=True):
    """A list that lets its users into a domain or a trunk; `sid` is `mapping_sid(...)`."""

    TABLE: ClassVar[str] = "sip_mappings"

    owner_sid: str
    """The domain's (SD) or the trunk's (TK)."""
    list_sid: str
    """The credential list's (CL) or the access control list's (AL)."""
    purpose: str = "calls"
    """See `Purpose`."""


def mapping_sid(owner_sid: str, purpose: Purpose, list_sid: str) -> str:
    """The primary key of a mapping: the same list is mapped once for each purpose."""
    return f"{owner_sid}:{purpose}:{list_sid}"


def name_below(host: str, suffix: str) -> str | None:
    """What stands in front of `.suffix` in a host (lower case both), or None."""
    ending = "." + suffix
    return host[: -len(ending)] if len(host) > len(ending) and host.endswith(ending) else None


def domain_name_of(host: str, suffix: str, twilio: str = TWILIO_SUFFIX) -> str | None:
    """The `name` of the SIP domain (or trunk) that a host (lower case) means, or None when it can be none of ours.

    Taken are `name.<suffix>`, Twilio's `name.sip.twilio.com`, and the latter with a region or edge
    (`name.sip.us1.twilio.com`, `name.sip.dublin.us1.twilio.com`).
    """
    name = name_below(host, suffix) or name_below(host, twilio)
    if name is None and host.endswith(_TWILIO_EDGES):
        name, found, _ = host.partition(f".{twilio.partition('.')[0]}.")
        return name if found and name else None
    return name
