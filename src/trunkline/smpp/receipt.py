"""Delivery receipts in the dialects SMSCs speak (SMPP 3.4 §5.2.12, §5.3.2, appendix B).

The TLVs receipted_message_id, message_state and network_error_code are believed first; what they leave open comes
from the text, whose form the specification calls "SMSC vendor specific": fields may be missing, in any case, with
10, 12 or 14 digit dates, an alphanumeric err, and a message id in another radix than submit_sm_resp gave.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec

from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p

MAX_TEXT_OCTETS: Final = 1024  # of a receipt that is looked at
MAX_ID_DIGITS: Final = 64


class ReceiptState(StrEnum):
    """§5.2.28 and, for SKIPPED, SMPP 5.0 §4.7.15."""

    ENROUTE = "enroute"
    DELIVERED = "delivered"
    EXPIRED = "expired"
    DELETED = "deleted"
    UNDELIVERABLE = "undeliverable"
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"
    REJECTED = "rejected"
    SKIPPED = "skipped"


FINAL_STATES: Final = frozenset(ReceiptState) - {ReceiptState.ENROUTE, ReceiptState.ACCEPTED}

_BY_NUMBER: Final = {
    0: ReceiptState.ENROUTE,  # 5.0: scheduled
    1: ReceiptState.ENROUTE,
    2: ReceiptState.DELIVERED,
    3: ReceiptState.EXPIRED,
    4: ReceiptState.DELETED,
    5: ReceiptState.UNDELIVERABLE,
    6: ReceiptState.ACCEPTED,
    7: ReceiptState.UNKNOWN,
    8: ReceiptState.REJECTED,
    9: ReceiptState.SKIPPED,
}
_BY_NAME: Final = {
    "ENROUTE": ReceiptState.ENROUTE,
    "EN_ROUTE": ReceiptState.ENROUTE,
    "ENROUTED": ReceiptState.ENROUTE,
    "SCHEDULED": ReceiptState.ENROUTE,
    "BUFFERED": ReceiptState.ENROUTE,
    "BUFFRED": ReceiptState.ENROUTE,
    "PENDING": ReceiptState.ENROUTE,
    "DELIVRD": ReceiptState.DELIVERED,
    "DELIVERD": ReceiptState.DELIVERED,
    "DELIVERED": ReceiptState.DELIVERED,
    "EXPIRED": ReceiptState.EXPIRED,
    "EXPIRD": ReceiptState.EXPIRED,
    "DELETED": ReceiptState.DELETED,
    "UNDELIV": ReceiptState.UNDELIVERABLE,
    "UNDELIVD": ReceiptState.UNDELIVERABLE,
    "UNDELIVERED": ReceiptState.UNDELIVERABLE,
    "UNDELIVERABLE": ReceiptState.UNDELIVERABLE,
    "FAILED": ReceiptState.UNDELIVERABLE,
    "ACCEPTD": ReceiptState.ACCEPTED,
    "ACCEPTED": ReceiptState.ACCEPTED,
    "UNKNOWN": ReceiptState.UNKNOWN,
    "REJECTD": ReceiptState.REJECTED,
    "REJECTED": ReceiptState.REJECTED,
    "SKIPPED": ReceiptState.SKIPPED,
}


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """One receipt. `message_id` is as received: pass it through `normaliser`.

    `error` is the network error as text, "" when none was given, `error_code` its number when it is one.
    `intermediate`: an intermediate notification (0x20), never final. Dates are as received.
    """

    message_id: str
    state: ReceiptState
    intermediate: bool
    error: str
    error_code: int | None
    submit_date: str
    done_date: str
    text: str
    raw_state: str

    @property
    def submit_ms(self) -> int | None:
        """The submit date in Unix ms, taken for UTC."""
        return parse_date(self.submit_date)

    @property
    def done_ms(self) -> int | None:
        """The done date in Unix ms, taken for UTC."""
        return parse_date(self.done_date)

    @property
    def final(self) -> bool:
        """Whether nothing more is to be expected."""
        return not self.intermediate and self.state in FINAL_STATES


def is_receipt(esm_class: int) -> bool:
    """Whether a deliver_sm or data_sm is a receipt or an intermediate notification, not a message."""
    return esm_class & c.ESM_TYPE_MASK in (c.ESM_RECEIPT, c.ESM_INTERMEDIATE)


# The whole of appendix B in one go; what does not match is searched field by field.
_STRICT: Final = re.compile(
    r"id:(\S*) sub:\S* dlvrd:\S* submit date:(\S*) done date:(\S*) stat:(\S*) err:(\S*)(?: text:(.*))?",
    re.IGNORECASE | re.DOTALL,
)
_FIELD: Final = re.compile(
    r"(?:^|(?<=[\s,;]))(id|sub|dlvrd|submit[ _]?date|done[ _]?date|stat(?:us)?|err(?:or)?|text)[:=][ ]?"
    r"((?<=text[:=]).*|(?<=text[:=] ).*|[^\s,;]*)",
    re.IGNORECASE | re.DOTALL,
)
_NAMES: Final = {
    "id": "id",
    "submitdate": "submit",
    "donedate": "done",
    "stat": "stat",
    "status": "stat",
    "err": "err",
    "error": "err",
    "text": "text",
}


def parse(pdu: p.DeliverSm | p.DataSm) -> Receipt | None:
    """The receipt in a PDU, `None` when esm_class says it is none. Never raises.

    A receipt that names no message has an empty `message_id`; a state nobody knows is `UNKNOWN`, see `raw_state`.
    """
    kind = pdu.esm_class & c.ESM_TYPE_MASK
    if kind != c.ESM_RECEIPT and kind != c.ESM_INTERMEDIATE:
        return None
    message_id, submit, done, stat, err, text = _fields(_text(pdu))
    state: ReceiptState | None = None
    error_code: int | None = None
    for tag, value in pdu.tlvs:
        if tag == c.TAG_RECEIPTED_MESSAGE_ID:
            message_id = value.split(b"\0", 1)[0].decode("latin-1").strip() or message_id
        elif tag == c.TAG_MESSAGE_STATE and value:
            state = _BY_NUMBER.get(value[-1])
        elif tag == c.TAG_NETWORK_ERROR_CODE and len(value) == 3:
            error_code = value[1] << 8 | value[2]
    if error_code is not None:
        err = err or f"{error_code:03d}"
    elif err.isdecimal() and err.isascii() and len(err) <= MAX_ID_DIGITS:
        error_code = int(err)
    return Receipt(
        message_id,
        state or state_of(stat),
        kind == c.ESM_INTERMEDIATE,
        err,
        error_code,
        submit,
        done,
        text,
        stat,
    )


def state_of(name: str) -> ReceiptState:
    """The state a receipt's stat field names, in any case, or by its number."""
    known = _BY_NAME.get(name) or _BY_NAME.get(name.upper())
    if known is None and len(name) == 1 and name in "0123456789":
        known = _BY_NUMBER[int(name)]
    return known or ReceiptState.UNKNOWN


def parse_date(text: str) -> int | None:
    """Unix ms of YYMMDDhhmm, YYMMDDhhmmss, YYYYMMDDhhmm or YYYYMMDDhhmmss, taken for UTC; `None` otherwise."""
    if not text.isdecimal() or not text.isascii():
        return None
    if len(text) == 10 or len(text) == 12:
        moment = _moment("20" + text)
        if moment is not None or len(text) == 10:
            return moment
    return _moment(text) if len(text) in (12, 14) else None


def _moment(digits: str) -> int | None:
    try:
        moment = datetime(
            int(digits[:4]),
            int(digits[4:6]),
            int(digits[6:8]),
            int(digits[8:10]),
            int(digits[10:12]),
            int(digits[12:] or 0),
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return int(moment.timestamp()) * 1000


def _text(pdu: p.DeliverSm | p.DataSm) -> str:
    payload = pdu.payload[:MAX_TEXT_OCTETS]
    if pdu.esm_class & c.ESM_UDHI and payload:
        payload = payload[1 + payload[0] :]
    if pdu.data_coding == 8:
        return payload.decode("utf-16-be", "replace")
    return payload.decode("latin-1")


def _fields(text: str) -> tuple[str, str, str, str, str, str]:
    """id, submit date, done date, stat, err and text, empty where missing."""
    match = _STRICT.match(text)
    if match is not None:
        message_id, submit, done, stat, err, rest = match.groups()
        return message_id, submit, done, stat, err, rest or ""
    found: dict[str, str] = {}
    for name, value in _FIELD.findall(text):
        key = _NAMES.get(name.lower().replace(" ", "").replace("_", ""))
        if key is not None:
            found.setdefault(key, value)
    get = found.get
    return get("id", ""), get("submit", ""), get("done", ""), get("stat", ""), get("err", ""), get("text", "")


# --- message identifiers


def _hex_to_dec(message_id: str) -> str:
    return str(int(message_id, 16)) if _is_number(message_id, _HEX) else message_id


def _dec_to_hex(message_id: str) -> str:
    return f"{int(message_id):x}" if _is_number(message_id, _DECIMAL) else message_id


def _strip_zeros(message_id: str) -> str:
    return message_id.lstrip("0") or message_id[:1]


def _is_number(message_id: str, form: "re.Pattern[str]") -> bool:
    return form.fullmatch(message_id) is not None


_HEX: Final = re.compile(rf"[0-9A-Fa-f]{{1,{MAX_ID_DIGITS}}}")
_DECIMAL: Final = re.compile(rf"[0-9]{{1,{MAX_ID_DIGITS}}}")

DIALECTS: Final[dict[str, Callable[[str], str]]] = {
    "as_is": str,
    "lower": str.lower,
    "strip_zeros": _strip_zeros,
    "hex_to_dec": _hex_to_dec,
    "dec_to_hex": _dec_to_hex,
}
"""How a route's message ids are brought to one form. An id that is no such number stays as it is."""


class UnknownDialectError(ValueError):
    """A route names a message id dialect that does not exist."""


def normaliser(dialect: str) -> Callable[[str], str]:
    """The function for a dialect, or for several joined by "+" and applied in turn ("lower+strip_zeros").

    Raises `UnknownDialectError`. Apply one to the ids of submit_sm_resp, another to those of receipts.
    """
    try:
        steps = [DIALECTS[name] for name in dialect.split("+")]
    except KeyError as missing:
        raise UnknownDialectError(f"no message id dialect {missing}; there are {', '.join(DIALECTS)}") from None
    if len(steps) == 1:
        return steps[0]

    def apply(message_id: str) -> str:
        for step in steps:
            message_id = step(message_id)
        return message_id

    return apply


def normalise_id(message_id: str, dialect: str) -> str:
    """`normaliser(dialect)(message_id)`."""
    return normaliser(dialect)(message_id)
