"""The machinery behind a verb's attribute table: a verb is described as data, checked here.

A verb's file holds its typed record, its table of attributes and one `SPEC`. Each attribute names its kind
(a function from text to value, None when it is not valid), its default and the code of the warning that a
bad value gives. What a bad value does is one of: the default applies (usual), or the whole verb is dropped
(`required=True`: without it the verb makes no sense).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from trunkline.twiml.document import DocumentKind, TwimlWarning, Verb
from trunkline.twiml.xmltree import Element

SCHEMA_WARNING: Final = 12200
MAX_WARNINGS: Final = 100  # of one document
_SHOWN_CHARACTERS: Final = 60  # of a foreign value in a warning

Value = Any
Kind = Callable[[str], Value]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One row of a verb's table; `field` is the record's field."""

    name: str
    field: str
    kind: Kind
    default: Value = None
    invalid_code: int = SCHEMA_WARNING
    required: bool = False


class Notes:
    """Warnings collected while a document is read; beyond the bound they are dropped."""

    def __init__(self) -> None:
        self.items: list[TwimlWarning] = []

    def add(self, code: int, message: str, element: Element) -> None:
        """Note a warning at the element's place."""
        if len(self.items) < MAX_WARNINGS:
            self.items.append(TwimlWarning(code, message, element.line, element.column))


@dataclass(frozen=True, slots=True)
class Noun:
    """An element inside a verb."""

    name: str
    attributes: tuple[Attribute, ...] = ()
    has_text: bool = False
    children: Mapping[str, Noun] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VerbSpec:
    """An element directly under <Response>.

    `build(element, values, notes)` gets the checked attributes by field name and returns the record, or None
    when the verb cannot run (it has then noted why).
    """

    name: str
    kinds: frozenset[DocumentKind]
    build: Callable[[Element, dict[str, Value], Notes], Verb | None]
    attributes: tuple[Attribute, ...] = ()
    has_text: bool = False
    children: Mapping[str, Noun] = field(default_factory=dict)
    unchecked: bool = False
    """Whether its attributes are left alone (`build` gets none): the verb is known, but not what it takes."""


def shown(text: str) -> str:
    """A foreign value as it may stand in a warning: short and on one line."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def read_attributes(element: Element, table: tuple[Attribute, ...], notes: Notes) -> dict[str, Value] | None:
    """Values by field name, defaults filled in; None when a required attribute is bad."""
    values: dict[str, Value] = {}
    known = set()
    usable = True
    for attribute in table:
        known.add(attribute.name)
        raw = element.attributes.get(attribute.name)
        value = attribute.default if raw is None else attribute.kind(raw.strip())
        if raw is not None and value is None:
            message = f"{shown(raw)} is not a valid value of attribute {attribute.name} of <{element.name}>"
            notes.add(attribute.invalid_code, message, element)
            usable = usable and not attribute.required
            value = attribute.default
        values[attribute.field] = value
    for name in element.attributes:
        if name not in known and not is_namespace(name):
            notes.add(SCHEMA_WARNING, f"attribute {shown(name)} is not allowed in <{element.name}>", element)
    return values if usable else None


def is_namespace(name: str) -> bool:
    """xmlns, xmlns:x and xsi:... are written by XML tools and mean nothing to us."""
    return name == "xmlns" or name.startswith(("xmlns:", "xsi:", "xml:"))


def check_content(element: Element, spec: VerbSpec | Noun, notes: Notes) -> list[Element]:
    """The children the table knows, in order; unknown ones and stray text are noted."""
    if not spec.has_text and element.text:
        notes.add(SCHEMA_WARNING, f"text is not allowed in <{element.name}>", element)
    kept: list[Element] = []
    for child in element.children:
        noun = spec.children.get(child.name)
        if noun is None:
            message = f"element <{child.name[:_SHOWN_CHARACTERS]}> is not allowed in <{element.name}>"
            notes.add(SCHEMA_WARNING, message, child)
            continue
        kept.append(child)
    return kept


def read_noun(element: Element, noun: Noun, notes: Notes) -> dict[str, Value] | None:
    """A child's attributes checked like a verb's, and its content with it."""
    values = read_attributes(element, noun.attributes, notes)
    check_content(element, noun, notes)
    return values
