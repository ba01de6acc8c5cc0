"""Customers' SIP trunks (Twilio's Elastic SIP Trunking): how a PBX of an account calls out through us and is called.

Termination: the PBX calls `number@name.pstn...`; lists that are mapped to the trunk (`SipMapping`, purpose `calls`) say
who may. Origination: calls to the trunk's numbers go to its origination URLs. Not to be confused with the operator's
own trunks (`[[trunks]]`), by which all calls leave.
"""

from enum import StrEnum
from typing import ClassVar, Final

from trunkline.model.record import Record

TRUNK_TWILIO_SUFFIX: Final = "pstn.twilio.com"
"""What trunks' domains end with at Twilio; always taken."""
DO_NOT_RECORD: Final = "do-not-record"
RECORDING_MODES: Final = (
    DO_NOT_RECORD,
    "record-from-ringing",
    "record-from-answer",
    "record-from-ringing-dual",
    "record-from-answer-dual",
)
TRIMS: Final = ("trim-silence", "do-not-trim")
DISABLE_ALL: Final = "disable-all"
ENABLE_ALL: Final = "enable-all"
SIP_ONLY: Final = "sip-only"
TRANSFER_MODES: Final = (DISABLE_ALL, ENABLE_ALL, SIP_ONLY)
"""Whether its PBX may transfer calls by REFER: nowhere, anywhere, to `sip:` addresses."""
FROM_TRANSFEREE: Final = "from-transferee"
TRANSFER_CALLER_IDS: Final = (FROM_TRANSFEREE, "from-transferor")
"""Whose number a transferred call shows: that of who is transferred, or the one the PBX had in the call."""
CUSTOMER_TRUNK: Final = "customer_trunk"
"""Key of a call's `extra`: its trunk's `sid`, and its `direction` as the API shows it."""


class TrunkCall(StrEnum):
    """The two directions of a trunk's calls, as the API shows them."""

    TERMINATING = "trunking-terminating"
    """From the PBX."""
    ORIGINATING = "trunking-originating"
    """To the PBX."""


class SipTrunk(Record, kw_only=True):
    """A trunk (spec `trunking.v1.trunk`)."""

    TABLE: ClassVar[str] = "sip_trunks"

    friendly_name: str = ""
    domain_name: str = ""
    """The full host, lower case; empty: there is no termination."""
    name: str | None = None
    """`domain_name` without its suffix, unique; None where there is none."""
    disaster_recovery_url: str = ""
    disaster_recovery_method: str = "POST"
    secure: bool = False
    """Whether its calls are taken and made over TLS with SRTP only."""
    transfer_mode: str = DISABLE_ALL
    transfer_caller_id: str = FROM_TRANSFEREE
    recording_mode: str = DO_NOT_RECORD
    recording_trim: str = "do-not-trim"


class OriginationUrl(Record, kw_only=True):
    """Where calls to a trunk's numbers go (spec `trunking.v1.trunk.origination_url`)."""

    TABLE: ClassVar[str] = "sip_origination_urls"

    trunk_sid: str
    sip_url: str
    friendly_name: str = ""
    priority: int = 10
    """0 to 65535, the lowest first."""
    weight: int = 10
    """1 to 65535: share among URLs of equal priority."""
    enabled: bool = True
