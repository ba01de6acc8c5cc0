"""Whom an account may call: its dialing permissions (Twilio's voice v1)."""

from typing import ClassVar, Final

from trunkline.model.record import Record
from trunkline.model.sid import derived_sid

PREFIX: Final = "DP"
LOW, SPECIAL, TOLL_FRAUD = "L", "S", "T"
"""Letters of what may be called in a country: low-risk numbers, special services, and those favoured by toll fraud."""
NORTH_AMERICA: Final = "US"
"""The country that stands for the United States and Canada, as at Twilio."""


class DialingPermissions(Record, kw_only=True):
    """One for each account that has said anything about them."""

    TABLE: ClassVar[str] = "dialing_permissions"

    inherit: bool = True
    """Whether a subaccount has its parent's."""
    countries: dict[str, str] = {}
    """ISO 3166-1 alpha-2 code -> letters; a country that is not in it has the defaults."""


def permissions_sid(account_sid: str) -> str:
    """The SID of an account's record."""
    return derived_sid(PREFIX, account_sid, "dialing")


def country_of(region: str) -> str:
    """The country that a region's permissions stand under."""
    return NORTH_AMERICA if region == "CA" else region
