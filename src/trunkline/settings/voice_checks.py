"""What does not fit together in the sections about calls, one line each for the operator."""

import re
import typing
from collections.abc import Iterator

from trunkline.settings.trunk_checks import E164, is_address, is_host, strict_trunk_problems, trunk_problems

if typing.TYPE_CHECKING:
    from trunkline.settings.load import Settings

MAX_PORT = 65_535
_SERVER = re.compile(r"(?:[0-9.]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?|[0-9A-Fa-f:.]+")
"""A name server."""
_UNQUOTED = re.compile(r'["\\\x00-\x1f\x7f]')


def voice_problems(settings: "Settings") -> Iterator[str]:
    """Everything that calls would stumble over; of the listener and its ports only where `sip.enabled`."""
    names = [trunk.name for trunk in settings.trunks]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"trunks: two are named {name}; names must differ"
    for trunk in settings.trunks:
        for problem in trunk_problems(trunk):
            yield f"trunks ({trunk.name}).{problem}"
        if settings.rules.strict:
            yield from strict_trunk_problems(settings, trunk)
    for number in settings.voice.caller_ids:
        if E164.fullmatch(number) is None:
            yield f"voice.caller_ids: {number!r} is no E.164 number, like +15551234567"
    yield from _emergency_problems(settings)
    if not settings.voice.codecs:
        yield "voice.codecs: a call needs one; leave it out for PCMU and PCMA"
    media = settings.media
    if not 6000 <= media.opus_bitrate <= 64_000 or media.opus_complexity > 10:
        yield "media.opus_bitrate, opus_complexity: Opus takes 6000 to 64000 bits a second, and 0 to 10"
    if settings.media.jitter_min_ms > settings.media.jitter_max_ms:
        yield "media.jitter_max_ms: less than jitter_min_ms; raise it"
    if settings.sip.register_min_s > settings.sip.register_max_s:
        yield "sip.register_max_s: less than register_min_s; raise it"
    if not settings.sip.digest_algorithms:
        yield "sip.digest_algorithms: phones must be asked for one; leave it out for MD5"
    yield from _name_problems(settings)
    if settings.media.advertised and not is_address(settings.media.advertised):
        yield f"media.advertised: {settings.media.advertised!r} is no address, which SDP needs; give our public one"
    if settings.sip.enabled:
        yield from _port_problems(settings)


def _emergency_problems(settings: "Settings") -> Iterator[str]:
    """Who relies on a trunk for emergencies must have one."""
    name = settings.voice.emergency_trunk
    trunk = next((one for one in settings.trunks if one.name == name), None)
    if not name:
        return
    if trunk is None:
        known = ", ".join(one.name for one in settings.trunks) or "none"
        yield f"voice.emergency_trunk: {name!r} is no trunk ({known}); give the name of one"
    elif not trunk.gateways:
        yield f"voice.emergency_trunk: {name} has no gateways, so no call goes out there; give them, or another trunk"
    elif trunk.simulated and settings.rules.strict:
        yield f"voice.emergency_trunk: {name} has simulated phones, which help nobody; give a carrier's"


def _name_problems(settings: "Settings") -> Iterator[str]:
    """Hosts, and what stands in SIP headers."""
    sip = settings.sip
    hosts = {"sip.host": sip.host, "sip.advertised": sip.advertised, "media.host": settings.media.host}
    for name, host in hosts.items():
        if host and not is_host(host):
            yield f"{name}: {host!r} is no host name or address; ports have settings of their own"
    for name in ("domain_suffix", "trunk_domain_suffix"):
        suffix = getattr(sip, name)
        if not is_host(suffix) or is_address(suffix):
            yield f"sip.{name}: {suffix!r} is no domain name, like sip.example.com"
    for edge in sip.edges:
        if not is_address(edge):
            yield f"sip.edges: {edge!r} is no address; give those that the edge's requests come from"
    for name in ("realm", "domain", "user_agent"):
        if _UNQUOTED.search(getattr(sip, name)):
            yield f"sip.{name}: quotes, backslashes and control characters cannot stand in a header; leave them out"
    if not sip.realm:
        yield "sip.realm: phones are asked for a password of it; leave it out for trunkline"
    if not all(one.strip() for one in sip.scanner_agents):
        yield "sip.scanner_agents: an empty one would be found in every User-Agent; remove it"
    if 0 < sip.session_expires_s < sip.min_se_s:
        yield "sip.session_expires_s: less than min_se_s; raise it, or give 0 to ask for none"


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
    for own in ("port", "tls_port"):
        port = getattr(sip, own)
        if port and media.port_min <= port <= media.port_max + 1:
            yield f"sip.{own}: {port} lies among the RTP ports; move it or media.port_min and port_max"
        for name in ("server", "smpp_server"):
            section = getattr(settings, name)
            if port and section.port == port and (name == "server" or settings.smpp_server.enabled):
                yield f"sip.{own}: {port} is {name}.port too; give them different ports"
    yield from _tls_problems(settings)


def _tls_problems(settings: "Settings") -> Iterator[str]:
    sip = settings.sip
    if sip.tls_port and sip.tls_port == sip.port:
        yield f"sip.tls_port: {sip.tls_port} is sip.port too; TLS needs its own, 5061 by custom"
    if sip.tls_port and not sip.tls_certificate:
        yield "sip.tls_certificate: tls_port needs one, and its tls_key"
    if sip.tls_key and not sip.tls_certificate:
        yield "sip.tls_certificate: tls_key is the key of one; set both"
    if settings.rules.strict and not sip.tls_verify:
        yield f"sip.tls_verify: {settings.profile} refuses peers that do not prove who they are; set tls_ca instead"
    for server in sip.dns_servers:
        if _SERVER.fullmatch(server) is None or not _is_address(server):
            yield f"sip.dns_servers: {server!r} is not like 192.0.2.53 or [2001:db8::53]:5353"


def _is_address(server: str) -> bool:
    """Whether it is one, with or without a port."""
    host = server[1:].partition("]")[0] if server.startswith("[") else server
    if host.count(":") == 1:
        host = host.partition(":")[0]
    return is_address(host)
