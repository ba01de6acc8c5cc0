"""The Replaces header (RFC 3891): an INVITE that wants to take the place of a dialog of ours."""

from typing import NamedTuple

from trunkline.sip.headers import header_params, split_values
from trunkline.sip.message import MalformedMessage, Request


class Replaces(NamedTuple):
    """Which dialog."""

    call_id: str
    local_tag: str
    """Ours: the header's to-tag."""
    remote_tag: str
    early_only: bool


def replaces_of(request: Request) -> Replaces | None:
    """What an INVITE wants to replace, None if nothing. Raises MalformedMessage (400)."""
    values = split_values(request.headers.all("Replaces"))
    if not values:
        return None
    call_id, _, rest = values[0].partition(";")
    params = header_params(";" + rest)
    local, remote = params.get("to-tag"), params.get("from-tag")
    if len(values) > 1 or not call_id.strip() or local is None or remote is None:
        raise MalformedMessage(400, "Bad Replaces")
    return Replaces(call_id.strip(), local, remote, "early-only" in params)
