"""SIP IP addresses: the entries of an IP access control list. Source: spec
`api.v2010.account.sip.sip_ip_access_control_list.sip_ip_address`; the error dictionary (21237, 21238)."""

from ipaddress import IPv6Address, ip_address
from typing import Any

from trunkline.api import dates, records, sip_ip_access_control_lists
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.services import Services
from trunkline.api.sip_entries import EntryKind, routes
from trunkline.api.sip_lists import uri
from trunkline.model.errors import ApiError
from trunkline.model.sid import SIP_IP_ADDRESS, new_sid
from trunkline.model.sip_domain import SipIpAddress

MAX_ADDRESSES = 100
"""Addresses of a list (21237); Twilio's dictionary says 25, its documentation 100."""
MAX_NAME = 255
"""Characters of a FriendlyName."""
MAX_ADDRESS_CHARS = 45
"""An IPv6 address in full, with an IPv4 tail."""
MIN_PREFIX = 1
"""A network of prefix length 0 would be everybody."""
IPV4_BITS, IPV6_BITS = 32, 128
INVALID = 21238
TOO_MANY = 21237


def render(address: SipIpAddress) -> dict[str, Any]:
    """The resource as the API shows it."""
    list_sid = address.ip_access_control_list_sid
    return {
        "sid": address.sid,
        "account_sid": address.account_sid,
        "friendly_name": address.friendly_name,
        "ip_address": address.ip_address,
        "cidr_prefix_length": address.cidr_prefix_length,
        "ip_access_control_list_sid": list_sid,
        "date_created": dates.rfc2822(address.created_ms),
        "date_updated": dates.rfc2822(address.updated_ms),
        "uri": uri(address.account_sid, "IpAccessControlLists", list_sid, "IpAddresses", address.sid),
    }


def bits_of(address: str) -> int:
    """32 or 128; raises 21238 for what is no address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        raise ApiError.of(INVALID, name="IpAddress", reason="must be an IPv4 or IPv6 address") from None
    if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
        raise ApiError.of(INVALID, name="IpAddress", reason="must not have a zone")
    return IPV6_BITS if isinstance(parsed, IPv6Address) else IPV4_BITS


def _sent(request: Request) -> dict[str, Any]:
    """What was sent, checked as far as each stands alone."""
    sent: dict[str, Any] = {}
    name = request.str("FriendlyName", MAX_NAME, code=INVALID)
    if name is not None:
        sent["friendly_name"] = name
    written = request.str("IpAddress", MAX_ADDRESS_CHARS, code=INVALID)
    if written:
        bits_of(written)
        sent["ip_address"] = written
    prefix = request.int("CidrPrefixLength", MIN_PREFIX, IPV6_BITS, code=INVALID)
    if prefix is not None:
        sent["cidr_prefix_length"] = prefix
    return sent


def _apply(address: SipIpAddress, sent: dict[str, Any]) -> None:
    """Set what was sent. An address of the other kind without a prefix length is a single one."""
    before = bits_of(address.ip_address)
    records.assign(address, sent)
    bits = bits_of(address.ip_address)
    if bits != before and "cidr_prefix_length" not in sent:
        address.cidr_prefix_length = bits
    if address.cidr_prefix_length > bits:
        raise ApiError.of(INVALID, name="CidrPrefixLength", reason=f"must be a number between {MIN_PREFIX} and {bits}")


KIND = EntryKind(
    within=sip_ip_access_control_lists.KIND,
    record=SipIpAddress,
    prefix=SIP_IP_ADDRESS,
    key="ip_addresses",
    element="IpAddress",
    render=render,
)


async def create(request: Request, app: Services) -> Response:
    """POST IpAddresses: FriendlyName, IpAddress, CidrPrefixLength (else the address alone)."""
    parent = await KIND.parent(request, app)
    sent = _sent(request)
    for name in ("FriendlyName", "IpAddress"):
        if not sent.get(records.field_name(name)):
            raise ApiError.missing(name)
    within = {"ip_access_control_list_sid": parent.sid}
    await records.at_most(app.database, SipIpAddress, within, MAX_ADDRESSES, TOO_MANY)
    address = SipIpAddress(
        sid=new_sid(SIP_IP_ADDRESS, app.clock.now_ms()),
        account_sid=request.account_sid,
        ip_access_control_list_sid=parent.sid,
        ip_address=sent["ip_address"],
        cidr_prefix_length=bits_of(sent["ip_address"]),
    )
    _apply(address, sent)
    await app.database.insert(address)
    return KIND.answer(request, address, 201)


async def update(request: Request, app: Services) -> Response:
    """POST IpAddresses/{Sid}."""
    sent = _sent(request)
    address = await KIND.find(request, app)
    return KIND.answer(request, await records.change(request, app.database, address, lambda one: _apply(one, sent)))


ROUTES = routes(KIND, create, update)
