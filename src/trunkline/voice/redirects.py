"""Following a 3xx of a trunk's gateway (RFC 3261 section 8.1.3.4), where the operator trusts it with that.

Only trunks with `follow_redirects` are followed, a bounded number of times and to a bounded number of targets. A target
goes out by the same trunk, but its login stays with the trunk's own gateways, and hosts beyond them are looked up and
checked as those that customers name: nobody can aim our calls at our own network. Another number is one more call: the
account must be permitted to call it, within its limits, and the trunk's prefixes have to lead there; no redirect leads
to an emergency number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trunkline.sip.errors import MalformedMessage
from trunkline.sip.headers import NameAddr, split_values
from trunkline.sip.uri import SIP_SCHEMES, Uri

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trunkline.sip.message import Response
    from trunkline.voice.trunks import Way

MAX_TARGETS: Final = 5
"""Contacts of one 3xx that are tried, best `q` first."""
MAX_HOPS: Final = 3
"""Redirects that one leg follows."""


def is_redirect(status: int) -> bool:
    """Whether a final response names other places to try; 305 and 380 mean something else."""
    return status in (300, 301, 302)


def targets(response: Response) -> list[Uri]:
    """The `sip:` and `sips:` URIs that a 3xx names, each once, best first; what is malformed is left out."""
    found: list[tuple[float, Uri]] = []
    try:
        values = split_values(response.headers.all("Contact"))
    except MalformedMessage:
        return []
    for value in values:
        try:
            address = NameAddr.parse(value)
        except MalformedMessage:
            continue
        uri = address.uri.replace(headers={})
        if uri.scheme in SIP_SCHEMES and uri.host and all(str(uri) != str(known) for _, known in found):
            found.append((_preference(address.params.get("q") or "1"), uri))
    found.sort(key=lambda one: -one[0])
    return [uri for _, uri in found[:MAX_TARGETS]]


def _preference(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0


def ways(response: Response, before: Way, seen: set[str]) -> list[Way]:
    """The ways that follow from a 3xx to an INVITE that went `before`; `seen` has the URIs that were tried, and gets
    these."""
    found: list[Way] = []
    for uri in targets(response):
        if str(uri) in seen:
            continue
        seen.add(str(uri))
        transport = "TLS" if uri.scheme == "sips" else uri.transport
        found.append(before._replace(uri=uri, host=uri.bare_host, port=uri.port, transport=transport, endpoint=None))
    return found


def number(way: Way) -> str:
    """The E.164 number that a way of a trunk asks for, as that trunk writes numbers; empty where it is none."""
    if way.dialect is None:
        return ""
    plan = way.dialect.plan
    return plan.caller_in(way.uri.user.removeprefix(plan.called_add))


def is_foreign(way: Way, own_hosts: Iterable[str]) -> bool:
    """Whether a way of a trunk leads beyond the trunk's own gateways: its host is checked, and gets no login."""
    return way.trunk is not None and way.endpoint is None and way.host not in own_hosts
