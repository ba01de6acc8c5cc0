"""What goes when an account is closed: its SIP domains and trunks, whose names are free again, and all passwords."""

from typing import Final

from trunkline.model.record import Record
from trunkline.model.sip_domain import (
    SipCredential,
    SipCredentialList,
    SipDomain,
    SipIpAccessControlList,
    SipIpAddress,
    SipMapping,
)
from trunkline.model.sip_trunk import OriginationUrl, SipTrunk
from trunkline.storage.database import Database

PAGE: Final = 200
"""Records deleted in one transaction."""
KINDS: Final[tuple[type[Record], ...]] = (
    SipMapping, SipDomain, SipTrunk, OriginationUrl, SipCredential, SipCredentialList, SipIpAddress,
    SipIpAccessControlList,
)  # fmt: skip
"""In this order: nobody is let in once the first are gone."""


async def remove_sip(database: Database, account_sid: str) -> None:
    """Delete them all; repeating it finishes what was interrupted."""
    for kind in KINDS:
        while batch := await database.find(kind, {"account_sid": account_sid}, limit=PAGE):
            await database.delete(*batch)
