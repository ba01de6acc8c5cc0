"""What a request that came in belongs to, where its responses go, and whether it can be answered at all."""

from typing import Final

from trunkline.sip.core import ALLOW, EXTENSIONS, KNOWN_METHODS, SDP_TYPE, SUPPORTED, Answer, StackConfig
from trunkline.sip.flow import DEFAULT_PORT, Flow, bracketed, default_port, plan
from trunkline.sip.headers import Field, Via, split_values
from trunkline.sip.message import MalformedMessage, Request
from trunkline.sip.requests import BRANCH_COOKIE, record_route
from trunkline.sip.session_timer import headers_of_422, too_small
from trunkline.sip.uri import SIP_SCHEMES

URI_SCHEMES: Final = SIP_SCHEMES | {"tel"}
"""Of a Request-URI (416 for others)."""

Key = tuple[str, ...]


def server_key(request: Request, via: Via) -> Key:
    """What identifies a server transaction (RFC 3261 section 17.2.3); an ACK has its INVITE's."""
    method = "INVITE" if request.method == "ACK" else request.method
    branch = via.params.get("branch") or ""
    if branch.startswith(BRANCH_COOKIE) and branch != BRANCH_COOKIE:
        return branch, via.host, str(via.port), method
    # RFC 2543: no unique branch. To is left out: the ACK has its tag, and CSeq tells requests of a dialog apart.
    return "", request.uri, request.from_tag, request.call_id, str(request.cseq[0]), str(via), method


def merge_key(request: Request) -> Key:
    """What two copies of one request share that took different ways (RFC 3261 section 8.2.2.2)."""
    return request.call_id, request.from_tag, request.headers.get("CSeq")


def lacking(request: Request, config: StackConfig) -> tuple[int, list[Field]] | None:
    """How to refuse a request that wants an extension, encoding or session interval that we lack (RFC 3261 sections
    8.2.2.3 and 8.2.3, RFC 4028 section 9); None: it lacks nothing."""
    headers = request.headers
    index = headers.index()
    if "Require" in index:
        unknown = [tag for tag in split_values(headers.all("Require")) if tag.lower() not in EXTENSIONS]
        if unknown:
            return 420, [("Unsupported", ", ".join(unknown))]
    if "Content-Encoding" in index and headers.get("Content-Encoding").lower() != "identity":
        return 415, [("Accept-Encoding", "identity")]
    if "Session-Expires" in index and request.method in ("INVITE", "UPDATE") and too_small(request, config):
        return 422, headers_of_422(config)
    return None


def default_answer(request: Request) -> Answer:
    """OPTIONS tells what we can do (section 11.2); other methods are not for us."""
    if request.method == "OPTIONS":
        known = ("Allow", ALLOW), ("Accept", SDP_TYPE), ("Accept-Encoding", "identity"), ("Supported", SUPPORTED)
        return 200, list(known)
    if request.method == "REFER":  # outside of dialogs nobody may have us call
        return 403, []
    return (405, [("Allow", ALLOW)]) if request.method in KNOWN_METHODS else (501, [])


def reachable(invite: Request) -> bool:
    """Whether requests in the dialog that this INVITE makes would have somewhere to go."""
    contact = invite.contact or invite.from_  # without one as RFC 2543 has it
    if contact.uri.scheme not in SIP_SCHEMES:
        return False
    try:
        return "Record-Route" not in invite.headers or bool(plan(record_route(invite), str(contact.uri))[2].host)
    except MalformedMessage:
        return False


def response_flows(via: Via, flow: Flow) -> tuple[Flow, Flow | None]:
    """Where responses go (RFC 3261 section 18.2.2, RFC 3581), and where to connect if that connection is gone.

    `maddr` is ignored: it would let a stranger point our responses at anybody.
    """
    if flow.transport == "UDP":
        if via.wants_rport:
            return flow, None
        return flow._replace(remote=(flow.remote[0], via.port or DEFAULT_PORT)), None
    return flow, flow._replace(remote=(flow.remote[0], via.port or default_port(flow.transport)), id=0)


def mark_source(request: Request, via: Via, flow: Flow) -> None:
    """Write where a request came from into its topmost Via (RFC 3261 section 18.2.1, RFC 3581 section 4)."""
    host, port = flow.remote
    wants_rport = via.wants_rport
    if not wants_rport and via.host == bracketed(host):
        return
    params = dict(via.params)
    params["received"] = host
    if wants_rport:
        params["rport"] = str(port)
    marked = Via(via.transport, via.host, via.port, params)
    others = request.headers.all("Via")
    if len(others) > 1 or "," in others[0]:
        request.headers.remove("Via")
        for value in reversed(split_values(others)[1:]):
            request.headers.prepend("Via", value)
        request.headers.prepend("Via", str(marked))
    else:
        request.mark_via(marked)
