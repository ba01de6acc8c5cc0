"""The per-call timeline: a bounded list of what happened to a call, kept in its record.

The first and the last things are the ones worth having: beyond MAX_TIMELINE entries the middle is dropped, and an
entry in its place says how much.
"""

import re
from typing import Any, Final

from trunkline.model.call import MAX_TIMELINE, TimelineEntry

SIP, TWIML, WEBHOOK, MEDIA, STATUS, DIGIT, RECORDING, ERROR = (
    "sip", "twiml", "webhook", "media", "status", "digit", "recording", "error",
)  # fmt: skip
MAX_WHAT = 300
"""Characters of an entry's line."""
MAX_SEEN = 8192
"""Characters of a line that are looked at for secrets; it is cut after that, for half a login looks like a host."""
_MIDDLE = MAX_TIMELINE // 2
_LOGIN: Final = re.compile(r"//[^/?#\s\"'<>@]*@")
_PASSWORD: Final = re.compile(r"""(\bpassword\s*=\s*)("[^"]*"?|'[^']*'?)""", re.IGNORECASE)


def masked(text: str) -> str:
    """A text that may hold URLs or TwiML, for records: without logins in URLs and without values of `password`."""
    if "@" in text:
        text = _LOGIN.sub("//", text)
    if "assword" in text:
        text = _PASSWORD.sub(r'\1"***"', text)
    return text


class Timeline:
    """Writes into the record's own list, so that whoever encodes the record has it."""

    __slots__ = ("_dropped", "_entries")

    def __init__(self, entries: list[TimelineEntry]) -> None:
        self._entries = entries
        self._dropped = 0
        if len(entries) > _MIDDLE and entries[_MIDDLE].details.get("dropped"):
            self._dropped = int(entries[_MIDDLE].details["dropped"])  # a record that was read again

    def add(self, at_ms: int, kind: str, what: str, details: dict[str, Any] | None = None) -> None:
        """Note one thing; the line is cut at MAX_WHAT, logins in URLs are left out."""
        entries = self._entries
        entries.append(TimelineEntry(at_ms, kind, masked(what[:MAX_SEEN])[:MAX_WHAT], details or {}))
        if len(entries) <= MAX_TIMELINE:
            return
        # The entry in the middle stands for those that are gone: itself and the next one leave, it comes back.
        self._dropped += 1 if self._dropped else 2
        del entries[_MIDDLE : _MIDDLE + 2]
        what = f"... {self._dropped} entries are left out here ..."
        entries.insert(_MIDDLE, TimelineEntry(at_ms, MEDIA, what, {"dropped": self._dropped}))
