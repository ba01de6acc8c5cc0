"""STOP, START and HELP: who does not want to hear from whom.

An opt-out holds for a *scope*: the Messaging Service that the sender is in, else the one sender of the account. Only
senders that can be answered have any: phone numbers and short codes.

Source: Twilio's default opt-out handling for English (keywords and confirmation texts). A keyword counts only when it
is the whole body, whatever its case and the white space around it.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from trunkline.accounts.directory import Directory
from trunkline.accounts.snapshot import Snapshot
from trunkline.model.message import Message
from trunkline.model.numbers import OptOut
from trunkline.storage.database import Database


class OptOutType(StrEnum):
    """As the inbound webhook's `OptOutType` spells it."""

    STOP = "STOP"
    START = "START"
    HELP = "HELP"


KEYWORDS: dict[str, OptOutType] = {
    **dict.fromkeys(("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"), OptOutType.STOP),
    **dict.fromkeys(("START", "YES", "UNSTOP"), OptOutType.START),
    **dict.fromkeys(("HELP", "INFO"), OptOutType.HELP),
}

REPLIES: dict[OptOutType, str] = {
    OptOutType.STOP: (
        "You have successfully been unsubscribed. You will not receive any more messages from this number. "
        "Reply START to resubscribe."
    ),
    OptOutType.START: (
        "You have successfully been re-subscribed to messages from this number. Reply HELP for help. "
        "Reply STOP to unsubscribe. Msg&Data Rates May Apply."
    ),
    OptOutType.HELP: "Reply STOP to unsubscribe. Msg&Data Rates May Apply.",
}
"""The confirmations that are sent when the operator sets no others."""

MAX_UNKEPT = 10_000
"""Opt-outs that the store refused and that are remembered as such."""
MAX_KEYWORD_CHARS = 64
"""Longer bodies are not looked at: no keyword, white space included, is that long."""


class OptOutResult(NamedTuple):
    """What an inbound message meant."""

    type: OptOutType
    reply: str
    """The confirmation to send, empty when there is none: a second STOP or a START of somebody who never left gets
    no answer, so that two machines cannot keep each other talking."""


def keyword(body: str) -> OptOutType | None:
    """The keyword family that the whole body is, if any."""
    return KEYWORDS.get(body.strip().upper()) if len(body) <= MAX_KEYWORD_CHARS else None


def can_be_answered(address: str) -> bool:
    """Whether the sender is a phone number or a short code."""
    return address.removeprefix("+").isdecimal()


def scope_of(directory: Directory, account_sid: str, sender: str) -> str:
    """The scope of opt-outs from `sender`: its service's SID, else `account/sender`."""
    service = directory.service_of_sender(account_sid, sender)
    return f"{account_sid}/{sender}" if service is None else service.sid


async def is_opted_out(database: Database, scope: str, recipient: str) -> bool:
    """Ask the database itself (the hot path asks `OptOuts.opted_out`)."""
    return await database.get(OptOut, f"{scope}:{recipient}") is not None


class OptOuts:
    """Every opt-out in memory (about 70 bytes each), written through to the database."""

    def __init__(self, database: Database, directory: Directory) -> None:
        self._database = database
        self._directory = directory
        self._scopes: dict[str, set[int | str]] = {}
        self._unkept: set[str] = set()
        """In force, but not durable: the store refused them, so the carrier brings them again."""

    async def start(self) -> None:
        """Load, and follow changes."""
        await Snapshot(self._database, OptOut, self._replace, self._change).start()

    def opted_out(self, account_sid: str, sender: str, recipient: str) -> bool:
        """Whether `recipient` has told this sender (or the service it is in) to stop."""
        if not self._scopes:
            return False
        recipients = self._scopes.get(scope_of(self._directory, account_sid, sender))
        return recipients is not None and _compact(recipient) in recipients

    def message_opted_out(self, message: Message) -> bool:
        """`opted_out` of an outbound message."""
        return self.opted_out(message.account_sid, message.from_, message.to)

    async def apply_inbound(self, account_sid: str, sender: str, recipient: str, body: str) -> OptOutResult | None:
        """Carry out what `recipient` wrote to our `sender`; None when it is no keyword.

        An opt-out is durable and in force when this returns.
        """
        kind = keyword(body)
        if kind is None or not can_be_answered(sender):
            return None
        if kind is OptOutType.HELP:
            return OptOutResult(kind, REPLIES[kind])
        out = self.opted_out(account_sid, sender, recipient)
        stop = kind is OptOutType.STOP
        scope = scope_of(self._directory, account_sid, sender)
        if out is stop and f"{scope}:{recipient}" not in self._unkept:
            return OptOutResult(kind, "")
        await self.set(account_sid, scope, recipient, out=stop)
        return OptOutResult(kind, REPLIES[kind])

    async def set(self, account_sid: str, scope: str, recipient: str, *, out: bool) -> None:
        """Opt a recipient out of a scope, or in again."""
        record = OptOut(sid=f"{scope}:{recipient}", account_sid=account_sid, scope=scope, recipient=recipient)
        if out:
            self._add(scope, recipient)  # in force before it is durable: better one message too few
            if len(self._unkept) < MAX_UNKEPT:
                self._unkept.add(record.sid)
            await self._database.put(record)
            self._unkept.discard(record.sid)
        else:
            await self._database.delete(record)
            self._drop(scope, recipient)

    def _add(self, scope: str, recipient: str) -> None:
        self._scopes.setdefault(scope, set()).add(_compact(recipient))

    def _drop(self, scope: str, recipient: str) -> None:
        recipients = self._scopes.get(scope)
        if recipients is not None:
            recipients.discard(_compact(recipient))
            if not recipients:
                del self._scopes[scope]

    def _replace(self, records: Sequence[OptOut]) -> None:
        self._scopes.clear()
        for record in records:
            self._add(record.scope, record.recipient)

    def _change(self, sid: str, record: OptOut | None) -> None:
        scope, _, recipient = sid.partition(":")
        if record is None:
            self._drop(scope, recipient)
        else:
            self._add(scope, recipient)


def _compact(recipient: str) -> int | str:
    """A phone number as an integer: a third of the memory of its text."""
    digits = recipient[1:]
    return int(digits) if recipient[:1] == "+" and digits.isdecimal() else recipient
