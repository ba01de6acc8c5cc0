"""Giving numbers back: what an account said about a number must not reach the next one.

Used by the API (release, closing an account) and by the command line.
"""

import msgspec

from trunkline.model.numbers import PhoneNumber, ServiceSender
from trunkline.storage.database import Conflict, Database

INVENTORY = (
    "sid", "created_ms", "updated_ms", "rev", "phone_number", "country", "type", "sms_enabled", "mms_enabled",
    "voice_enabled", "fax_enabled", "locality", "region", "postal_code", "rate_center", "lata", "latitude",
    "longitude", "beta", "address_requirements", "monthly_price", "connector", "messages_per_second",
)  # fmt: skip
"""What stays of a number when its account gives it back."""
RELEASE_PAGE = 200
"""Numbers of a closed account that are read at once."""


def blank(number: PhoneNumber) -> None:
    """Forget what its account said."""
    fresh = PhoneNumber(sid=number.sid, phone_number=number.phone_number)
    for name in msgspec.structs.fields(PhoneNumber):
        if name.name not in INVENTORY:
            setattr(number, name.name, getattr(fresh, name.name))


async def leave_service(database: Database, number: PhoneNumber) -> None:
    """Take the number out of its Messaging Service's pool."""
    sender = await database.get(ServiceSender, number.sid)
    if sender is not None:
        await database.delete(sender)


async def release(database: Database, number: PhoneNumber) -> None:
    """Make a number available to others. Raises Conflict when it has changed since it was read."""
    await leave_service(database, number)
    blank(number)
    await database.update(number)


async def release_all(database: Database, account_sid: str) -> None:
    """Give back every number of an account that is closed."""
    while batch := await database.find(PhoneNumber, {"account_sid": account_sid}, limit=RELEASE_PAGE):
        for number in batch:
            try:
                await release(database, number)
            except Conflict:
                continue  # changed since it was read: it comes again in the next batch
