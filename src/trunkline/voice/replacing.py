"""An INVITE with Replaces (RFC 3891): a phone or PBX takes the place of a leg of ours, as at the end of an attended
transfer.

Only from a source that has proved who it is, and only for a leg of its own: one of the same trunk, or of the account
whose SIP domain it has logged in to. Everybody else is told that there is no such dialog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.sip.errors import MalformedMessage, NotAcceptable
from trunkline.sip.replaces import replaces_of
from trunkline.voice import leg_changes
from trunkline.voice.live import LiveCall
from trunkline.voice.logins import Refused

if TYPE_CHECKING:
    from trunkline.model.account import Account
    from trunkline.settings import Trunk
    from trunkline.sip.server_invite import ServerInvite


def take_place(invite: ServerInvite, owner: Trunk | Account) -> LiveCall:
    """Answer the INVITE in place of the leg that it names. `owner`: who sent it, proved. Raises Refused."""
    try:
        wanted = replaces_of(invite.request)
    except MalformedMessage as error:
        raise Refused(400, error.reason) from None
    assert wanted is not None
    dialog = invite.dialog_of(wanted)
    call = dialog.listener if dialog is not None else None
    if not isinstance(call, LiveCall) or not _is_own(call, owner):
        raise Refused(481, "it replaces no dialog of its own")
    if not call.is_up:
        raise Refused(603, "the dialog that it replaces has ended")
    if wanted.early_only:
        raise Refused(486, "the dialog that it replaces was answered")
    try:
        leg_changes.replaced(call, invite)
    except NotAcceptable as refused:
        raise Refused(refused.status, str(refused)) from None
    return call


def _is_own(call: LiveCall, owner: Trunk | Account) -> bool:
    sid = getattr(owner, "sid", "")
    if sid:
        return call.trunk is None and call.account.sid == sid
    return call.trunk is not None and call.trunk.name == getattr(owner, "name", "")
