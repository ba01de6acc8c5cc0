"""`trunkline registrations`: which phones are registered with SIP domains, and how they are reached."""

from typing import Annotated, Any

import typer

from trunkline.cli.common import bootstrap, database_of, run, settings_of, show_table
from trunkline.model.clock import SystemClock
from trunkline.model.sip_domain import SipDomain
from trunkline.sip.flow import bracketed
from trunkline.sip.registrar import Binding
from trunkline.voice.registrations import PREFIX, read

COLUMNS = ("user", "contact", "transport", "from", "expires_s", "phone")
MAX_DOMAINS = 10_000
PAGE = 1000
"""Domains read at once."""


def registrations(
    context: typer.Context,
    domain: Annotated[str, typer.Option(help="Only with this SIP domain.")] = "",
    user: Annotated[str, typer.Option(help="Only this user.")] = "",
) -> None:
    """List the phones that are registered with SIP domains.

    Example: trunkline registrations
    """
    settings = settings_of(context)
    now = SystemClock().now_ms()

    async def work() -> dict[str, str]:
        async with database_of(settings) as database:
            names: dict[str, str] = {}
            after = ""
            while len(names) < MAX_DOMAINS and (page := await database.find(SipDomain, after=after, limit=PAGE)):
                names |= {one.sid: one.domain_name for one in page}
                after = page[-1].sid
        return names

    names = run(work())
    rows: list[tuple[Any, ...]] = []
    for key, value in bootstrap().peek_memory(settings, PREFIX):
        found = read(key, value)
        if found is None or user not in ("", found.user):
            continue
        name = names.get(found.domain_sid, found.domain_sid)
        if domain in ("", name, found.domain_sid):
            rows += [_row(f"{found.user}@{name}", one, now) for one in found.bindings if one.expires_ms > now]
    show_table(COLUMNS, sorted(rows))


def _row(address: str, one: Binding, now_ms: int) -> tuple[object, ...]:
    host, port = one.flow.remote
    left_s = (one.expires_ms - now_ms) // 1000
    return address, one.uri, one.flow.transport, f"{bracketed(host)}:{port}", left_s, one.user_agent
