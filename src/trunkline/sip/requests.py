"""Requests that follow from others: ACK and CANCEL of an INVITE, and a request once more with credentials."""

from collections.abc import Sequence
from typing import Final

from trunkline.sip.headers import Field, split_values
from trunkline.sip.message import Request, Response

BRANCH_COOKIE: Final = "z9hG4bK"
"""Begins every branch since RFC 3261 (section 8.1.1.7)."""
MAX_FORWARDS: Final = "70"
CREDENTIALS: Final = frozenset({"Authorization", "Proxy-Authorization"})


def _same_hop(request: Request, method: str, to: str, extra: Sequence[Field] = ()) -> Request:
    """For the same next hop, in or beside the INVITE's transaction: its one Via, its Route, From, Call-ID and CSeq."""
    headers = request.headers
    fields: list[Field] = [("Via", headers.get("Via")), ("Max-Forwards", MAX_FORWARDS)]
    fields += [("Route", value) for value in headers.all("Route")]
    fields += [
        ("From", headers.get("From")),
        ("To", to),
        ("Call-ID", request.call_id),
        ("CSeq", f"{request.cseq[0]} {method}"),
        *extra,
    ]
    return Request.make(method, request.uri, headers=fields)


def ack_of_failure(request: Request, response: Response) -> Request:
    """The ACK of a final response above 299, which belongs to the INVITE's transaction (RFC 3261 section 17.1.1.3)."""
    return _same_hop(request, "ACK", response.headers.get("To"))


def cancel_of(request: Request, headers: Sequence[Field] = ()) -> Request:
    """RFC 3261 section 9.1; `headers` may give a Reason."""
    return _same_hop(request, "CANCEL", request.headers.get("To"), headers)


def renewed(request: Request, cseq: int, credentials: Sequence[Field]) -> Request:
    """The request once more, for a transaction of its own, with other credentials (RFC 3261 section 22.2)."""
    fields: list[Field] = []
    for name, value in request.headers:
        if name == "CSeq":
            fields += [(name, f"{cseq} {request.method}"), *credentials]
        elif name != "Via" and name not in CREDENTIALS:
            fields.append((name, value))
    return Request.make(request.method, request.uri, headers=fields, body=request.body)


def credentials_in(request: Request) -> list[Field]:
    """Its credentials, which the ACK of its 2xx repeats (RFC 3261 section 22.1)."""
    return [field for field in request.headers if field[0] in CREDENTIALS]


def record_route(message: Request | Response) -> list[str]:
    """The values of Record-Route in their order; raises MalformedMessage."""
    values = message.headers.all("Record-Route")
    return split_values(values) if values else []


def has_option(message: Request | Response, header: str, tag: str) -> bool:
    """Whether Supported, Require or Allow name an option tag or method."""
    values = message.headers.index().get(header)
    if values is None:
        return False
    tag = tag.lower()
    return any(tag in value.lower() and tag in value.lower().replace(" ", "").split(",") for value in values)
