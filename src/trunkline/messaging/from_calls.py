"""Messages that calls send (`<Sms>`, `<Message>` in a voice document): checked, then taken on like any other."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.accounts.directory import Directory
from trunkline.messaging.outbound import NewMessage, Outbound
from trunkline.model import phone
from trunkline.model.errors import ApiError
from trunkline.model.message import Direction, MediaItem
from trunkline.model.phone import SenderKind
from trunkline.model.sid import MEDIA, MESSAGE_MMS, MESSAGE_SMS, new_sid
from trunkline.webhooks.overrides import split

NOT_OURS = 21606
SENDING = "sending"


class FromCalls:
    """Callable as `trunkline.voice.verbs.sms.SendMessage`."""

    def __init__(self, outbound: Outbound, directory: Directory) -> None:
        self._outbound = outbound
        self._directory = directory

    async def __call__(
        self, account: str, from_: str, to: str, body: str, *, media: Sequence[str], status_callback: str
    ) -> tuple[str, str]:
        """Take a message on; its SID and status when it is stored. Raises ApiError."""
        recipient = phone.parse_to(to)
        sender = phone.parse_from(from_)
        if sender.kind is not SenderKind.ALPHANUMERIC:
            owned = self._directory.owned_sender(account, sender.address)
            if owned is None or not getattr(owned, "sms_enabled", True):
                raise ApiError.of(NOT_OURS, from_=sender.address)
        sid = new_sid(MESSAGE_MMS if media else MESSAGE_SMS)
        message, written = self._outbound.accept(
            NewMessage(
                account_sid=account,
                from_=sender.address,
                to=recipient,
                body=body,
                direction=Direction.OUTBOUND_CALL,
                sid=sid,
                media=[MediaItem(new_sid(MEDIA), "", split(url)[0]) for url in media],
                status_callback=status_callback,
            )
        )
        await written
        return message.sid, SENDING
