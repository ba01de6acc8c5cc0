"""Dialogs that change hosts: what of a stored one is different here, and how a host lets go of what is not its own.

Theory. A dialog (RFC 3261 section 12) is named by Call-ID and tags, not by addresses: whoever knows its state may send
requests in it. A peer learns of the new host by the Contact and the SDP of a re-INVITE (section 12.2: a target
refresh); until then what it sends goes to the old one. So `moved` puts our own addresses in place of the lost host's,
leaves a gap in CSeq, and forgets connections, which ended with that host.

A 2xx that may not have been acknowledged is repeated once, with our Contact and description (`repeat_answer`): whoever
has seen it before takes it for a repetition and sends the ACK again, whoever has not learns of us at once. The ACK of a
peer's 2xx is repeated too (`Dialog.ack_again`).
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from trunkline.sip.client_invite import ClientInvite
from trunkline.sip.dialog_state import DialogState
from trunkline.sip.flow import Flow
from trunkline.sip.headers import Field
from trunkline.sip.incoming import response_flows
from trunkline.sip.message import REASONS, Request, Response, parse
from trunkline.sip.server_invite import ServerInvite
from trunkline.sip.uri import is_secure

if TYPE_CHECKING:
    from trunkline.sip.dialog import Dialog
    from trunkline.sip.stack import Stack

GONE: Final = 1
"""Number of a connection that ended with its host: no transport ever gives it (they count from the time)."""
REQUESTS_PER_S: Final = 1
"""Most requests that a host sends in a dialog, on average over a call: refreshes of the session, INFO, re-INVITEs."""
BEHIND_NAT: Final = "its peer is behind a NAT, which knows the lost host only"
OVER_CONNECTION: Final = "its connection ended with the lost host, and its peer names no address to connect to"


def moved_flow(flow: Flow, stack: "Stack") -> Flow:
    """A lost host's way to a peer, from here."""
    local = stack.local(flow.transport, flow.remote[0])
    return flow._replace(local=local, id=GONE if flow.id else 0)


def moved(state: DialogState, stack: "Stack", age_s: float) -> DialogState:
    """A lost host's dialog as it is here. `age_s`: since its answer; CSeq goes on above whatever may have been sent in
    that time, beside the gap that `Stack.adopt` leaves."""
    return msgspec.structs.replace(
        state,
        flow=moved_flow(state.flow, stack),
        ack_flow=moved_flow(state.ack_flow, stack) if state.ack_flow is not None else None,
        answer=b"",
        answer_flow=None,
        local_cseq=state.local_cseq + REQUESTS_PER_S * int(max(0.0, age_s)),
    )


def obstacle(state: DialogState) -> str:
    """What may keep requests of another host from reaching a peer; empty: nothing. Through a proxy that stays in the
    route (Record-Route) there is none."""
    if state.routes or not state.behind_nat:
        return ""
    return OVER_CONNECTION if state.flow.reliable else BEHIND_NAT


def repeat_answer(stack: "Stack", stored: DialogState, sdp: bytes) -> None:
    """Send the lost host's 2xx once more, as ours. Does nothing where it was acknowledged."""
    if not stored.answer or stored.answer_flow is None:
        return
    response, flow = parse(stored.answer), moved_flow(stored.answer_flow, stack)
    if not isinstance(response, Response):
        return
    response.headers.set("Contact", stack.contact(flow, is_secure(stored.target)))
    response.body = sdp
    stack.traced(stored.call_id, True, f"{response.status} {response.reason}")
    stack.transmit(response.encode(), flow)


def repeat_ack(dialog: "Dialog") -> None:
    """Send the ACK of our INVITE's 2xx again: it may not have left."""
    dialog.ack_again(dialog.state().invite_cseq)


def refuse(stack: "Stack", invite: bytes, flow: Flow, status: int, headers: Sequence[Field] = ()) -> None:
    """A final response to an INVITE that came to a lost host, by its stored Via. Its ACK goes there, so that nothing is
    waited for. Raises MalformedMessage."""
    request, way = parse(invite), moved_flow(flow, stack)
    if not isinstance(request, Request):
        return
    back, reopen = response_flows(request.via, way)
    data = stack.response(request, status, "", stack.token(), headers)
    stack.traced(request.call_id, True, f"{status} {REASONS.get(status, '')}")
    if not stack.transmit(data, back) and reopen is not None:
        stack.transmit(data, reopen)


def withdraw(stack: "Stack", invite: bytes, flow: Flow, early: Sequence[bytes] = ()) -> None:
    """Cancel an INVITE that a lost host sent, and hang up on whoever has picked up. `early`: provisional responses that
    it got (`ClientInvite.withdraw`). Raises MalformedMessage."""
    request = parse(invite)
    assert isinstance(request, Request)
    resumed = ClientInvite.resumed(stack, request, moved_flow(flow, stack))
    resumed.withdraw([response for response in map(parse, early) if isinstance(response, Response)])


def abandon(stack: "Stack", call_ids: Collection[str]) -> None:
    """Forget everything of these calls, without a word to anyone: another host has them."""
    for dialog in [one for one in stack._dialogs.values() if one.call_id in call_ids]:
        dialog.abandon()
    for call in [one for one in stack._calls.values() if one.call_id in call_ids]:
        call.abandon()
    for transaction in [one for one in stack._client.values() if one.request.call_id in call_ids]:
        transaction.done()
    for server in list(stack._server.values()):
        invite = server.invite
        if isinstance(invite, ServerInvite) and invite.request.call_id in call_ids:
            invite.abandon()
