"""What does not fit together in `[[trunks]]`, one line each for the operator."""

import re
import typing
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from trunkline.settings.trunk import Trunk

if typing.TYPE_CHECKING:
    from trunkline.settings.load import Settings

MAX_PORT = 65_535
MIN_SESSION_S = 90
"""Least Session-Expires (RFC 4028 section 4)."""
NEVER_AGAIN = frozenset({"486", "487"})
"""Answers of a person, after which nobody else is called."""
E164 = re.compile(r"\+[1-9][0-9]{5,14}")
_GATEWAY = re.compile(
    r"sips?:(?:[^\s@;?:]{1,128}@)?(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?"
    r"(?:;transport=(?:udp|tcp|tls))?",
    re.IGNORECASE,
)
"""What may be sent to: user, host and port, transport (RFC 3261 section 19.1.1, without headers and passwords)."""
_NAME = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,251})?(?:[A-Za-z][A-Za-z0-9-]{0,62}|[0-9][0-9-]*[A-Za-z-][A-Za-z0-9-]*)"
)
"""A host name; its last label is no number (those of addresses are)."""
_TLS_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,252})|sips?:[^\s]{1,250}")


def trunk_problems(trunk: Trunk) -> Iterator[str]:
    """What calls over this trunk would stumble over."""
    uris = [("gateways", one.uri) for one in trunk.gateway_list] + [("registrars", uri) for uri in trunk.registrars]
    for name, uri in uris:
        found = _GATEWAY.fullmatch(uri)
        if found is None or int(found[1] or 1) not in range(1, MAX_PORT + 1):
            yield f"{name}: {uri!r} is not like sip:carrier.example.com or sip:10.0.0.5:5070;transport=tcp"
    for text in trunk.addresses:
        if not _is_network(text):
            yield f"addresses: {text!r} is no address or network, like 192.0.2.7 or 192.0.2.0/24"
    for text in trunk.tls_names:
        if _TLS_NAME.fullmatch(text) is None:
            yield f"tls_names: {text!r} is no name of a certificate, like sip.carrier.example.com"
    for name in ("domain", "advertised"):
        text = getattr(trunk, name)
        if text and not is_host(text):
            yield f"{name}: {text!r} is no host name or address"
    if bool(trunk.username) != bool(trunk.password):
        yield "password: username and password go together; set both or neither"
    if not trunk.codecs:
        yield "codecs: a call needs one; leave it out for PCMU and PCMA"
    for name in ("price", "inbound_price", "cost"):
        amount = getattr(trunk, name)
        if not amount.is_finite() or amount < 0:
            yield f"{name}: {amount} is no amount; give zero or more"
    yield from _registration_problems(trunk)
    yield from _policy_problems(trunk)


def _registration_problems(trunk: Trunk) -> Iterator[str]:
    if not trunk.register:
        if trunk.registrars:
            yield "registrars: they are used with register = true only; set it, or remove them"
        return
    if not trunk.username:
        yield "username: register = true needs username and password"
    if not trunk.registrars and not trunk.gateways:
        yield "registrars: register = true needs one, or a gateway"


def _policy_problems(trunk: Trunk) -> Iterator[str]:
    for status in trunk.failover:
        if status in NEVER_AGAIN:
            yield f"failover: {status} is a person's answer; nobody else may be called after it, remove it"
    if trunk.asserted_number and E164.fullmatch(trunk.asserted_number) is None:
        yield f"asserted_number: {trunk.asserted_number!r} is no E.164 number, like +15551234567"
    if trunk.called_format == "national" and not trunk.country_code:
        yield "country_code: called_format national needs to know whose; give a calling code, like 49"
    if trunk.caller_format == "national" and not trunk.country_code:
        yield "country_code: caller_format national needs to know whose; give a calling code, like 49"
    if 0 < trunk.session_timer_s < MIN_SESSION_S:
        yield f"session_timer_s: less than {MIN_SESSION_S} (RFC 4028); raise it, or give 0 for none"
    if trunk.from_user == "username" and not trunk.username:
        yield "from_user: username needs one; set username and password"


def strict_trunk_problems(settings: "Settings", trunk: Trunk) -> Iterator[str]:
    """What production and staging refuse."""
    if not trunk.addresses and not trunk.password and not trunk.tls_names:
        yield f"trunks ({trunk.name}).addresses: {settings.profile} needs them, or username and password"
    if any(ip_network(text, strict=False).prefixlen == 0 for text in trunk.addresses if _is_network(text)):
        yield f"trunks ({trunk.name}).addresses: {settings.profile} refuses the whole internet; name the carrier's own"
    if trunk.simulated and not settings.rules.loopback:
        yield f"trunks ({trunk.name}).simulated: {settings.profile} has no simulated phones; remove it"


def is_host(text: str) -> bool:
    """Whether it is a host name or an address, without a port."""
    return _NAME.fullmatch(text) is not None or is_address(text.removeprefix("[").removesuffix("]"))


def is_address(text: str) -> bool:
    """Whether it is an IP address and nothing else."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
