"""Registration as rules (RFC 3261 section 10.3, with RFC 3327 Path and RFC 5626 instances and flows).

`register` is given what stands for an address-of-record and a REGISTER whose sender may change it, and says what stands
afterwards and what to answer. It keeps nothing and changes nothing itself: all of a request is done, or none.

Where a binding differs from the letter: it is reached by the flow that its REGISTER came by (section 5.3 of RFC 5626
for everybody), never by a look-up of its Contact, so that nobody can aim our requests at a third host; and two phones
with the same private Contact behind different NATs are two bindings.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from typing import Final, NamedTuple

import msgspec

from trunkline.sip.errors import MalformedMessage
from trunkline.sip.flow import DEFAULT_PORT, DEFAULT_TLS_PORT, Flow, Target, is_private
from trunkline.sip.headers import Field, NameAddr, format_header_params, parse_list, split_values
from trunkline.sip.message import Request
from trunkline.sip.uri import SIP_SCHEMES, Uri, same

MAX_URI: Final = 512
"""Characters of a Contact's URI, and of its other parameters."""
MAX_PATHS: Final = 8
MAX_PATH: Final = 1024
"""Characters of all Path values."""
MAX_INSTANCE: Final = 128
MAX_CALL_ID: Final = 256
MAX_USER_AGENT: Final = 100
MAX_SECONDS: Final = 2**32 - 1
"""Largest delta-seconds (RFC 3261 section 20.19)."""
MALFORMED_S: Final = 3600
"""What an expiry that cannot be read stands for (section 10.2.1.1)."""
SUPPORTED: Final = "path, outbound"
EXTENSIONS: Final = frozenset({"path", "outbound"})
"""Option tags that a REGISTER may require."""
_OURS: Final = frozenset({"expires", "q", "+sip.instance", "reg-id"})
_FULL_Q: Final = 1000


class Binding(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One Contact of an address-of-record. New fields go to the end: stored ones are read by position."""

    uri: str
    """The Contact's, without headers: the Request-URI of calls."""
    flow: Flow
    """How its REGISTER came."""
    expires_ms: int
    registered_ms: int
    """Of its last refresh."""
    call_id: str
    cseq: int
    q: int = _FULL_Q
    """Preference in thousandths."""
    instance: str = ""
    """`+sip.instance`: which device it is."""
    reg_id: int = 0
    """Which of the device's flows; 0: it knows nothing of RFC 5626."""
    path: tuple[str, ...] = ()
    """Proxies to go through, the first hop first."""
    params: str = ""
    """The Contact's other parameters, with leading semicolons."""
    user_agent: str = ""
    since_ms: int = 0
    """When it was registered first."""

    @property
    def vanishes(self) -> bool:
        """Whether it is gone when its connection is: nobody else knows the way to the phone."""
        return self.flow.reliable and not self.path


class Limits(NamedTuple):
    """What one address-of-record may ask for; seconds."""

    min_s: int = 60
    max_s: int = 3600
    default_s: int = 3600
    contacts: int = 10


class Outcome(NamedTuple):
    """What to answer, and what stands now."""

    status: int
    headers: list[Field]
    bindings: tuple[Binding, ...]
    changed: bool = False
    repeated: bool = False
    """It was the same request once more; its answer is that of the first."""
    crowded: bool = False
    """A binding gave way because there were too many."""


class Way(NamedTuple):
    """How a request reaches a binding: arguments of `Stack.invite`."""

    uri: str
    routes: tuple[str, ...]
    target: Flow | Target


class _Contact(NamedTuple):
    """A Contact that is wanted."""

    uri: Uri
    seconds: int
    q: int
    instance: str
    reg_id: int
    params: str


class _Refused(Exception):
    def __init__(self, status: int, *headers: Field) -> None:
        super().__init__(status)
        self.status = status
        self.headers = list(headers)


def register(request: Request, flow: Flow, standing: Sequence[Binding], now_ms: int, limits: Limits) -> Outcome:
    """Process a REGISTER of an authorized sender. Never raises."""
    live = tuple(binding for binding in standing if binding.expires_ms > now_ms)
    try:
        return _register(request, flow, live, now_ms, limits)
    except _Refused as refused:
        return Outcome(refused.status, refused.headers, live)
    except MalformedMessage as malformed:
        return Outcome(malformed.status, [], live)


def way_to(binding: Binding) -> Way:
    """How to reach a binding: by its Path, else by the flow it came by.

    The first hop of a Path is believed where its host is the one that sent the REGISTER; it may listen on another port
    than it sends from, but what came by TLS goes back by TLS. Else the flow is used: a Path names no host that we would
    not talk to anyway.
    """
    hop: Flow | Target = binding.flow
    if binding.path:
        first = NameAddr.parse(binding.path[0]).uri
        if first.bare_host == binding.flow.remote[0]:
            transport = "TLS" if first.scheme == "sips" else first.transport or "UDP"
            if transport == binding.flow.transport or (transport == "UDP" and binding.flow.transport != "TLS"):
                port = first.port or (DEFAULT_TLS_PORT if transport == "TLS" else DEFAULT_PORT)
                hop = Target(transport, first.bare_host, port)
    return Way(binding.uri, binding.path, hop)


# -- the steps of section 10.3 -------------------------------------------------------------------------------------


def _register(request: Request, flow: Flow, live: tuple[Binding, ...], now_ms: int, limits: Limits) -> Outcome:
    values = request.headers.all("Contact")
    cseq, call_id = request.cseq[0], request.call_id
    if len(call_id) > MAX_CALL_ID:
        raise _Refused(400)
    if not values:
        return _done(live, live, now_ms, ())
    if "*" in (value.strip() for value in values):
        _check_wildcard(request, values)
        _check_order(live, call_id, cseq)
        return _done((), live, now_ms, ())
    contacts = _contacts(request, values, limits)
    path = _path(request)
    outbound = _outbound(request, contacts, path)
    bindings = list(live)
    repeated = True
    for contact in contacts:
        at = _find(bindings, contact, call_id, flow)
        old = bindings[at] if at >= 0 else None
        if old is not None and old.call_id == call_id:
            if cseq < old.cseq:
                raise _Refused(500)
            if cseq == old.cseq:
                continue
        repeated = False
        if not contact.seconds:
            if old is not None:
                del bindings[at]
            continue
        new = _binding(request, contact, flow, path, now_ms, old)
        if old is not None:
            bindings[at] = new
        else:
            bindings.append(new)
    if repeated:
        return _done(live, live, now_ms, path, outbound=outbound)._replace(repeated=True)
    crowded = len(bindings) > limits.contacts
    if crowded:  # the ones refreshed longest ago give way: phones that come back as others all the time get in
        bindings = sorted(bindings, key=lambda each: each.registered_ms)[-limits.contacts :]
    return _done(tuple(bindings), live, now_ms, path, outbound=outbound)._replace(crowded=crowded)


def _done(
    bindings: tuple[Binding, ...],
    before: tuple[Binding, ...],
    now_ms: int,
    path: Sequence[str],
    *,
    outbound: bool = False,
) -> Outcome:
    """Steps 7 and 8: 200 with all that stands."""
    headers: list[Field] = [("Contact", _shown(binding, now_ms)) for binding in bindings]
    headers += [("Path", value) for value in path]
    headers.append(("Supported", SUPPORTED))
    if outbound:
        headers.append(("Require", "outbound"))
    headers.append(("Date", formatdate(now_ms // 1000, usegmt=True)))
    return Outcome(200, headers, bindings, bindings is not before)


def _shown(binding: Binding, now_ms: int) -> str:
    text = f"<{binding.uri}>;expires={max(0, -(-(binding.expires_ms - now_ms) // 1000))}"
    if binding.q != _FULL_Q:
        text += f";q={binding.q / _FULL_Q:g}"
    if binding.instance:
        text += f';+sip.instance="{binding.instance}"'
    if binding.reg_id:
        text += f";reg-id={binding.reg_id}"
    return text + binding.params


def _check_wildcard(request: Request, values: Sequence[str]) -> None:
    """Step 6: `*` alone, and only to remove everything."""
    if len(values) > 1 or _seconds(request.headers.get("Expires")) != 0:
        raise _Refused(400)


def _check_order(live: Sequence[Binding], call_id: str, cseq: int) -> None:
    if any(binding.call_id == call_id and cseq < binding.cseq for binding in live):
        raise _Refused(500)


def _contacts(request: Request, values: Sequence[str], limits: Limits) -> list[_Contact]:
    """Step 7, what is asked for."""
    first = request.contact
    addresses = [first] if first is not None and len(values) == 1 and "," not in values[0] else parse_list(values)
    if len(addresses) > limits.contacts:
        raise _Refused(403)
    default = request.headers.get("Expires")
    default_s = limits.default_s if not default else _seconds(default)
    return [_contact(address, default_s, limits) for address in addresses]


def _contact(address: NameAddr, default_s: int, limits: Limits) -> _Contact:
    uri, params = address.uri, address.params
    if uri.scheme not in SIP_SCHEMES or not uri.host:
        raise _Refused(400)
    if uri.headers or "method" in uri.params:  # section 19.1.1: neither is allowed in a Contact of REGISTER
        uri = uri.replace(headers={}, params={name: value for name, value in uri.params.items() if name != "method"})
    seconds = _seconds(params["expires"] or "") if "expires" in params else default_s
    if 0 < seconds < limits.min_s:
        raise _Refused(423, ("Min-Expires", str(limits.min_s)))
    instance, reg_id = (params.get("+sip.instance") or ""), (params.get("reg-id") or "")
    if '"' in instance or "\\" in instance or len(instance) > MAX_INSTANCE:
        raise _Refused(400)
    if "reg-id" in params and not (reg_id.isascii() and reg_id.isdigit() and 0 < len(reg_id) < 10 and int(reg_id)):
        raise _Refused(400)
    others = {name: value for name, value in params.items() if name not in _OURS}
    text = format_header_params(others) if others else ""
    if len(str(uri)) > MAX_URI or len(text) > MAX_URI:
        raise _Refused(400)
    number = int(reg_id) if reg_id and instance else 0
    return _Contact(uri, min(seconds, limits.max_s), _q(params.get("q", "1")), instance, number, text)


def _seconds(text: str) -> int:
    """Delta-seconds; what cannot be read is an hour."""
    if not text.isascii() or not text.isdigit():
        return MALFORMED_S
    return min(int(text), MAX_SECONDS) if len(text) < 16 else MAX_SECONDS


def _q(text: str | None) -> int:
    """A qvalue (section 25.1) in thousandths. Raises _Refused."""
    if text in ("1", "1.0"):
        return _FULL_Q
    whole, _, digits = (text or "").partition(".")
    if whole not in ("0", "1") or len(digits) > 3 or (digits and not (digits.isascii() and digits.isdigit())):
        raise _Refused(400)
    value = int(whole) * _FULL_Q + int(digits.ljust(3, "0") or 0)
    if value > _FULL_Q:
        raise _Refused(400)
    return value


def _path(request: Request) -> tuple[str, ...]:
    """The proxies that the REGISTER came through, ours to use in this order (RFC 3327 section 5.3)."""
    if "Path" not in request.headers:
        return ()
    values = split_values(request.headers.all("Path"))
    if len(values) > MAX_PATHS or sum(map(len, values)) > MAX_PATH:
        raise _Refused(400)
    for value in values:
        uri = NameAddr.parse(value).uri
        if uri.scheme not in SIP_SCHEMES or "<" not in value:
            raise _Refused(400)
    return tuple(values)


def _outbound(request: Request, contacts: Sequence[_Contact], path: Sequence[str]) -> bool:
    """Whether the phone keeps its flow (RFC 5626 section 6); 439 when its first hop does not."""
    if not any(contact.reg_id for contact in contacts):
        return False
    if len(contacts) > 1:
        raise _Refused(400)
    supported = {tag.lower() for tag in split_values(request.headers.all("Supported"))}
    if "outbound" not in supported:
        return False
    if len(split_values(request.headers.all("Via"))) > 1 and not (path and "ob" in NameAddr.parse(path[-1]).uri.params):
        raise _Refused(439)
    return True


def _find(bindings: Sequence[Binding], contact: _Contact, call_id: str, flow: Flow) -> int:
    """Which binding a Contact means; -1: a new one."""
    if contact.reg_id:
        for at, binding in enumerate(bindings):
            if binding.instance == contact.instance and binding.reg_id == contact.reg_id:
                return at
        return -1
    text, private = str(contact.uri), is_private(contact.uri.host)
    for at, binding in enumerate(bindings):
        if binding.reg_id or not (binding.uri == text or same(Uri.parse(binding.uri), contact.uri)):
            continue
        if not private or binding.call_id == call_id or binding.flow.remote[0] == flow.remote[0]:
            return at
    return -1


def _binding(
    request: Request, contact: _Contact, flow: Flow, path: tuple[str, ...], now_ms: int, old: Binding | None
) -> Binding:
    return Binding(
        uri=str(contact.uri),
        flow=flow,
        expires_ms=now_ms + contact.seconds * 1000,
        registered_ms=now_ms,
        call_id=request.call_id,
        cseq=request.cseq[0],
        q=contact.q,
        instance=contact.instance,
        reg_id=contact.reg_id,
        path=path,
        params=contact.params,
        user_agent=_printable(request.headers.get("User-Agent")[:MAX_USER_AGENT]),
        since_ms=old.since_ms if old is not None else now_ms,
    )


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(character for character in text if character.isprintable())
