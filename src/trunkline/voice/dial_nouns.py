"""<Number> and <Sip> inside <Dial>: whom to call, and what goes with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from trunkline.twiml import kinds
from trunkline.twiml.schema import SCHEMA_WARNING, Attribute, Notes, Value, read_attributes, shown
from trunkline.twiml.xmltree import Element
from trunkline.voice.callbacks import EVENTS
from trunkline.voice.caller_id import passes

INVALID_NUMBER_METHOD: Final = 13221
INVALID_DIGITS: Final = 13222
INVALID_SIP_METHOD: Final = 13241
INVALID_SIP_URI: Final = 13243
INVALID_LOGIN: Final = 13249
TOO_MANY_URIS: Final = 13250
TOO_MANY_HEADERS: Final = 13251
INVALID_HEADER: Final = 13252
HEADER_TOO_LONG: Final = 13253
INVALID_NESTED: Final = 13215
MAX_URIS: Final = 10
"""<Uri> in one <Sip>."""
MAX_HEADERS: Final = 20
"""<Header> in one <Sip>."""
MAX_HEADER: Final = 1024
"""Characters of a header, name and value."""
MAX_LOGIN: Final = 255
NOT_YET: Final = ("Application", "Client", "Conference", "Queue", "Sim", "WhatsApp")
"""Nouns of Twilio's that are not there yet."""

_DIGITS: Final = re.compile(r"[0-9A-Da-d*#wW]{1,200}", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)


def digits(raw: str) -> str | None:
    """Keys to press (w: 0.5 s, W: 1 s)."""
    return raw if _DIGITS.fullmatch(raw) else None


def events(*allowed: str) -> Callable[[str], tuple[str, ...] | None]:
    """Names separated by white space, in the order of `allowed`."""

    def parse(raw: str) -> tuple[str, ...] | None:
        named = set(raw.replace(",", " ").split())
        return tuple(name for name in allowed if name in named) if named and named <= set(allowed) else None

    return parse


def _login(raw: str) -> str | None:
    return raw if len(raw) <= MAX_LOGIN and raw.isprintable() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SipUri:
    """One address of a <Sip>."""

    uri: str
    username: str = ""
    password: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A <Number> or <Sip>. URLs as written."""

    number: str = ""
    """As written; empty: `uris` are called."""
    uris: tuple[SipUri, ...] = ()
    """In the order in which they are tried."""
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""
    method: str = "POST"
    send_digits: str = ""
    status_callback: str = ""
    status_callback_method: str = "POST"
    status_callback_event: tuple[str, ...] = ()
    machine_detection: str = ""
    amd_status_callback: str = ""
    amd_status_callback_method: str = "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotYet:
    """A noun that is known, but not there yet."""

    name: str


_PROGRESS: Final = (
    Attribute("url", "url", kinds.url, default=""),
    Attribute("statusCallback", "status_callback", kinds.url, default=""),
    Attribute("statusCallbackMethod", "status_callback_method", kinds.method, default="POST"),
    Attribute("statusCallbackEvent", "status_callback_event", events(*EVENTS), default=()),
    Attribute("machineDetection", "machine_detection", kinds.text, default=""),
    Attribute("amdStatusCallback", "amd_status_callback", kinds.url, default=""),
    Attribute("amdStatusCallbackMethod", "amd_status_callback_method", kinds.method, default="POST"),
    *(
        Attribute(name, "_", kinds.text)
        for name in (
            "machineDetectionTimeout", "machineDetectionSpeechThreshold", "machineDetectionSpeechEndThreshold",
            "machineDetectionSilenceTimeout",
        )
    ),
)  # fmt: skip
NUMBER: Final = (
    *_PROGRESS,
    Attribute("method", "method", kinds.method, default="POST", invalid_code=INVALID_NUMBER_METHOD),
    Attribute("sendDigits", "send_digits", digits, default="", invalid_code=INVALID_DIGITS),
    Attribute("byoc", "_", kinds.text),
)
SIP: Final = (
    *_PROGRESS,
    Attribute("method", "method", kinds.method, default="POST", invalid_code=INVALID_SIP_METHOD),
    Attribute("username", "username", _login, default="", invalid_code=INVALID_LOGIN),
    Attribute("password", "password", _login, default="", invalid_code=INVALID_LOGIN),
)
URI: Final = (
    Attribute("priority", "priority", kinds.whole(0, 65_535), default=0),
    Attribute("weight", "weight", kinds.whole(0, 65_535), default=0),
    Attribute("username", "username", _login, default="", invalid_code=INVALID_LOGIN),
    Attribute("password", "password", _login, default="", invalid_code=INVALID_LOGIN),
)
HEADER: Final = (
    Attribute("name", "name", kinds.text, default=""),
    Attribute("value", "value", kinds.text, default=""),
)


def build(element: Element, notes: Notes) -> Target | NotYet | None:
    """The noun that an element in <Dial> is; None, with a note, when it is none."""
    if element.name == "Number":
        values = _values(element, NUMBER, notes)
        return Target(number=element.text, **values)
    if element.name == "Sip":
        return _sip(element, notes)
    if element.name in NOT_YET:
        return NotYet(name=element.name)
    notes.add(INVALID_NESTED, f"element <{element.name[:60]}> is not allowed in <Dial>", element)
    return None


def _values(element: Element, table: tuple[Attribute, ...], notes: Notes) -> dict[str, Value]:
    values = read_attributes(element, table, notes) or {}
    values.pop("_", None)
    return values


def _sip(element: Element, notes: Notes) -> Target:
    values = _values(element, SIP, notes)
    username, password = values.pop("username"), values.pop("password")
    uris: list[tuple[int, int, SipUri]] = []
    if element.text:
        uris.append((-1, 0, SipUri(uri=element.text, username=username, password=password)))
    headers: dict[str, str] = {}
    for child in element.children:
        if child.name == "Uri":
            own = _values(child, URI, notes)
            one = SipUri(uri=child.text, username=own["username"] or username, password=own["password"] or password)
            uris.append((own["priority"], -own["weight"], one))
        elif child.name == "Headers":
            _headers(child, headers, notes)
        else:
            notes.add(INVALID_NESTED, f"element <{child.name[:60]}> is not allowed in <Sip>", child)
    uris.sort(key=lambda one: one[:2])
    if not uris:
        notes.add(INVALID_SIP_URI, "<Sip> has no address", element)
    if len(uris) > MAX_URIS:
        notes.add(TOO_MANY_URIS, f"{len(uris)} addresses in a <Sip>, at most {MAX_URIS} are called", element)
    return Target(uris=tuple(uri for _, _, uri in uris[:MAX_URIS]), headers=headers, **values)


def _headers(element: Element, headers: dict[str, str], notes: Notes) -> None:
    for child in element.children:
        if child.name != "Header":
            notes.add(SCHEMA_WARNING, f"element <{child.name[:60]}> is not allowed in <Headers>", child)
            continue
        values = _values(child, HEADER, notes)
        name, value = values["name"], values["value"]
        if _NAME.fullmatch(name) is None or not passes(name) or not value.isprintable():
            notes.add(INVALID_HEADER, f"{shown(name)} is not a header that can be sent (X-..., User-to-User)", child)
        elif len(name) + len(value) > MAX_HEADER:
            notes.add(HEADER_TOO_LONG, f"header {name} has more than {MAX_HEADER} characters", child)
        elif len(headers) >= MAX_HEADERS:
            notes.add(TOO_MANY_HEADERS, f"more than {MAX_HEADERS} headers in a <Sip>", child)
        else:
            headers[name] = value
