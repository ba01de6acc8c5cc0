"""Which sender of a Messaging Service's pool a message leaves from.

Order: the sender the recipient knows (sticky), a short code of the recipient's country, an alphanumeric sender where
the country takes one, a long code of the country (of the same North American area code if there is one), any long
code. Within one rank a hash of the recipient spreads the load and gives a recipient the same sender every time.

`select` decides on values alone; `choose_sender` adds the directory and the memory of sticky senders.
Source: Twilio's Messaging Services features (sticky sender, country code and area code geomatch, short code reroute,
alpha sender).
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Any
from zlib import crc32

from trunkline.accounts.directory import Directory
from trunkline.model.numbers import MessagingService, ServiceSender, StickySender
from trunkline.model.phone import country
from trunkline.storage.database import Database

NO_ALPHA_COUNTRIES = frozenset(
    {
        # North America and its territories: handsets could not answer, carriers refuse.
        *("US", "CA", "PR", "VI", "GU", "AS", "MP"),
        # Latin America: networks replace the sender by a number of their own.
        *("AR", "BR", "CL", "CO", "CR", "DO", "EC", "GT", "HN", "MX", "NI", "PA", "PE", "SV", "UY"),
        # Elsewhere: refused or replaced by the networks.
        *("BE", "CN", "KR", "MY", "NZ", "ZA"),
    }
)
"""ISO 3166-1 alpha-2 of countries whose networks do not deliver alphanumeric senders, by public carrier guidelines."""

PHONE_NUMBER, SHORT_CODE, ALPHA = "phone_number", "short_code", "alpha"

log = logging.getLogger(__name__)


def select(
    senders: Sequence[ServiceSender],
    to: str,
    to_country: str,
    *,
    sticky: str = "",
    geomatch: bool = True,
    exclude: Collection[str] = (),
) -> ServiceSender | None:
    """The sender for a message `to` a number in `to_country` (empty: unknown); None when no sender will do.

    `sticky` is the address the recipient knows; `exclude` are addresses that were tried in vain.
    """
    pool = [sender for sender in senders if sender.address not in exclude] if exclude else senders
    if sticky:
        for sender in pool:
            if sender.address == sticky:
                return sender
    rank = _short_codes(pool, to_country) or _alphas(pool, to_country) or _long_codes(pool, to, to_country, geomatch)
    return rank[crc32(to.encode()) % len(rank)] if rank else None


def _short_codes(pool: Sequence[ServiceSender], to_country: str) -> list[ServiceSender]:
    """Short codes work in their own country only."""
    return [sender for sender in pool if sender.kind == SHORT_CODE and sender.country == to_country]


def _alphas(pool: Sequence[ServiceSender], to_country: str) -> list[ServiceSender]:
    """Alphanumeric senders made for the country, else those for any."""
    if not to_country or to_country in NO_ALPHA_COUNTRIES:
        return []
    alphas = [sender for sender in pool if sender.kind == ALPHA and sender.iso_country in ("", to_country)]
    return [sender for sender in alphas if sender.iso_country] or alphas


def _long_codes(pool: Sequence[ServiceSender], to: str, to_country: str, geomatch: bool) -> list[ServiceSender]:
    """Long codes of the area code, else of the country, else all."""
    numbers = [sender for sender in pool if sender.kind == PHONE_NUMBER]
    domestic = [sender for sender in numbers if sender.country == to_country]
    if geomatch and to.startswith("+1"):
        near = [sender for sender in domestic if sender.address[:5] == to[:5]]
        domestic = near or domestic
    return domestic or numbers


async def choose_sender(
    directory: Directory, database: Database, service: MessagingService, to: str, *, exclude: Collection[str] = ()
) -> ServiceSender | None:
    """The sender of `service` for a message to `to`, and remember it if the service's senders stick."""
    senders = directory.senders(service.sid)
    if not senders:
        return None
    known = await database.get(StickySender, f"{service.sid}:{to}") if service.sticky_sender else None
    sticky = known.sender if known is not None else ""
    chosen = select(senders, to, country(to) or "", sticky=sticky, geomatch=service.area_code_geomatch, exclude=exclude)
    if chosen is not None and service.sticky_sender and chosen.address != sticky and chosen.kind != ALPHA:
        remember_sender(database, service, to, chosen.address)
    return chosen


def remember_sender(database: Database, service: MessagingService, recipient: str, address: str) -> None:
    """Make `address` the sender that the recipient knows. Not waited for: what a crash loses, the hash in `select`
    most likely chooses again."""
    sticky = StickySender(sid=f"{service.sid}:{recipient}", account_sid=service.account_sid, sender=address)
    asyncio.ensure_future(database.put(sticky)).add_done_callback(_remembered)


def _remembered(written: "asyncio.Future[Any]") -> None:
    if not written.cancelled() and written.exception() is not None:
        log.warning("a sticky sender was not kept: %s", written.exception())


def fallback_sender(
    service: MessagingService, senders: Sequence[ServiceSender], failed: str, to: str
) -> ServiceSender | None:
    """The long code to try when the short code `failed` could not deliver to `to`; None when the service has no
    fallback or the failed sender was none of its short codes."""
    short = any(sender.address == failed and sender.kind == SHORT_CODE for sender in senders)
    if not service.fallback_to_long_code or not short:
        return None
    numbers = [sender for sender in senders if sender.kind == PHONE_NUMBER]
    return select(numbers, to, country(to) or "", geomatch=service.area_code_geomatch, exclude=(failed,))
