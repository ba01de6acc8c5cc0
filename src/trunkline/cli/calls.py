"""`trunkline calls` and `trunkline call CA...`: which calls there were, and what happened to one of them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer

from trunkline.api.call_timeline import entries, recordings_of
from trunkline.cli.common import (
    CommandError,
    account_of,
    bootstrap,
    database_of,
    run,
    settings_of,
    show_fields,
    show_table,
)
from trunkline.model import phone
from trunkline.model.account import Account
from trunkline.model.call import MediaQuality, TimelineEntry
from trunkline.model.recording import Recording
from trunkline.model.sid import CALL, is_sid
from trunkline.postflight.worker_client import WorkerFailed
from trunkline.settings import Settings
from trunkline.voice.reader import CallReader, StoredCall

MAX_ACCOUNTS = 200
"""Accounts whose calls are listed together; beyond it one must be named."""
MAX_LISTED = 1000
COLUMNS = ("started", "sid", "direction", "from", "to", "status", "seconds", "trunk", "sip", "mos")


class _Stores:
    """What is read: the node's own stores, beside it or without it."""

    def __init__(self, queue: Any, archive: Any) -> None:
        self.queue = queue
        self.archive = archive
        self.reader = CallReader(queue, archive)


@asynccontextmanager
async def _stores(settings: Settings) -> AsyncIterator[_Stores]:
    """Raises CommandError."""
    wiring = bootstrap()
    queue, archive = wiring.open_queue(settings), wiring.open_archive(settings)
    try:
        yield _Stores(queue, archive)
    except WorkerFailed as error:
        raise CommandError(str(error)) from None
    finally:
        await archive.close()
        await queue.close()


def calls(
    context: typer.Context,
    account: Annotated[str, typer.Option(help="Only this account's.")] = "",
    to: Annotated[str, typer.Option(help="Only to this number or address.")] = "",
    from_: Annotated[str, typer.Option("--from", help="Only from this number or address.")] = "",
    status: Annotated[str, typer.Option(help="Only in this status, like in-progress or failed.")] = "",
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=MAX_LISTED)] = 20,
) -> None:
    """List the newest calls, under way and ended.

    Example: trunkline calls --status in-progress --limit 50
    """
    settings = settings_of(context)
    wanted = {"to": phone.to_e164(to) or to, "from": phone.to_e164(from_) or from_, "status": status}
    filters = {name: value for name, value in wanted.items() if value}

    async def work() -> list[StoredCall]:
        async with database_of(settings) as database:
            if account:
                owners = [(await account_of(database, account)).sid]
            else:
                owners = [one.sid for one in await database.find(Account, limit=MAX_ACCOUNTS + 1)]
        if len(owners) > MAX_ACCOUNTS:
            raise CommandError(f"there are more than {MAX_ACCOUNTS} accounts: name one with --account")
        found: list[StoredCall] = []
        async with _stores(settings) as stores:
            for owner in owners:
                found += await stores.reader.page(owner, older_than="", newer_than="", limit=limit, filters=filters)
        return sorted(found, key=lambda one: one.sid[2:], reverse=True)[:limit]

    show_table(COLUMNS, [_row(one) for one in run(work())])


def _row(one: StoredCall) -> tuple[object, ...]:
    return (
        _time(one.started_ms or one.created_ms), one.sid, one.direction, one.from_, one.to, one.shown_status,
        one.duration_s, one.trunk, one.sip_response_code or "", _mos(one.quality),
    )  # fmt: skip


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _mos(quality: MediaQuality | None) -> str:
    return f"{quality.mos:.1f}" if quality is not None and quality.mos else ""


def call(
    context: typer.Context,
    sid: Annotated[str, typer.Argument(metavar="CA...")],
    details: Annotated[bool, typer.Option("--details", help="Everything that each entry says.")] = False,
) -> None:
    """Print the timeline of a call: SIP, TwiML, webhooks, keys, recordings, and how it sounded.

    Example: trunkline call CAxxx --details
    """
    settings = settings_of(context)
    if not is_sid(sid, CALL):
        raise CommandError(f"{sid} is no SID of a call: CA and 32 hex digits")

    async def work() -> tuple[StoredCall, list[dict[str, Any]], list[Recording]]:
        async with database_of(settings) as database, _stores(settings) as stores:
            owners = [one.sid for one in await database.find(Account, limit=settings.limits.accounts)]
            owner = await _owner(stores, owners, sid)
            found = await stores.reader.get(owner, sid) if owner else None
            if found is None:
                raise CommandError(f"there is no call {sid}: see `trunkline calls`")
            rows = await recordings_of(database, owner, sid)
            return found, await stores.reader.webhooks(owner, sid), rows

    found, hooks, recordings = run(work())
    show_fields(_facts(found))
    typer.echo("")
    happened = entries(found, hooks, recordings)
    began = happened[0].at_ms if happened else 0
    columns = ("seconds", "kind", "what", *(("details",) if details else ()))
    show_table(columns, [_line(entry, began, details) for entry in happened])


async def _owner(stores: _Stores, accounts: Sequence[str], sid: str) -> str:
    """Whose call it is; empty: nobody's."""
    for account in accounts:
        if await stores.queue.get(account, sid) is not None:
            return account
    _, rows = await stores.archive.query(f"select account_sid from documents where sid = '{sid}'")  # noqa: S608 (a SID)
    return str(rows[0][0]) if rows else ""


def _facts(one: StoredCall) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("call", one.sid),
        ("account", one.account_sid),
        ("direction", one.direction),
        ("from", one.from_),
        ("to", one.to),
        ("status", one.shown_status),
        ("started", _time(one.started_ms) + " UTC" if one.started_ms else "-"),
        ("seconds", one.duration_s),
    ]
    optional = {
        "parent": one.parent_sid, "trunk": one.trunk, "sip_call_id": one.sip_call_id,
        "sip_response": one.sip_response_code, "ended_by": one.hangup_cause, "recordings": " ".join(one.recordings),
        "error": f"{one.error_code} {one.error_message}" if one.error_code else "", "media": _quality(one.quality),
    }  # fmt: skip
    return facts + [(name, value) for name, value in optional.items() if value]


def _quality(quality: MediaQuality | None) -> str:
    """One line about the audio."""
    if quality is None:
        return ""
    heard = quality.packets_received + quality.lost
    parts = [
        quality.codec,
        f"{quality.packets_received} packets in, {quality.packets_sent} out",
        f"{quality.lost} lost ({100 * quality.lost / heard:.1f} %)" if heard else "nothing heard",
        f"jitter {quality.jitter_ms:.0f} ms (at most {quality.max_jitter_ms:.0f})",
    ]
    if quality.round_trip_ms:
        parts.append(f"round trip {quality.round_trip_ms:.0f} ms")
    if quality.mos:
        parts.append(f"MOS {quality.mos:.1f}")
    return ", ".join(part for part in parts if part)


def _line(entry: TimelineEntry, began_ms: int, details: bool) -> tuple[object, ...]:
    line = (f"{(entry.at_ms - began_ms) / 1000:+.3f}", entry.kind, entry.what)
    return (*line, orjson.dumps(entry.details).decode() if entry.details else "") if details else line
