"""What is owed to accounts' own SMPP clients, in the same durable way as webhooks.

A message that came over SMPP has no status callback URL; in its place stands what receipts its client asked for,
`smpp:ACCOUNT#REGISTERED.PARTS.ID`. A message to a number without any webhook is owed to the account's clients, if it
has any. Both wait in the delivery lane `smpp:ACCOUNT`, which is open while a client that receives is bound.
"""

from typing import Final, NamedTuple

from trunkline.model.message import Message
from trunkline.storage.queue import Owed

SCHEME: Final = "smpp:"
RECEIPT: Final = "smpp-receipt"
"""Kind of an owed receipt; its request is that of a status callback."""
INBOUND: Final = "smpp-inbound"
"""Kind of an owed received message; it is read from its record, so that a redaction reaches it."""

_SUCCESS: Final = frozenset({"delivered"})
_FAILURE: Final = frozenset({"undelivered", "failed", "canceled"})
_WANTED: Final = {1: _SUCCESS | _FAILURE, 2: _FAILURE, 3: _SUCCESS}
"""registered_delivery, bits 0 and 1 (SMPP 3.4 §5.2.17; 3 is SMPP 5.0's) -> statuses that owe a receipt."""
_INTERMEDIATE: Final = 0x10


class Wish(NamedTuple):
    """What a client asked for with a submit."""

    registered: int
    """registered_delivery."""
    parts: int = 0
    """Submits that the message came in, each of which has an id and gets a receipt; 0: one, with the SID as its id."""
    message_id: str = ""
    """The id that the client was given, where it is not the SID (submit_multi)."""


def lane(account_sid: str) -> str:
    """The delivery lane of an account's clients."""
    return SCHEME + account_sid


def callback(account_sid: str, wish: Wish) -> str:
    """What stands in `Message.status_callback`; empty when no receipt is wanted."""
    if not wish.registered & 0x13:
        return ""
    return f"{SCHEME}{account_sid}#{wish.registered}.{wish.parts}.{wish.message_id}"


def read(status_callback: str) -> Wish:
    """What `callback` wrote. Raises ValueError."""
    registered, parts, message_id = status_callback.partition("#")[2].split(".", 2)
    return Wish(int(registered), int(parts), message_id)


def wants(status_callback: str, status: str) -> bool:
    """Whether a status owes this client a receipt."""
    registered = read(status_callback).registered
    if status == "sent":
        return bool(registered & _INTERMEDIATE)
    return status in _WANTED.get(registered & 3, ())


def owed_inbound(message: Message) -> Owed:
    """The delivery of a received message to the account's clients."""
    return Owed(
        sid=message.sid, account=message.account_sid, kind=INBOUND, host=lane(message.account_sid), request=b"{}"
    )
