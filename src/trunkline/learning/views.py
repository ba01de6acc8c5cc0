"""What of a piece of work is compared, aspect by aspect: the same shape for what production did and what a learner
did, so that equal is equal."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

ROUTE, SEGMENTS, PDU, STATUS, CALLBACKS, TWIML, STEPS, REQUESTS = (
    "route", "segments", "pdu", "status", "callbacks", "twiml", "steps", "requests",
)  # fmt: skip
ASPECTS: Final = (ROUTE, SEGMENTS, PDU, STATUS, CALLBACKS, TWIML, STEPS, REQUESTS)
"""`route`: route and connector; `segments`: their number and encoding; `pdu`: the octets written; `status`: what a
message came to, with its error; `callbacks`: URL and parameters; `twiml`: the verbs of a document with their
attributes; `steps`: the verbs that a call ran; `requests`: method and URL of the documents that it asked for."""
VOLATILE: Final = frozenset({"Timestamp", "RawDlrDoneDate"})
"""Parameters that tell when something was done."""
GEOGRAPHY: Final = frozenset(
    f"{who}{what}" for who in ("From", "To", "Caller", "Called") for what in ("City", "State", "Zip", "Country")
)
"""Parameters that the inventory of numbers decides, which a learner does not have."""
PLACE: Final = frozenset({"line", "column"})
"""Of a verb: not what it does."""


def callbacks(requests: Iterable[bytes], without: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """URL, method and parameters of owed requests."""
    found, without = [], without | VOLATILE
    for request in requests:
        told = orjson.loads(request)
        params = [[str(name), str(value)] for name, value in told.get("params", ()) if name not in without]
        found.append({"url": told.get("url", ""), "method": told.get("method", "POST"), "params": params})
    return found


def message(record: Mapping[str, Any], status: str, owed: Iterable[bytes]) -> dict[str, Any]:
    """The aspects of a message that its record tells."""
    return {
        ROUTE: [record.get("route", ""), record.get("connector", "")],
        SEGMENTS: [record.get("num_segments", 1), record.get("encoding", "gsm7")],
        STATUS: [status, record.get("error_code", 0)],
        CALLBACKS: callbacks(owed),
    }


def pdus(written: Sequence[bytes]) -> list[str]:
    """PDUs in hexadecimal, their sequence numbers 0."""
    return [(one[:12] + bytes(4) + one[16:]).hex() for one in written]


def steps_of(verbs: Iterable[Any]) -> list[str]:
    """Verbs as one line of JSON each: their name and whatever is not as by default, but not where they stand."""
    return [orjson.dumps(_plain(verb), option=orjson.OPT_SORT_KEYS).decode() for verb in verbs]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found: dict[str, Any] = {"verb": type(value).__name__}
        for field in dataclasses.fields(value):
            own = getattr(value, field.name)
            if field.name not in PLACE and (field.default is dataclasses.MISSING or own != field.default):
                found[field.name] = _plain(own)
        return found
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, set | frozenset):
        return sorted(str(own) for own in value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def ran(record: Mapping[str, Any]) -> list[str]:
    """The verbs that a call ran, by its timeline."""
    return [entry["what"] for entry in record.get("timeline", ()) if entry.get("kind") == "twiml"]
