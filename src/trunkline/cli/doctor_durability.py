"""`trunkline doctor durability`: every kind of data, where it is kept, what it outlives, and what is lost otherwise;
providers that are not ours included. Then whether the stores keep their promise, by their own word.
"""

from collections.abc import Iterator
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

import orjson
import typer

from trunkline.cli.common import bootstrap, settings_of, show_table
from trunkline.cli.doctor_region import look_at_regions
from trunkline.cli.findings import Finding
from trunkline.settings import Http, Loopback, Settings, Smpp, Twilio
from trunkline.storage.secrets import KEY_FILE
from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import StoreUnavailable


class Kept(NamedTuple):
    """One kind of data and what it outlives."""

    data: str
    primitive: str
    engine: str
    survives: str
    otherwise: str


COLUMNS = ("data", "primitive", "engine", "survives", "lost otherwise")
DISK = "process, power"
SURVIVED = {
    "process": "process",
    "power": DISK,
    "host": f"{DISK}, host",
    "zone": f"{DISK}, host, zone",
    "region": f"{DISK}, host, zone, region",
}
IN_MEMORY = {
    "process": "process",
    "power": DISK,
    "host": "process, host",
    "zone": "process, host, zone",
    "region": "process, host, zone, region",
}
"""Replicas hold it in memory: a power loss of all of them takes it."""
ONE_MACHINE = "what came after the last backup, if this machine's disk is lost"


def _loss(survives: str) -> str:
    """What the loss of more than that costs."""
    if survives in ("process", "power"):
        return "what came after the last backup, if the servers' disks are lost"
    return f"what came after the last backup, if more than one {survives} is lost at once"


def _elsewhere(settings: Settings) -> str:
    """What a standby region adds: all but what was not yet over there (`look_at_regions` says how much that is)."""
    return ", region but for the lag" if settings.regions and settings.storage.survives != "region" else ""


def kept(settings: Settings) -> list[Kept]:
    """The table of data, as these settings keep it."""
    own = settings.storage
    synced = DISK if settings.data.survives == "power" else "process"
    sqlite = "SQLite (WAL, synchronous=FULL)"
    if own.engine == "postgres":
        store, outlives, lost = "PostgreSQL", SURVIVED[own.survives] + _elsewhere(settings), _loss(own.survives)
    else:
        store, outlives, lost = sqlite, synced, ONE_MACHINE
    retention = settings.archive.retention_days
    aged = f"; deleted after {retention} days" if retention else ""
    key = "the operator's own" if settings.security.master_key else KEY_FILE
    return [
        Kept("accounts, keys, numbers, services", "Database", store, outlives, lost),
        Kept("scheduled messages, opt-outs", "Database", store, outlives, lost),
        Kept("accepted messages, callbacks owed", "Queue", store, outlives, lost),
        Kept("idempotency keys and responses", "Queue", store, outlives, "a repeated request is taken as new"),
        Kept("parts of long inbound messages", "Queue", store, outlives, "the carrier sends unconfirmed ones again"),
        *_kept_files(settings, store if settings.objects.url else sqlite, outlives, synced, aged),
        *(_kept_of_calls(settings, store, outlives, lost) if settings.sip.enabled else ()),
        Kept("master key", "secret", key, DISK, "tokens and keys at rest can never be read again"),
        Kept("rate limits, login failures", "memory", "in process", "nothing", "budgets begin anew at a start"),
        *_providers(settings),
    ]


def _kept_files(settings: Settings, store: str, outlives: str, synced: str, aged: str) -> tuple[Kept, ...]:
    """The archive, media and recordings."""
    own = settings.objects
    if not own.url:
        return (
            Kept("landed messages and calls, recent", "archive", store, synced, ONE_MACHINE + aged),
            Kept("landed messages and calls, older", "archive", "Parquet segments", synced, ONE_MACHINE + aged),
            Kept("media, recordings", "archive", "files", synced, ONE_MACHINE),
        )
    where, there = f"object store ({own.url.partition(':')[0]})", f"{SURVIVED[own.survives]} (its operator's word)"
    lost = f"what the store loses with more than one {own.survives}: there is no other copy"
    return (
        Kept("landed messages and calls, recent", "archive", store, outlives, _loss(settings.storage.survives) + aged),
        Kept("landed messages and calls, older", "archive", f"Parquet segments, {where}", there, lost + aged),
        Kept("media, recordings", "archive", where, there, lost),
    )


def _kept_of_calls(settings: Settings, store: str, outlives: str, lost: str) -> tuple[Kept, ...]:
    own = settings.memory
    if own.engine == "valkey":
        memory, survives = "Valkey, behind Sentinel" if own.sentinels else "Valkey", IN_MEMORY[own.survives]
        again = "; while its node lives, it writes it again"
    else:
        memory, survives, again = "journal, unsynced", "process", ""
    leases = Kept("leases, who owns what", "MemoryStore", memory, survives, "no takeover until it is back")
    return (
        Kept("calls under way: record, callbacks", "Queue", store, outlives, lost),
        Kept("calls under way: dialog, position", "MemoryStore", memory, survives, "the call ends" + again),
        Kept("registered phones", "MemoryStore", memory, survives, "they register again" + again),
        Kept("banned addresses", "MemoryStore", memory, survives, "they have to earn it again" + again),
        Kept("what accounts spend on calls", "MemoryStore", memory, survives, "limits count anew" + again),
        *((leases,) if own.engine == "valkey" else ()),
        Kept("calls under way: audio", "media process", "shared memory", "process", "the call ends"),
        _recordings_under_way(settings),
        Kept("prompts", "cache", "files, unsynced", "process", "they are spoken or fetched again"),
    )


def _recordings_under_way(settings: Settings) -> Kept:
    own = settings.objects
    if not own.url:
        return Kept("recordings under way", "recorder", "spool, unsynced", "process", "their last seconds")
    there = f"{SURVIVED[own.survives]}, but for 5 s"
    return Kept("recordings under way", "recorder", "spool; pieces to the object store", there, "their last 5 s")


def _providers(settings: Settings) -> Iterator[Kept]:
    """What others run for us: which one, whether we outlive its loss, and what it costs."""
    carriers = [one for one in settings.connectors if not isinstance(one, Loopback)]
    yields = "messages go by another route" if len(carriers) > 1 else "messages wait, and fail at their validity's end"
    for one in carriers:
        at = f"SMPP {one.host}:{one.port}" if isinstance(one, Smpp) else _web(one)
        doubt = "sent again, marked" if settings.messaging.in_doubt == "prefer-duplicate" else "not sent again, marked"
        yield Kept(f"carrier {one.name}", "provider", at, "its outage", f"{yields}; those in doubt are {doubt}")
    if settings.sip.enabled:
        several = "calls go by the next gateway or trunk" if len(settings.trunks) > 1 else "calls out fail"
        for trunk in settings.trunks:
            kind = "simulated" if trunk.simulated else "SIP"
            yield Kept(f"trunk {trunk.name}", "provider", kind, "its outage, calls excepted", several)
        speech = {"auto": "hibari, espeak-ng"}.get(settings.speech.engine, settings.speech.engine)
        yield Kept("speech", "provider", f"{speech}, a process here", "its crash", "a new text is left out of its call")
    if settings.objects.url:
        yield Kept("object store", "provider", settings.objects.url, "its outage", "old documents and files wait")
    yield Kept("DNS", "provider", "the system's resolver", "its outage", "new names fail: callbacks are tried again")
    yield Kept("customers' web servers", "provider", "HTTP", "their outage", _webhooks(settings))


def _web(one: object) -> str:
    """The host alone: a URL may hold a password."""
    url = one.url if isinstance(one, Http) else one.base_url if isinstance(one, Twilio) else ""
    return f"HTTP {urlsplit(url).hostname or ''}"


def _webhooks(settings: Settings) -> str:
    own = settings.webhooks
    return f"callbacks are given up after {own.status_tries} tries or {own.give_up_s / 3600:g} h, with an alert"


def look_at_postgres(settings: Settings) -> Iterator[Finding]:
    """Whether its servers keep what the settings ask of them."""
    if settings.storage.engine != "postgres":
        return
    try:
        for verdict, line in bootstrap().check_storage(settings):
            yield Finding(verdict, "storage", line)
    except (CannotSurvive, StoreUnavailable) as error:
        yield Finding("bad", "storage", str(error))


def look_at_memory(settings: Settings) -> Iterator[Finding]:
    """Whether Valkey keeps what the settings ask of it."""
    if settings.memory.engine != "valkey":
        return
    try:
        yield Finding("ok", "memory", bootstrap().check_memory(settings))
    except (CannotSurvive, StoreUnavailable) as error:
        yield Finding("bad", "memory", str(error))


def look_at_objects(settings: Settings) -> Iterator[Finding]:
    """Whether the object store takes, gives back and protects what is written."""
    if not settings.objects.url:
        return
    try:
        yield Finding("ok", "objects", bootstrap().check_objects(settings))
    except StoreUnavailable as error:
        yield Finding("bad", "objects", str(error))


def durability(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="The table as a list, for programs.")] = False,
) -> None:
    """Say of each kind of data where it is kept, what it outlives and what is lost otherwise. Exit code 1 if a store
    does not keep its promise.

    Example: trunkline doctor durability --json
    """
    settings = settings_of(context)
    findings = [*look_at_postgres(settings), *look_at_memory(settings), *look_at_objects(settings)]
    findings += look_at_regions(settings)
    if as_json:
        table = [row._asdict() for row in kept(settings)]
        found = [{"verdict": one.verdict, "check": one.what, "finding": one.text} for one in findings]
        typer.echo(orjson.dumps({"data": table, "findings": found}, option=orjson.OPT_INDENT_2).decode())
    else:
        show_table(COLUMNS, kept(settings))
        if findings:
            typer.echo("")
            show_table(("", "check", "finding"), findings)
    if any(one.verdict == "bad" for one in findings):
        raise typer.Exit(1)
