"""XML to a small tree of elements, by expat, with every danger switched off.

No document type (so no entities but the five of XML and character references), nothing external, bounded
depth and number of elements; the size is bounded by the caller. Line and column count from 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 2000
MAX_ATTRIBUTES: Final = 64  # of one element

_VERSION: Final = re.compile(r"^<\?xml\s[^>]{0,200}?version\s*=\s*[\"']([^\"']{0,20})[\"']")

PARSE_FAILURE: Final = 12100
INVALID_VERSION: Final = 12101


class MalformedDocument(Exception):
    """The document is not XML we accept."""

    def __init__(self, message: str, line: int, column: int, code: int = PARSE_FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.code = code


@dataclass(slots=True)
class Element:
    """One element; `text` is its own character data, children's left out."""

    name: str
    attributes: dict[str, str]
    line: int
    column: int
    children: list[Element] = field(default_factory=list)
    content: list[str | Element] = field(default_factory=list)
    """Character data and children in the order of the document."""

    @property
    def text(self) -> str:
        """Character data without the white space around it."""
        return "".join([piece for piece in self.content if isinstance(piece, str)]).strip()


def read(document: str) -> Element:
    """The root element.

    Raises MalformedDocument with the place and a sentence for the author.
    """
    version = _VERSION.match(document)
    if version is not None and version[1] != "1.0":
        raise MalformedDocument(f"XML version {version[1]!r} is not 1.0", 1, 1, INVALID_VERSION)
    try:
        data = document.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedDocument("the document holds half of a surrogate pair", 1, 1) from None
    reader = _Reader()
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        text = expat.errors.messages.get(error.code, "malformed document")
        raise MalformedDocument(text, error.lineno, error.offset + 1) from None
    finally:
        del reader.parser  # else the handlers keep document and parser alive until the next cycle collection
    if reader.root is None:
        raise MalformedDocument("no element found", 1, 1)
    return reader.root


class _Reader:
    """Builds the tree. An exception in a handler stops expat and reaches the caller."""

    def __init__(self) -> None:
        # The argument overrides the declaration: the caller has already decoded the document.
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.characters
        parser.StartDoctypeDeclHandler = self.doctype
        parser.EntityDeclHandler = self.doctype
        parser.ExternalEntityRefHandler = self.external
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        self.parser = parser
        self.root: Element | None = None
        self.open: list[Element] = []
        self.count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        parser = self.parser
        line, column = parser.CurrentLineNumber, parser.CurrentColumnNumber + 1
        self.count += 1
        if self.count > MAX_ELEMENTS:
            raise MalformedDocument(f"more than {MAX_ELEMENTS} elements", line, column)
        if len(self.open) >= MAX_DEPTH:
            raise MalformedDocument(f"elements nested deeper than {MAX_DEPTH}", line, column)
        if len(attributes) > MAX_ATTRIBUTES:
            raise MalformedDocument(f"more than {MAX_ATTRIBUTES} attributes", line, column)
        element = Element(name, attributes, line, column)
        if self.open:
            self.open[-1].children.append(element)
            self.open[-1].content.append(element)
        else:
            self.root = element
        self.open.append(element)

    def end(self, _name: str) -> None:
        self.open.pop()

    def characters(self, data: str) -> None:
        if self.open:
            self.open[-1].content.append(data)

    def doctype(self, *_details: object) -> None:
        parser = self.parser
        raise MalformedDocument(
            "a document type (<!DOCTYPE>) is not allowed",
            parser.CurrentLineNumber,
            parser.CurrentColumnNumber + 1,
        )

    def external(self, *_details: object) -> int:
        return 0
