"""The parameters of message webhooks, as lists of (name, value) in the order Twilio sends them.

Every value is a string; what is not known is left out or, where Twilio sends it empty, empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote_plus

from trunkline.model import phone
from trunkline.model.message import Message

API_VERSION: Final = "2010-04-01"
MAX_INBOUND_BODY_CHARACTERS: Final = 1600
WITH_ERROR: Final = frozenset({"failed", "undelivered"})
WITH_DONE_DATE: Final = frozenset({"delivered", "undelivered"})

QUOTED: Final = 1024
"""Values remembered as they are quoted: versions, statuses, URLs come again and again."""

Params = list[tuple[str, str]]


class Place(NamedTuple):
    """Where a number belongs, in upper case as Twilio writes it; empty where unknown."""

    city: str = ""
    state: str = ""
    zip: str = ""
    country: str = ""


NOWHERE: Final = Place()


def place_of(number: str) -> Place:
    """What the number itself tells: its country. City, state and zip are not known here."""
    return Place(country=phone.country(number) or "") if number[:1] == "+" else NOWHERE


def inbound_message(
    message: Message,
    *,
    from_place: Place | None = None,
    to_place: Place | None = None,
    opt_out_type: str = "",
) -> Params:
    """Parameters of the webhook for a received message; the files are `message.media`, with absolute URLs.

    Places left out are taken from the numbers. `opt_out_type` is STOP, START or HELP when the body was taken
    as such a keyword, else empty.
    """
    sid = message.sid
    from_place = from_place or place_of(message.from_)
    to_place = to_place or place_of(message.to)
    params = [
        ("ToCountry", to_place.country),
        ("ToState", to_place.state),
        ("SmsMessageSid", sid),
        ("NumMedia", str(len(message.media))),
        ("ToCity", to_place.city),
        ("FromZip", from_place.zip),
        ("SmsSid", sid),
        ("FromState", from_place.state),
        ("SmsStatus", "received"),
        ("FromCity", from_place.city),
        ("Body", message.body[:MAX_INBOUND_BODY_CHARACTERS]),
        ("FromCountry", from_place.country),
        ("To", message.to),
        ("ToZip", to_place.zip),
        ("NumSegments", str(message.num_segments)),
        ("MessageSid", sid),
        ("AccountSid", message.account_sid),
        ("From", message.from_),
        ("ApiVersion", API_VERSION),
    ]
    if message.messaging_service_sid:
        params.append(("MessagingServiceSid", message.messaging_service_sid))
    if opt_out_type:
        params.append(("OptOutType", opt_out_type))
    for index, item in enumerate(message.media):
        params.append((f"MediaUrl{index}", item.url))
        params.append((f"MediaContentType{index}", item.content_type))
    return params


def message_status(message: Message, status: str) -> Params:
    """Parameters of the status callback of a sent message that has just reached `status`.

    ErrorCode goes with `failed` and `undelivered`, RawDlrDoneDate (the message's `done_date`) with `delivered`
    and `undelivered`.
    """
    sid = message.sid
    params = [
        ("SmsSid", sid),
        ("SmsStatus", status),
        ("MessageStatus", status),
        ("To", message.to),
        ("MessageSid", sid),
        ("AccountSid", message.account_sid),
        ("From", message.from_),
        ("ApiVersion", API_VERSION),
    ]
    if message.messaging_service_sid:
        params.append(("MessagingServiceSid", message.messaging_service_sid))
    if message.error_code and status in WITH_ERROR:
        params.append(("ErrorCode", str(message.error_code)))
        if message.error_message:
            params.append(("ErrorMessage", message.error_message))
    if message.done_date and status in WITH_DONE_DATE:
        params.append(("RawDlrDoneDate", message.done_date))
    return params


def fallback(params: Iterable[tuple[str, str]], *, error_code: int, error_url: str) -> Params:
    """Parameters of the request to a fallback URL: the first request's, and why it failed."""
    return [*params, ("ErrorCode", str(error_code)), ("ErrorUrl", error_url)]


def raw_dlr_done_date(done_ms: int) -> str:
    """YYMMDDhhmm in UTC, as SMPP's receipts write `done date`."""
    return datetime.fromtimestamp(done_ms / 1000, UTC).strftime("%y%m%d%H%M")


def encode_form(params: Iterable[tuple[str, str]]) -> str:
    """application/x-www-form-urlencoded (UTF-8, space as +), ready for a body or a query.

    Most values are SIDs, numbers and words, or empty: these skip the general quoting, which costs ten times as much.
    """
    return "&".join(
        [
            f"{name}={value}" if not value or (value.isascii() and value.isalnum()) else f"{name}={_quote(value)}"
            for name, value in params
        ]
    )


@lru_cache(maxsize=QUOTED)
def _quote(value: str) -> str:
    if value[:1] == "+" and value.isascii() and value[1:].isdigit():
        return "%2B" + value[1:]
    return quote_plus(value, errors="replace")
