"""`trunkline doctor`: what each kind of data survives here, and what is wrong with this machine or its settings."""

import ctypes
import os
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import apsw
import typer

from trunkline.cli.common import settings_of, show_table
from trunkline.cli.doctor_cluster import look_at_cluster
from trunkline.cli.doctor_durability import COLUMNS, durability, kept, look_at_memory, look_at_objects, look_at_postgres
from trunkline.cli.doctor_region import look_at_regions
from trunkline.cli.doctor_sip import sip
from trunkline.cli.doctor_voice import look_at_voice
from trunkline.cli.findings import Finding
from trunkline.media.ports import SLOTS_PER_LEG
from trunkline.settings import Http, Settings, Smpp, Twilio
from trunkline.storage.secrets import KEY_FILE, BadMasterKey, parse_keys

SYNCS = 50
"""Writes whose sync to disk is timed."""
SLOW_SYNC_MS = 20.0
"""A median above this makes accepting slow (group commit shares it, latency stays)."""
CONNECT_TIMEOUT_S = 3.0
SPARE_FILES = 256
"""Descriptors for databases, logs and segments beside the connections."""
BUSY_MS = 5000
"""How long a database's lock is waited for."""
CERTIFICATE_DAYS = 14
"""Certificates that end sooner are reported."""
CLOCK_UNSYNCHRONISED = 5
"""adjtimex(2): TIME_ERROR."""
TIMEX_BYTES = 256
"""Room for struct timex (208 bytes on 64-bit Linux); with modes 0 the call only reads."""


app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.command()(sip)
app.command()(durability)


@app.callback()
def doctor(context: typer.Context) -> None:
    """Say what each kind of data survives, and check settings, disk, clock, limits and carriers.

    Example: trunkline --config trunkline.toml doctor
    """
    if context.invoked_subcommand is not None:
        return
    settings = settings_of(context)
    show_table(COLUMNS, kept(settings))
    typer.echo("")
    findings = [finding for look in LOOKS for finding in look(settings)]
    show_table(("", "check", "finding"), findings)
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)


def look_at_settings(settings: Settings) -> Iterator[Finding]:
    """Where they came from, and what is not wise though allowed."""
    yield Finding("ok", "settings", f"{settings.source or 'defaults, no file'}, profile {settings.profile}")
    if settings.server.host not in ("127.0.0.1", "::1", "localhost") and not settings.server.tls_cert:
        yield Finding("warn", "server", f"plain HTTP on {settings.server.host}: put TLS or a proxy before it")
    if not settings.server.public_url and settings.rules.strict:
        yield Finding("warn", "server", "public_url is not set: links and signatures will name host and port")
    if not settings.rates:
        yield Finding("warn", "rates", "no [[rates]]: messages have no price")
    routed = {route.connector for route in settings.routes}
    for one in settings.connectors:
        if one.name not in routed:
            yield Finding("warn", "routes", f"no route leads to the connector {one.name}")
    for name, section in (("server", settings.server), ("smpp_server", settings.smpp_server)):
        if section.tls_cert:
            yield _certificate(name, Path(section.tls_cert))


def _certificate(name: str, file: Path) -> Finding:
    from cryptography import x509

    try:
        ends = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
    except ValueError as error:
        return Finding("bad", name, f"{file} is no certificate in PEM: {error}")
    days = (ends - datetime.now(UTC)).days
    verdict = "bad" if days < 0 else "warn" if days < CERTIFICATE_DAYS else "ok"
    return Finding(verdict, name, f"the certificate ends on {ends:%Y-%m-%d}")


def look_at_data(settings: Settings) -> Iterator[Finding]:
    """The data folder: its mode, its space, how long a sync takes, and whether the stores open."""
    folder = settings.data_path
    if not folder.is_dir():
        yield Finding("warn", "data", f"{folder} is not there yet; the first start makes it")
        return
    if folder.stat().st_mode & 0o077:
        yield Finding("warn", "data", f"{folder} may be read by others: chmod 700 it")
    yield _master_key(settings, folder)
    free = shutil.disk_usage(folder).free
    verdict = "bad" if free < settings.data.min_free_bytes else "ok"
    yield Finding(verdict, "disk", f"{free / 1e9:.1f} GB free, {settings.data.min_free_bytes / 1e9:.1f} GB needed")
    try:
        middle, worst = sync_ms(folder)
    except OSError as error:
        yield Finding("bad", "data", f"{folder} cannot be written: {error.strerror}; run this as the server's user")
        return
    verdict = "warn" if middle > SLOW_SYNC_MS else "ok"
    yield Finding(verdict, "sync", f"a write reaches the disk in {middle:.2f} ms (median), {worst:.2f} ms (worst)")


def _master_key(settings: Settings, folder: Path) -> Finding:
    file = folder / KEY_FILE
    try:
        text = settings.security.master_key or (file.read_text() if file.exists() else "")
        if not text:
            return Finding("warn", "master key", "none yet; the first start makes it")
        parse_keys(text)
    except (BadMasterKey, OSError) as error:
        return Finding("bad", "master key", str(error))
    return Finding("ok", "master key", "readable; keep a copy of it apart from the backups")


def sync_ms(folder: Path) -> tuple[float, float]:
    """(median, worst) of SYNCS appends of 4 KiB with fdatasync, in milliseconds."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor.") as file:
        for _ in range(SYNCS):
            os.write(file.fileno(), b"\0" * 4096)
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - begin) * 1000)
    times.sort()
    return times[SYNCS // 2], times[-1]


def look_at_stores(settings: Settings) -> Iterator[Finding]:
    """Whether the databases are readable and in the mode that keeps what was acknowledged."""
    for file in sorted(settings.data_path.glob("*.db")):
        try:
            connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
            try:
                connection.set_busy_timeout(BUSY_MS)
                mode = str(connection.execute("pragma journal_mode").get)
                free = int(connection.execute("pragma freelist_count").get)
                pages = int(connection.execute("pragma page_count").get)
            finally:
                connection.close()
        except apsw.Error as error:
            yield Finding("bad", file.name, f"cannot be read: {error}")
            continue
        text = f"{file.stat().st_size / 1e6:.1f} MB, {100 * free // max(pages, 1)} % of it free"
        if mode != "wal":
            yield Finding(
                "bad", file.name, f"journal_mode is {mode}, not wal: is {settings.data_path} a network share?"
            )
        else:
            yield Finding("ok", file.name, text)


def look_at_limits(settings: Settings) -> Iterator[Finding]:
    """Open files that the process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.server.max_connections + settings.webhooks.in_flight + SPARE_FILES
    if settings.smpp_server.enabled:
        wanted += settings.smpp_server.max_connections
    if settings.sip.enabled:  # RTP sockets are in processes of their own, which have the same limit
        wanted = max(wanted + settings.sip.max_connections, rtp_sockets(settings) + SPARE_FILES)
    text = f"{soft} open files (at most {hard}), {wanted} needed at full load"
    if hard != resource.RLIM_INFINITY and hard < wanted:
        text += ": raise LimitNOFILE or `ulimit -n`, or lower server.max_connections"
        yield Finding("warn", "limits", text)
    else:
        yield Finding("ok", "limits", text)


def rtp_sockets(settings: Settings) -> int:
    """Sockets of the supervisor and of the media process, each: RTP and RTCP of every port there may be."""
    media, per_leg = settings.media, SLOTS_PER_LEG
    return 2 * min(media.legs * per_leg, (media.port_max - media.port_min) // 2 + 1)


def look_at_clock(settings: Settings) -> Iterator[Finding]:
    """Whether the clock is kept by NTP: validity periods, signatures and SIDs rest on it."""
    state = _adjtimex()
    if state is None:
        yield Finding("warn", "clock", "cannot tell whether it is synchronised")
    elif state == CLOCK_UNSYNCHRONISED:
        yield Finding("warn", "clock", "not synchronised: run chrony or systemd-timesyncd")
    else:
        yield Finding("ok", "clock", "synchronised")


def _adjtimex() -> int | None:
    try:
        call = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    state = int(call(ctypes.create_string_buffer(TIMEX_BYTES)))
    return state if state >= 0 else None


def look_at_carriers(settings: Settings) -> Iterator[Finding]:
    """Whether each connector's host takes a TCP connection."""
    for one in settings.connectors:
        if isinstance(one, Smpp):
            yield _reach(one.name, one.host, one.port)
        elif isinstance(one, Http | Twilio):
            url = urlsplit(one.url if isinstance(one, Http) else one.base_url)
            port = url.port or (443 if url.scheme == "https" else 80)
            yield _reach(one.name, url.hostname or "", port)
        else:
            yield Finding("ok", one.name, "loopback: no carrier, nothing is sent")


def _reach(name: str, host: str, port: int) -> Finding:
    begin = time.perf_counter()
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return Finding("bad", name, f"{host}:{port} cannot be reached: {error.strerror or error}")
    return Finding("ok", name, f"{host}:{port} answers in {(time.perf_counter() - begin) * 1000:.0f} ms")


LOOKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    look_at_settings,
    look_at_data,
    look_at_stores,
    look_at_postgres,
    look_at_memory,
    look_at_objects,
    look_at_cluster,
    look_at_regions,
    look_at_limits,
    look_at_clock,
    look_at_carriers,
    look_at_voice,
)
"""Every check, in the order in which it is printed."""
