"""What the peer wants to change in a dialog, beside ending it: re-INVITE (RFC 3261 section 14.2), UPDATE (RFC 3311),
PRACK after our 2xx (RFC 3262), REFER and NOTIFY."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trunkline.sip.body import session_description
from trunkline.sip.core import ALLOW, SDP_TYPE, SUPPORTED
from trunkline.sip.errors import NotAcceptable
from trunkline.sip.flow import Flow
from trunkline.sip.headers import Field
from trunkline.sip.message import Request
from trunkline.sip.refer import receive_notify, receive_refer
from trunkline.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from trunkline.sip.dialog import Dialog

Handler = Callable[["Dialog", Request, ServerTransaction, Flow], None]


def _later(dialog: "Dialog") -> list[Field]:
    """Section 14.2: a time between 0 and 10 seconds."""
    return [("Retry-After", str(int(dialog.stack.token()[:4], 16) % 10))]


def _offer(dialog: "Dialog", request: Request, transaction: ServerTransaction) -> bytes | None:
    """The offer of a request that may be taken now, empty if it has none; None when it was refused."""
    offer = session_description(request)
    if offer is None:
        dialog.reply(transaction, request, 415, [("Accept", SDP_TYPE)])
    return offer


def _accept(dialog: "Dialog", request: Request, transaction: ServerTransaction, flow: Flow, sdp: bytes) -> bytes:
    """200; the session timer begins anew."""
    dialog.retarget(request, flow)
    fields = [
        ("Contact", dialog.contact_for(request)),
        ("Allow", ALLOW),
        ("Supported", SUPPORTED),
        *dialog.session.agree(request, dialog.stack.config),
    ]
    if sdp:
        fields.append(("Content-Type", SDP_TYPE))
    data = dialog.reply(transaction, request, 200, fields, body=sdp)
    dialog.session.start(dialog)
    return data


def receive_reinvite(dialog: "Dialog", request: Request, transaction: ServerTransaction, flow: Flow) -> None:
    """Section 14.2."""
    if dialog.answering_invite:
        dialog.reply(transaction, request, 500, _later(dialog))
        return
    if dialog.offering:
        dialog.reply(transaction, request, 491)
        return
    offer = _offer(dialog, request, transaction)
    if offer is None:
        return
    try:
        sdp = dialog.listener.on_reinvite(offer)
    except NotAcceptable as error:  # MalformedSdp too: 400
        dialog.reply(transaction, request, error.status)
        return
    data = _accept(dialog, request, transaction, flow, sdp)
    dialog.answering(transaction, data, request.cseq[0])
    dialog.await_ack(transaction)


def receive_update(dialog: "Dialog", request: Request, transaction: ServerTransaction, flow: Flow) -> None:
    """RFC 3311 section 5.2. Without an offer it refreshes the target and the session timer alone."""
    offer = _offer(dialog, request, transaction)
    if offer is None:
        return
    sdp = b""
    if offer:
        if dialog.offering:
            dialog.reply(transaction, request, 491)
            return
        if dialog.answering_invite:
            dialog.reply(transaction, request, 500, _later(dialog))
            return
        try:
            sdp = dialog.listener.on_update(offer)
        except NotAcceptable as error:
            dialog.reply(transaction, request, error.status)
            return
    _accept(dialog, request, transaction, flow, sdp)


def receive_prack(dialog: "Dialog", request: Request, transaction: ServerTransaction, flow: Flow) -> None:
    """One that came after our 2xx was settled."""
    reliable = dialog.reliable
    if reliable is None:
        dialog.reply(transaction, request, 200 if dialog.takes_rack(request) else 481)
        return
    dialog.reply(transaction, request, reliable.acknowledge(request))
    reliable.go_on()


HANDLERS: Final[dict[str, Handler]] = {
    "INVITE": receive_reinvite,
    "UPDATE": receive_update,
    "PRACK": receive_prack,
    "REFER": lambda dialog, request, transaction, flow: receive_refer(dialog, request, transaction),
    "NOTIFY": lambda dialog, request, transaction, flow: receive_notify(dialog, request, transaction),
}
