"""Standard parameters of voice webhooks, as lists of (name, value).

Source: Twilio's "TwiML voice: your request" tables, webhook contract sections 2 and 4.
"""

from email.utils import formatdate
from typing import Final

from trunkline.model.call import Call
from trunkline.model.numbers import PhoneNumber
from trunkline.webhooks.params import NOWHERE, Params, Place, place_of

VERSTAT: Final = "stir_verstat"
"""Key of a record's `extra`: what the carrier's verification said of the caller's number."""
IDENTITY: Final = "identity"
"""Key of a record's `extra`: the signed Identity headers (RFC 8224) that it came with."""
PASSPORT: Final = "passport"
"""Key of a record's `extra`: the PASSporT (RFC 8225) of them that its application is told."""
ASYNC_DETECTION: Final = "async_amd"
"""Key of a record's `extra`: whether documents do not wait for machine detection, and are not told of it."""
SIP_DOMAIN: Final = "sip_domain"
"""Key of a record's `extra`: the SIP domain that the call came by, and from where, as webhooks tell it."""
ANSWERED_BY: Final = "AnsweredBy"
CALL_STATUS: Final = "CallStatus"
"""The one standard parameter that changes while a call lasts."""


def place(address: str, number: PhoneNumber | None = None) -> Place:
    """Where an address belongs: what the inventory says of a number of ours, else what the number itself tells."""
    known = place_of(address)
    if number is None:
        return known
    return Place(number.locality.upper(), number.region.upper(), number.postal_code, number.country or known.country)


def standard(call: Call, status: str, *, from_place: Place | None = None, to_place: Place | None = None) -> Params:
    """The parameters that every request about a call has. Places left out are taken from the numbers."""
    here = from_place or place_of(call.from_)
    there = to_place or place_of(call.to)
    params = [
        ("CallSid", call.sid),
        ("AccountSid", call.account_sid),
        ("From", call.from_),
        ("To", call.to),
        (CALL_STATUS, status),
        ("ApiVersion", call.api_version),
        ("Direction", call.direction.value),
        ("Caller", call.from_),
        ("Called", call.to),
        *_places("From", here),
        *_places("To", there),
        *_places("Caller", here),
        *_places("Called", there),
    ]
    if call.forwarded_from:
        params.append(("ForwardedFrom", call.forwarded_from))
    if call.caller_name:
        params.append(("CallerName", call.caller_name))
    if call.parent_sid:
        params.append(("ParentCallSid", call.parent_sid))
    if call.application_sid:
        params.append(("ApplicationSid", call.application_sid))
    if call.answered_by:
        params.append((ANSWERED_BY, call.answered_by))
    if VERSTAT in call.extra:
        params.append(("StirVerstat", str(call.extra[VERSTAT])))
    if PASSPORT in call.extra:
        params.append(("StirPassportToken", str(call.extra[PASSPORT])))
    params += sip_params(call)
    return params


def _places(name: str, where: Place) -> Params:
    city, state, zip_, country = where
    return [(name + "City", city), (name + "State", state), (name + "Zip", zip_), (name + "Country", country)]


def sip_params(call: Call, prefix: str = "") -> Params:
    """`SipCallId` and `SipHeader_<name>` where the call came by a SIP domain, or with headers to pass on."""
    domain = call.extra.get(SIP_DOMAIN)
    if not call.sip_headers and domain is None:
        return []
    found = [] if domain is None else [(f"{prefix}{name}", str(value)) for name, value in domain.items()]
    found += [(f"{prefix}SipHeader_{name}", value) for name, value in call.sip_headers.items()]
    if call.sip_call_id:
        found.insert(0, (f"{prefix}SipCallId", call.sip_call_id))
    return found


def with_status(params: Params, status: str) -> Params:
    """The same parameters at another status."""
    return [(name, status if name == CALL_STATUS else value) for name, value in params]


def detected(call: Call, params: Params) -> Params:
    """The parameters of a request for TwiML on a call with machine detection: with its result and how long it took
    (nothing yet), or, where detection goes on beside the call, without."""
    if call.extra.get(ASYNC_DETECTION):
        return [pair for pair in params if pair[0] != ANSWERED_BY]
    return [*params, ("MachineDetectionDuration", "0")]


def rfc2822(at_ms: int) -> str:
    """`Thu, 01 Jun 2017 20:48:32 +0000`."""
    return formatdate(at_ms / 1000)[:-5] + "+0000"


__all__ = [
    "ASYNC_DETECTION", "CALL_STATUS", "NOWHERE", "Params", "Place", "detected", "place", "rfc2822", "sip_params",
    "standard", "with_status",
]  # fmt: skip
