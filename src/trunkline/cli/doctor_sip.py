"""`trunkline doctor sip [TRUNK]`: whether calls can go out to a trunk and come in from it, asked of its servers."""

import asyncio
import errno
import random
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import orjson
import typer

from trunkline.cli.common import CommandError, run, settings_of, show_table
from trunkline.cli.findings import Finding
from trunkline.settings import Settings, Trunk
from trunkline.voice import trunk_status
from trunkline.voice.takeover_ways import takeover_of, takeover_of_phones
from trunkline.voice.trunk_status import REFRESH_S

if TYPE_CHECKING:
    from trunkline.cli.sip_probe import Probe

SAMPLE: Final = 20
"""Pairs of RTP ports that are tried, beside the lowest and the highest."""
FRESH_MS: Final = int(2 * REFRESH_S * 1000)
"""How old the server's own word may be."""
EVERYWHERE: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound


def sip(
    context: typer.Context,
    trunk: Annotated[str, typer.Argument(metavar="[TRUNK]", help="Only this one, by its name.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="A list of findings, for programs.")] = False,
) -> None:
    """Test trunks: names, connections, OPTIONS, login, codecs, our public address; and the RTP ports. Exit code 1 if
    anything keeps calls away.

    Example: trunkline doctor sip carrier-one
    """
    settings = settings_of(context)
    chosen = [one for one in settings.trunks if trunk in ("", one.name)]
    if trunk and not chosen:
        names = ", ".join(one.name for one in settings.trunks) or "none"
        raise CommandError(f"there is no trunk {trunk} in the settings; there are: {names}")
    if not settings.sip.enabled and not chosen and _is_running(settings):
        text = "`trunkline dev` runs, with simulated phones in place of trunks; [sip] and [[trunks]] are for real ones"
        findings = [Finding("ok", "sip", text)]
    else:
        findings = [*_look_at_ports(settings), *run(_probe(settings, chosen)), *_takeovers(settings, chosen)]
    if as_json:
        rows = [{"verdict": one.verdict, "check": one.what, "finding": one.text} for one in findings]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
    else:
        show_table(("", "check", "finding"), findings)
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)


def _takeovers(settings: Settings, trunks: list[Trunk]) -> Iterator[Finding]:
    """Of one of several nodes: which calls another can take over."""
    if not settings.cluster.enabled or not settings.sip.enabled:
        return
    for trunk in trunks:
        yield Finding("ok", f"{trunk.name}: its calls when their node is lost", takeover_of(trunk, settings.sip))
    yield Finding("ok", "phones: their calls when their node is lost", takeover_of_phones(settings.sip))


def _look_at_ports(settings: Settings) -> Iterator[Finding]:
    if not settings.sip.enabled:
        yield Finding("bad", "sip", "sip.enabled is false: no call comes in or goes out; set it to true")
    running = _is_running(settings)
    yield _sip_port(settings, running)
    yield _rtp_ports(settings, running)
    if settings.sip.tls_port:
        yield _tls_port(settings, running)


def _is_running(settings: Settings) -> bool:
    snapshot = trunk_status.read(settings.data_path)
    if snapshot is None:
        return False
    from trunkline.model.clock import SystemClock

    return SystemClock().now_ms() - snapshot.at_ms < FRESH_MS


def _sip_port(settings: Settings, running: bool) -> Finding:
    sip = settings.sip
    taken = _refused(sip.host, sip.port, socket.SOCK_DGRAM) or _refused(sip.host, sip.port, socket.SOCK_STREAM)
    if running:
        return Finding("ok", "sip", f"the server runs, on {sip.host} port {sip.port}")
    if taken:
        return Finding(
            "bad", "sip", f"{sip.host} port {sip.port} cannot be listened on: {taken}; free it or move sip.port"
        )
    return Finding("ok", "sip", f"{sip.host} port {sip.port} is free; the server does not run")


def _tls_port(settings: Settings, running: bool) -> Finding:
    sip = settings.sip
    taken = "" if running else _refused(sip.host, sip.tls_port, socket.SOCK_STREAM)
    if taken:
        text = f"{sip.host} port {sip.tls_port} cannot be listened on: {taken}; free it or move sip.tls_port"
        return Finding("bad", "tls", text)
    return Finding("ok", "tls", f"port {sip.tls_port} is " + ("the running server's" if running else "free"))


def _rtp_ports(settings: Settings, running: bool) -> Finding:
    """Whether RTP and RTCP ports can be had, by a sample of the range."""
    media = settings.media
    host = media.host or settings.sip.host
    low, high = media.port_min, media.port_max
    every = range(low, high + 1, 2)
    pairs = sorted({low, high, *random.Random().sample(every, min(SAMPLE, len(every)))})
    refused = {port: why for port in pairs if (why := _refused(host, port) or _refused(host, port + 1))}
    text = f"RTP ports {low} to {high + 1} on {host or 'every address'}"
    if not refused:
        return Finding("ok", "media", f"{text} can be had; open them for UDP in the firewall")
    if running and all(why == _IN_USE for why in refused.values()):
        return Finding("ok", "media", f"{text} are the running server's; open them for UDP in the firewall")
    port, why = next(iter(refused.items()))
    if why != _IN_USE:
        return Finding("bad", "media", f"{text} cannot be had: {why}; give media.host or sip.host an address of ours")
    return Finding(
        "bad" if len(refused) == len(pairs) else "warn", "media",
        f"{text}: {len(refused)} of {len(pairs)} tried cannot be had ({port}: {why}); move media.port_min and port_max",
    )  # fmt: skip


_IN_USE: Final = "another program has it"


def _refused(host: str, port: int, kind: socket.SocketKind = socket.SOCK_DGRAM) -> str:
    """Why a port cannot be bound; empty: it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return _IN_USE if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return ""


async def _probe(settings: Settings, trunks: list[Trunk]) -> list[Finding]:
    from trunkline.cli.sip_probe import NoCalls, Probe
    from trunkline.sip.core import StackConfig
    from trunkline.sip.tls import TlsConfig, TlsContexts, TlsError
    from trunkline.sip.transport import SipTransport

    if not trunks:
        return [Finding("bad", "trunks", "no [[trunks]]: no call comes in or goes out; see docs/howto/trunk.md")]
    own = settings.sip
    tls = TlsConfig(own.tls_certificate, own.tls_key, own.tls_client_ca, own.tls_ca, own.tls_verify)
    try:
        TlsContexts(tls).load()
    except TlsError as error:
        return [Finding("bad", "tls", str(error))]
    transport = SipTransport(StackConfig(user_agent=own.user_agent), NoCalls(), tls=tls, dns_servers=own.dns_servers)
    try:
        await transport.start(own.host, 0)
    except OSError as error:
        text = f"sip.host {own.host} cannot be used: {error.strerror or error}; give an address of this machine"
        return [Finding("bad", "sip", text)]
    try:
        probes = [Probe(settings, trunk, transport) for trunk in trunks]
        found = await asyncio.gather(*(_collect(probe) for probe in probes))
    finally:
        await transport.close()
    return [finding for several in found for finding in several]


async def _collect(probe: "Probe") -> list[Finding]:
    return [finding async for finding in probe.look()]
