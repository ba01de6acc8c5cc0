"""What does not fit together in the sections about calls, one line each for the operator."""

import re
import typing
from collections.abc import Iterator
from ipaddress import ip_network

from trunkline.settings.voice import Trunk

if typing.TYPE_CHECKING:
    from trunkline.settings.load import Settings

_GATEWAY = re.compile(
    r"sip:(?:[^\s@;?:]{1,128}@)?(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?"
    r"(?:;transport=(?:udp|tcp))?",
    re.IGNORECASE,
)
"""What may be sent to: user, host and port, UDP or TCP (RFC 3261 section 19.1.1, without headers and passwords)."""
_E164 = re.compile(r"\+[1-9][0-9]{5,14}")
MAX_PORT = 65_535


def voice_problems(settings: "Settings") -> Iterator[str]:
    """Everything that calls would stumble over; of the listener and its ports only where `sip.enabled`."""
    names = [trunk.name for trunk in settings.trunks]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"trunks: two are named {name}; names must differ"
    for trunk in settings.trunks:
        for problem in _trunk_problems(trunk):
            yield f"trunks ({trunk.name}).{problem}"
        if settings.rules.strict:
            yield from _strict_problems(settings, trunk)
    for number in settings.voice.caller_ids:
        if _E164.fullmatch(number) is None:
            yield f"voice.caller_ids: {number!r} is no E.164 number, like +15551234567"
    if settings.media.jitter_min_ms > settings.media.jitter_max_ms:
        yield "media.jitter_max_ms: less than jitter_min_ms; raise it"
    if settings.sip.enabled:
        yield from _port_problems(settings)


def _trunk_problems(trunk: Trunk) -> Iterator[str]:
    for uri in trunk.gateways:
        found = _GATEWAY.fullmatch(uri)
        if found is None or int(found[1] or 1) not in range(1, MAX_PORT + 1):
            yield f"gateways: {uri!r} is not like sip:carrier.example.com or sip:10.0.0.5:5070;transport=tcp"
    for text in trunk.addresses:
        try:
            ip_network(text, strict=False)
        except ValueError:
            yield f"addresses: {text!r} is no address or network, like 192.0.2.7 or 192.0.2.0/24"
    if bool(trunk.username) != bool(trunk.password):
        yield "password: username and password go together; set both or neither"
    if not trunk.codecs:
        yield "codecs: a call needs one; leave it out for both"
    for name in ("price", "inbound_price", "cost"):
        amount = getattr(trunk, name)
        if not amount.is_finite() or amount < 0:
            yield f"{name}: {amount} is no amount; give zero or more"


def _strict_problems(settings: "Settings", trunk: Trunk) -> Iterator[str]:
    """What production and staging refuse."""
    if not trunk.addresses and not trunk.password:
        yield f"trunks ({trunk.name}).addresses: {settings.profile} needs them, or username and password"
    if any(ip_network(text, strict=False).prefixlen == 0 for text in trunk.addresses if _is_network(text)):
        yield f"trunks ({trunk.name}).addresses: {settings.profile} refuses the whole internet; name the carrier's own"
    if trunk.simulated and not settings.rules.loopback:
        yield f"trunks ({trunk.name}).simulated: {settings.profile} has no simulated phones; remove it"


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _port_problems(settings: "Settings") -> Iterator[str]:
    """RTP takes even ports with RTCP on the odd one above (RFC 3550 section 11)."""
    media, sip = settings.media, settings.sip
    for name in ("port_min", "port_max"):
        port = getattr(media, name)
        if port % 2 or not 1024 <= port < MAX_PORT:
            yield f"media.{name}: {port} is no even port from 1024 on; RTP takes even ones, RTCP the next"
    pairs = (media.port_max - media.port_min) // 2 + 1
    if pairs < media.legs:
        yield (
            f"media.port_max: {media.port_min} to {media.port_max} has {max(pairs, 0)} pairs of ports for "
            f"{media.legs} legs; widen the range or lower media.legs"
        )
    if sip.port and media.port_min <= sip.port <= media.port_max + 1:
        yield f"sip.port: {sip.port} lies among the RTP ports; move it or media.port_min and port_max"
    for name in ("server", "smpp_server"):
        section = getattr(settings, name)
        if sip.port and section.port == sip.port and (name == "server" or settings.smpp_server.enabled):
            yield f"sip.port: {sip.port} is {name}.port too; give them different ports"
