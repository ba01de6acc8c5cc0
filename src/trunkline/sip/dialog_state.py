"""What of a dialog another process needs to go on with it."""

from typing import Final

import msgspec

from trunkline.sip.flow import Flow, beyond, contact_unreachable
from trunkline.sip.message import Request, Response
from trunkline.sip.requests import record_route

STATE_VERSION: Final = 1
MAX_ROUTES: Final = 32


class DialogState(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A dialog as another process can go on with it. `id` names it."""

    v: int = STATE_VERSION
    call_id: str
    local_tag: str
    remote_tag: str
    local: str
    """Our From, with the tag."""
    remote: str
    """Our To, with the peer's tag."""
    local_cseq: int = 0
    remote_cseq: int = -1
    """-1: the peer has sent no request yet."""
    target: str
    """The peer's Contact."""
    routes: tuple[str, ...] = ()
    flow: Flow
    behind_nat: bool = False
    """The peer is reached where its messages come from, not at its Contact."""
    is_caller: bool
    """Whether we sent the INVITE that made it."""
    invite_cseq: int = 0
    """Of our last INVITE."""
    ack: bytes = b""
    """The ACK of our last INVITE's 2xx, for when that is repeated."""
    ack_flow: Flow | None = None
    answer: bytes = b""
    """Our 2xx that no ACK has come for yet."""
    answer_cseq: int = -1
    """CSeq of the last INVITE that we answered with a 2xx."""
    answer_flow: Flow | None = None
    invite_key: tuple[str, ...] = ()
    """What identifies the INVITE that made it, when the peer sent it."""
    peer_updates: bool = False
    """Whether the peer takes UPDATE (its Allow)."""
    session_s: int = 0
    """Session interval that was agreed (RFC 4028); 0: none."""
    we_refresh: bool = False
    """Whether it is for us to refresh the session."""
    rack: str = ""
    """What the PRACK of a reliable response says that was not acknowledged when our 2xx was settled."""
    homes: tuple[str, ...] = ()
    """Hosts that our INVITE went to, by address and by name: they alone have challenges answered. Empty: not known."""


def callee_state(invite: Request, tag: str, flow: Flow, key: tuple[str, ...]) -> DialogState:
    """Of the dialog that our 2xx makes (RFC 3261 section 12.1.1). Raises MalformedMessage for a bad Record-Route."""
    contact, via = invite.contact or invite.from_, invite.via
    return DialogState(
        call_id=invite.call_id,
        local_tag=tag,
        remote_tag=invite.from_tag,
        local=f"{invite.headers.get('To')};tag={tag}",
        remote=invite.headers.get("From"),
        remote_cseq=invite.cseq[0],
        target=str(contact.uri.replace(headers={}) if contact.uri.headers else contact.uri),
        routes=tuple(record_route(invite)[:MAX_ROUTES]),
        flow=flow,
        behind_nat=contact_unreachable(contact.uri.host, flow.remote[0], via.host),
        is_caller=False,
        invite_key=key,
        peer_updates="UPDATE" in invite.headers.get("Allow"),
    )


def caller_state(invite: Request, sent: Flow, heard: Flow, response: Response, logs_in: bool) -> DialogState:
    """Of the dialog that a response to our INVITE makes (section 12.1.2), a 2xx or an early one. `sent` and `heard`:
    which way the two took; `logs_in`: whether we have credentials. Raises MalformedMessage."""
    contact, cseq = response.contact, invite.cseq[0]
    return DialogState(
        call_id=invite.call_id,
        local_tag=invite.from_tag,
        remote_tag=response.to_tag,
        local=invite.headers.get("From"),
        remote=response.headers.get("To"),
        local_cseq=cseq,
        invite_cseq=cseq,
        target=invite.uri if contact is None else str(contact.uri.replace(headers={})),
        routes=tuple(record_route(response)[:MAX_ROUTES][::-1]),
        flow=heard if heard.id else sent._replace(remote=heard.remote),
        behind_nat=contact is not None and beyond(invite, sent, heard, contact.uri),
        is_caller=True,
        peer_updates="UPDATE" in response.headers.get("Allow"),
        homes=(sent.remote[0], heard.remote[0], invite.request_uri.bare_host) if logs_in else (),
    )
