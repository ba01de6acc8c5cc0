"""The 200 and the ACK that wait until what another host needs is stored elsewhere.

Only where the `MemoryStore` is on other hosts (`VoiceServices.settled`): the embedded journal has everything when
`post` returns, and nothing waits for it. A 200 that waits for the PRACK of its caller is waited for in either case.
The wait is bounded: a store that is slow, or away, costs the takeover of calls that begin meanwhile, never the calls.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from trunkline.model.call import Status
from trunkline.storage.unavailable import StoreUnavailable

if TYPE_CHECKING:
    from trunkline.sip.dialog import Dialog
    from trunkline.sip.server_invite import ServerInvite
    from trunkline.voice.live import LiveCall
    from trunkline.voice.service import VoiceServices

SETTLE_S: Final = 0.05
"""Longest that a 200 or an ACK waits: a tenth of T1, after which the peer would repeat what it waits for."""

log = logging.getLogger(__name__)


async def settle(services: VoiceServices) -> bool:
    """Wait until what was posted is stored on other hosts, SETTLE_S at most; whether it is."""
    if services.settled is None:
        return True
    try:
        async with asyncio.timeout(2 * SETTLE_S):  # it promises to be back in half of that
            return await services.settled(SETTLE_S)
    except (TimeoutError, StoreUnavailable):
        return False


async def answer(call: LiveCall, sdp: bytes) -> None:
    """Pick up: stored on other hosts, then 200. The call is up once that has left, which a PRACK may have to come for.
    Whoever is interrupted while waiting leaves it under way."""
    if call.answering is None:
        invite = call.invite
        assert invite is not None
        invite.accept(sdp, before=call.store_dialog, hold=call.services.settled is not None)
        if not invite.waits:
            call.came_up(200)
            return
        call.answering = asyncio.get_running_loop().create_task(_answer(call, invite))
    await asyncio.shield(call.answering)


async def _answer(call: LiveCall, invite: ServerInvite) -> None:
    over = asyncio.Event()
    invite.on_left = over.set
    try:
        await settle(call.services)
    finally:
        invite.release()
    if invite.waits:  # its reliable 183 is not acknowledged yet
        await over.wait()
    if invite.left and call.status is Status.RINGING:
        call.came_up(200)


def acknowledge(call: LiveCall, dialog: Dialog) -> None:
    """Have the ACK of a callee's 200 wait in the same way."""
    dialog.hold_ack = True
    task = asyncio.get_running_loop().create_task(_acknowledge(call.services, dialog))
    task.add_done_callback(_told)


async def _acknowledge(services: VoiceServices, dialog: Dialog) -> None:
    try:
        await settle(services)
    finally:
        dialog.hold_ack = False
        dialog.send_ack()


def _told(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("an ACK left before its call was stored", exc_info=task.exception())
