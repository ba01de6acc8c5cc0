"""How the session of a leg changes while it lasts: re-INVITE and UPDATE, early media, a late answer, another phone in
its place (Replaces). What `LiveCall` hears of its dialog is done here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from trunkline.model.call import Status
from trunkline.sip import offer_answer
from trunkline.sip.errors import NotAcceptable
from trunkline.voice import securing, timeline
from trunkline.voice.checkpoints import save_leg

if TYPE_CHECKING:
    from trunkline.sip.dialog import Dialog
    from trunkline.sip.server_invite import ServerInvite
    from trunkline.voice.live import LiveCall


def changed(call: LiveCall, offer: bytes) -> bytes:
    """Hold, a moved address, another codec: our answer, or our offer if `offer` is empty. Raises NotAcceptable, which
    leaves everything as it was."""
    if call.local is None:
        raise NotAcceptable("there is no session")
    if not offer:
        if call.negotiated is None:
            return offer_answer.offer(call.local)
        sdp = call.negotiated.sdp
        call.offered = offer_answer.revise(sdp, offer_answer.offer(call.local, sdp))
        return call.offered
    negotiated = offer_answer.answer(offer, call.local)
    if call.negotiated is not None:
        sdp = offer_answer.revise(call.negotiated.sdp, negotiated.sdp)
        negotiated = msgspec.structs.replace(negotiated, sdp=sdp)
    call.media(negotiated)
    if call.dialog is not None:
        save_leg(call)
    return negotiated.sdp


def concluded(call: LiveCall, sdp: bytes) -> None:
    """The answer to an offer of ours in a 2xx has come, with the ACK."""
    if not sdp or call.local is None:
        return
    try:
        negotiated = offer_answer.conclude(call.offered or offer_answer.offer(call.local), sdp, call.local)
    except NotAcceptable as refused:
        call.note(timeline.ERROR, str(refused))
        call.hangup("no-common-codec", end=Status.FAILED)
        return
    call.media(negotiated)
    save_leg(call)


def refreshed(call: LiveCall, sdp: bytes) -> None:
    """The answer to a re-INVITE of ours that repeated our description (session timer). One that cannot be understood
    changes nothing."""
    if call.negotiated is None or call.local is None or not sdp:
        return
    try:
        negotiated = offer_answer.conclude(call.negotiated.sdp, sdp, call.local)
    except NotAcceptable as refused:
        call.note(timeline.ERROR, f"the answer to a refresh: {refused}")
        return
    call.media(negotiated)
    save_leg(call)


def heard_early(call: LiveCall) -> bool:
    """Let the caller hear audio before the call is answered: 183 with our answer to its offer, once. False where that
    cannot be: it brought no offer, or is over."""
    if call.is_up:
        return True
    if call.invite is None or call.status is not Status.RINGING or call.negotiated is None:
        return False
    if not call.audio.is_open:
        call.media(call.negotiated)
        call.invite.ring(183, sdp=call.negotiated.sdp)
    return True


def replaced(call: LiveCall, invite: ServerInvite) -> None:
    """Another phone takes the peer's place (RFC 3891): its INVITE is answered with our port, and the old dialog ends.
    The call goes on. Raises NotAcceptable."""
    local, old = call.local, call.dialog
    if local is None or old is None:
        raise NotAcceptable("there is no session")
    local = securing.renewed(local, call.trunk, invite.flow.transport, call.services.settings.sip)
    negotiated = offer_answer.answer(invite.offer, local) if invite.offer else None
    sdp = negotiated.sdp if negotiated is not None else offer_answer.offer(local)

    def store(dialog: Dialog) -> None:
        call.local = local
        call.dialog, call.source = dialog, invite.flow.remote[0]
        call.offered = b"" if negotiated is not None else sdp
        dialog.listener = call
        save_leg(call)

    dialog = invite.accept(sdp, before=store)
    if dialog.ended:
        return
    call.note(timeline.SIP, f"<- INVITE that replaces the dialog with {old.remote_target}", source=call.source)
    call.trace(dialog.call_id)
    if negotiated is not None:
        call.negotiated = None  # another phone may say the same, and be elsewhere: it is latched to anew
        call.media(negotiated)
        save_leg(call)
    old.bye()
