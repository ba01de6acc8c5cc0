"""What a parsed document is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class DocumentKind(Enum):
    """Who asked for the document: decides which verbs it may hold."""

    MESSAGING = "messaging"
    VOICE = "voice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """What every verb has: where in the document it stands (both from 1; 0 where there is no XML)."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class TwimlWarning:
    """Something in the document was ignored or corrected; the document still runs.

    `code` is from Twilio's dictionary (12200 schema, 141xx messages), line and column count from 1.
    """

    code: int
    message: str
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class TwimlError:
    """Nothing of the document can run: 11750 too large, 12100 parse, 12101, 12102 root, 12300 type."""

    code: int
    message: str
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """Verbs in the order they run."""

    verbs: tuple[Verb, ...] = ()
    warnings: tuple[TwimlWarning, ...] = ()
