"""`trunkline doctor` on calls: trunks and their gateways, ports, what the media process and `<Say>` need."""

import os
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from trunkline.cli.findings import Finding
from trunkline.media.native import libopus
from trunkline.media.native.build import BuildFailed, compiler
from trunkline.media.native.coding import NoCodec
from trunkline.model.sid import new_key
from trunkline.settings import Settings, SettingsError, Trunk
from trunkline.sip.errors import MalformedMessage
from trunkline.sip.message import Request
from trunkline.sip.uri import Uri
from trunkline.voice import number_risks

ANSWER_S = 2.0
"""How long a gateway may take to answer OPTIONS."""
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104
SIP_PORT = 5060
MAX_ANSWER_BYTES = 4096


def look_at_voice(settings: Settings) -> Iterator[Finding]:
    """Nothing where the server has no voice."""
    if not settings.sip.enabled:
        return
    yield from _listener(settings)
    yield from _media(settings)
    yield from _speech(settings)
    if not settings.trunks:
        yield Finding("warn", "trunks", "no [[trunks]]: no call comes in or goes out")
    for trunk in settings.trunks:
        yield from _trunk(trunk)
    yield _emergency(settings)
    yield from _risks(settings)


def _risks(settings: Settings) -> Iterator[Finding]:
    try:
        number_risks.load(settings.voice.high_risk_file)
    except SettingsError as error:
        yield Finding("bad", "high-risk numbers", str(error))


def _emergency(settings: Settings) -> Finding:
    name = settings.voice.emergency_trunk
    if name:
        return Finding("ok", "emergency calls", f"by trunk {name}; no test call was made: arrange one with the carrier")
    text = "refused: voice.emergency_trunk is not set; whoever has phones here needs another way to call for help"
    real = any(trunk.gateways and not trunk.simulated for trunk in settings.trunks)
    return Finding("warn" if real else "ok", "emergency calls", text)


def _listener(settings: Settings) -> Iterator[Finding]:
    sip = settings.sip
    if sip.host in EVERYWHERE and not sip.advertised:
        text = f"host is {sip.host} and advertised is empty: peers are told the local address towards them"
        yield Finding("warn", "sip", text + "; behind NAT set sip.advertised and media.advertised")
    else:
        yield Finding("ok", "sip", f"{sip.host} port {sip.port}, UDP and TCP")


def _media(settings: Settings) -> Iterator[Finding]:
    media = settings.media
    low, high = _ephemeral()
    if low and media.port_min <= high and media.port_max >= low:
        text = f"RTP ports {media.port_min} to {media.port_max} lie in the system's own range {low} to {high}"
        yield Finding("warn", "media", text + ": other programs may take them")
    else:
        yield Finding("ok", "media", f"RTP ports {media.port_min} to {media.port_max + 1}, {media.legs} legs")
    try:
        yield Finding("ok", "media helper", f"can be built with {Path(compiler()[0]).name}")
    except BuildFailed as error:
        yield Finding("warn", "media helper", f"{error}; without it a core carries far fewer calls")
    if "opus" in settings.voice.codecs or any("opus" in trunk.codecs for trunk in settings.trunks):
        try:
            libopus.library()
            yield Finding("ok", "opus", "libopus is there")
        except NoCodec as error:
            yield Finding("bad", "opus", f"{error}; until then take opus out of codecs")
    if media.priority and os.geteuid() and not resource.getrlimit(resource.RLIMIT_RTPRIO)[0]:
        text = "no real-time priority for the media process: raise LimitRTPRIO or `ulimit -r`, or set media.priority"
        yield Finding("warn", "media", text + " = false")


def _ephemeral() -> tuple[int, int]:
    """Ports that the system hands out by itself; zeros where that cannot be told."""
    try:
        low, high = EPHEMERAL.read_text("ascii").split()
        return int(low), int(high)
    except (OSError, ValueError):
        return 0, 0


def _speech(settings: Settings) -> Iterator[Finding]:
    engine = settings.speech.engine
    espeak = shutil.which("espeak-ng") or shutil.which("espeak") or find_spec("espeakng_loader")
    hibari = find_spec("hibari_tts") or find_spec("hibari")
    if engine in ("auto", "hibari"):
        found = "hibari speaks English" if hibari else "hibari-tts is not installed: espeak-ng speaks English too"
        yield Finding("ok" if hibari else "warn", "speech", found)
    if engine in ("auto", "espeak"):
        found = "espeak-ng speaks other languages" if espeak else "espeak-ng is not installed: English only"
        yield Finding("ok" if espeak else "warn", "speech", found)


def _trunk(trunk: Trunk) -> Iterator[Finding]:
    if trunk.simulated:
        yield Finding("ok", trunk.name, "simulated phones: no carrier, nobody is called")
        return
    if not trunk.addresses and not trunk.password and not trunk.tls_names:
        yield Finding("warn", trunk.name, "takes no calls: it has neither addresses nor a login")
    if not trunk.gateways:
        yield Finding("warn", trunk.name, "makes no calls: it has no gateways")
    for gateway in trunk.gateway_list:
        if gateway.uri.lower().startswith("sips:") or gateway.uri.lower().endswith("transport=tls"):
            yield Finding("ok", trunk.name, f"{gateway.uri}: `trunkline doctor sip {trunk.name}` asks it by TLS")
        else:
            yield _reach(trunk.name, gateway.uri)


def _reach(name: str, gateway: str) -> Finding:
    """Ask OPTIONS (RFC 3261 section 11). Silence is no proof: some carriers answer nobody but calls."""
    try:
        uri = Uri.parse(gateway)
        kind = socket.SOCK_STREAM if (uri.params.get("transport") or "").lower() == "tcp" else socket.SOCK_DGRAM
        family, kind, _, _, address = socket.getaddrinfo(uri.host.strip("[]"), uri.port or SIP_PORT, type=kind)[0]
        began = time.perf_counter()
        with socket.socket(family, kind) as channel:
            channel.settimeout(ANSWER_S)
            channel.connect(address)
            channel.send(_options(gateway, channel))
            answer = channel.recv(MAX_ANSWER_BYTES)
    except TimeoutError:
        return Finding("warn", name, f"{gateway} does not answer OPTIONS within {ANSWER_S:g} s")
    except socket.gaierror:
        text = f"{gateway} has no address; `trunkline doctor sip {name}` looks for SRV records too"
        return Finding("warn", name, text)
    except (OSError, MalformedMessage) as error:
        return Finding("bad", name, f"{gateway} cannot be reached: {getattr(error, 'strerror', None) or error}")
    took = (time.perf_counter() - began) * 1000
    return Finding("ok", name, f"{gateway} answers {answer[8:11].decode('ascii', 'replace')} in {took:.0f} ms")


def _options(gateway: str, channel: socket.socket) -> bytes:
    host, port = channel.getsockname()[:2]
    here = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    transport = "TCP" if channel.type == socket.SOCK_STREAM else "UDP"
    headers = [
        ("Via", f"SIP/2.0/{transport} {here};branch=z9hG4bK{new_key()};rport"),
        ("Max-Forwards", "70"),
        ("From", f"<sip:doctor@{here}>;tag={new_key()}"),
        ("To", f"<{gateway.partition(';')[0]}>"),
        ("Call-ID", new_key()),
        ("CSeq", "1 OPTIONS"),
        ("Contact", f"<sip:doctor@{here}>"),
    ]
    return Request.make("OPTIONS", gateway.partition(";")[0], headers=headers).encode()
