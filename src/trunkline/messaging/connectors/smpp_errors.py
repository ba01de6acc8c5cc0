"""What an SMSC's refusal means: the table from command_status to outcome (SMPP 3.4 §5.1.3).

`throttle`: the same message again, first, when the pace allows; no attempt is burnt. `retry`: trouble at the SMSC,
another attempt. `elsewhere`: this carrier will not take it, another may. `final`: the message itself is refused.
A connector's `statuses` overrule the kind, its `errors` the Twilio code. docs/howto/smpp-carrier.md shows this table.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from trunkline.messaging.connectors.base import Outcome, Rejected, Unavailable
from trunkline.smpp import constants as c

Kind = Literal["throttle", "retry", "elsewhere", "final"]

UNREACHABLE: Final = 30003
UNKNOWN_DESTINATION: Final = 30005
FILTERED: Final = 30007
UNKNOWN_ERROR: Final = 30008
TOO_LONG: Final = 30019
SENDER_NOT_PROVISIONED: Final = 30024
NOT_BY_THIS_ROUTE: Final = 21612

STATUSES: Final[dict[int, tuple[Kind, int]]] = {
    c.ESME_RTHROTTLED: ("throttle", UNKNOWN_ERROR),
    c.ESME_RMSGQFUL: ("throttle", UNKNOWN_ERROR),
    0x04: ("retry", UNKNOWN_ERROR),  # RINVBNDSTS: the SMSC has lost our bind
    c.ESME_RSYSERR: ("retry", UNKNOWN_ERROR),
    c.ESME_RSUBMITFAIL: ("retry", UNKNOWN_ERROR),
    c.ESME_RX_T_APPN: ("retry", UNKNOWN_ERROR),
    c.ESME_RUNKNOWNERR: ("retry", UNKNOWN_ERROR),
    0x102: ("retry", UNKNOWN_ERROR),  # RSERTYPUNAVAIL
    c.ESME_RINVDSTADR: ("final", UNKNOWN_DESTINATION),
    c.ESME_RDELIVERYFAILURE: ("final", UNREACHABLE),
    c.ESME_RX_R_APPN: ("final", FILTERED),
    0x101: ("final", FILTERED),  # RPROHIBITED
    c.ESME_RINVMSGLEN: ("final", TOO_LONG),
    c.ESME_RINVSRCADR: ("elsewhere", SENDER_NOT_PROVISIONED),
    0x48: ("elsewhere", SENDER_NOT_PROVISIONED),  # RINVSRCTON
    0x49: ("elsewhere", SENDER_NOT_PROVISIONED),  # RINVSRCNPI
    c.ESME_RINVCMDLEN: ("elsewhere", UNKNOWN_ERROR),
    c.ESME_RINVCMDID: ("elsewhere", UNKNOWN_ERROR),
    0x06: ("elsewhere", UNKNOWN_ERROR),  # RINVPRTFLG
    0x07: ("elsewhere", UNKNOWN_ERROR),  # RINVREGDLVFLG
    0x15: ("elsewhere", UNKNOWN_ERROR),  # RINVSERTYP
    c.ESME_RINVESMCLASS: ("elsewhere", UNKNOWN_ERROR),
    0x50: ("elsewhere", UNKNOWN_ERROR),  # RINVDSTTON
    0x51: ("elsewhere", UNKNOWN_ERROR),  # RINVDSTNPI
    0x53: ("elsewhere", UNKNOWN_ERROR),  # RINVSYSTYP
    0x61: ("elsewhere", UNKNOWN_ERROR),  # RINVSCHED
    0x62: ("elsewhere", UNKNOWN_ERROR),  # RINVEXPIRY
    c.ESME_RX_P_APPN: ("elsewhere", UNKNOWN_ERROR),
    c.ESME_RINVOPTPARSTREAM: ("elsewhere", UNKNOWN_ERROR),
    0xC1: ("elsewhere", UNKNOWN_ERROR),  # ROPTPARNOTALLWD
    0xC2: ("elsewhere", UNKNOWN_ERROR),  # RINVPARLEN
    0xC3: ("elsewhere", UNKNOWN_ERROR),  # RMISSINGOPTPARAM
    0xC4: ("elsewhere", UNKNOWN_ERROR),  # RINVOPTPARAMVAL
    0x100: ("elsewhere", UNKNOWN_ERROR),  # RSERTYPUNAUTH
    0x103: ("elsewhere", UNKNOWN_ERROR),  # RSERTYPDENIED
    0x104: ("elsewhere", UNKNOWN_ERROR),  # RINVDCS
}
DEFAULT: Final[tuple[Kind, int]] = ("retry", UNKNOWN_ERROR)
"""Any other status, vendors' own (0x400 to 0x4FF) among them: attempts are bounded, a lost message is not repaired."""


class Meaning(msgspec.Struct, frozen=True):
    """What one status leads to."""

    kind: Kind
    error_code: int
    text: str
    """Name or number of the status, for the message's record."""

    def outcome(self, taken: int) -> Outcome:
        """For a message of which `taken` segments have been accepted: those cannot be sent elsewhere any more."""
        if self.kind == "throttle":
            return Unavailable(self.text, burns_attempt=False, sent_segments=taken)
        if self.kind == "retry":
            return Unavailable(self.text, sent_segments=taken)
        return Rejected(self.error_code, self.text, try_elsewhere=self.kind == "elsewhere" and not taken)


class Statuses:
    """The table with one connector's own entries. Raises ValueError for a status that is no number."""

    def __init__(self, kinds: Mapping[str, Literal["final", "retry", "throttle"]], errors: Mapping[str, int]) -> None:
        self._kinds: dict[int, Kind] = {_number(status): kind for status, kind in kinds.items()}
        self._errors = {_number(status): code for status, code in errors.items()}
        self._known: dict[int, Meaning] = {}

    def meaning(self, status: int) -> Meaning:
        """What `status` (not 0) means on this connector."""
        known = self._known.get(status)
        if known is None:
            known = self._meaning(status)
            if len(self._known) < 1000:
                self._known[status] = known
        return known

    def _meaning(self, status: int) -> Meaning:
        kind, code = STATUSES.get(status, DEFAULT)
        own = self._errors.get(status)
        # A status that was given an error code of its own is a refusal, unless it was said to be something else.
        if own is not None and status not in STATUSES:
            kind = "final"
        return Meaning(self._kinds.get(status, kind), own or code, c.status_name(status))


def _number(text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        raise ValueError(f"{text!r} is no command_status: write it like 88 or 0x58") from None
    if not 0 < number <= 0xFFFFFFFF:
        raise ValueError(f"{text!r} is no command_status of an error")
    return number
