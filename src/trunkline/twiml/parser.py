"""parse(): a fetched document to verbs, warnings and errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from trunkline.twiml import encoding
from trunkline.twiml.document import Document, DocumentKind, TwimlError, TwimlWarning, Verb
from trunkline.twiml.schema import SCHEMA_WARNING, Notes, VerbSpec, is_namespace, read_attributes, shown
from trunkline.twiml.verbs import VERBS, VOICE_NAMES
from trunkline.twiml.verbs.message import INVALID_BODY, MAX_BODY_CHARACTERS, Message
from trunkline.twiml.xmltree import PARSE_FAILURE, Element, MalformedDocument, read

MAX_DOCUMENT_BYTES: Final = 64 * 1024
MAX_MESSAGES: Final = 10  # <Message> of one document

BODY_TOO_LARGE: Final = 11750
WRONG_ROOT: Final = 12102
INVALID_CONTENT_TYPE: Final = 12300
MESSAGE_LIMIT: Final = 14109
WRONG_VERB: Final = 14110


def parse(
    document: bytes,
    content_type: str,
    *,
    kind: DocumentKind = DocumentKind.MESSAGING,
    verbs: Mapping[str, VerbSpec] | None = None,
    limit_bytes: int = MAX_DOCUMENT_BYTES,
) -> Document | TwimlError:
    """What a webhook answered, as verbs.

    XML types are TwiML. `text/plain` is TwiML when it parses as such, else (messaging) the reply's body. `verbs` is
    the table to use instead of the kind's own (trunkline.voice.verbs has that of calls). An empty answer (204 too) is
    an empty document. Never raises on foreign input.
    """
    if len(document) > limit_bytes:
        return TwimlError(BODY_TOO_LARGE, f"the document has {len(document)} of at most {limit_bytes} bytes")
    if not document.strip():
        return Document()
    media_type = encoding.media_type(content_type)
    plain = media_type == encoding.PLAIN_TYPE
    if not plain and media_type not in encoding.XML_TYPES:
        return TwimlError(INVALID_CONTENT_TYPE, f"content type {shown(content_type)} is not one of TwiML's")
    try:
        text = encoding.decode(document, content_type)
    except encoding.UnsupportedEncoding as error:
        return TwimlError(PARSE_FAILURE, str(error), 1, 1)
    if not text.strip():
        return Document()
    if plain and kind is DocumentKind.MESSAGING:
        return _plain(text)
    return _markup(text.lstrip() if plain else text, kind, verbs)


def _plain(text: str) -> Document | TwimlError:
    """A text/plain answer to a message."""
    if text.lstrip().startswith("<"):
        result = _markup(text.lstrip(), DocumentKind.MESSAGING)
        if isinstance(result, Document):
            return result
    body = text.strip()
    if len(body) > MAX_BODY_CHARACTERS:
        message = f"the body has {len(body)} of at most {MAX_BODY_CHARACTERS} characters"
        return Document(warnings=(TwimlWarning(INVALID_BODY, message),))
    return Document(verbs=(Message(body=body),))


def _markup(text: str, kind: DocumentKind, table: Mapping[str, VerbSpec] | None = None) -> Document | TwimlError:
    try:
        root = read(text)
    except MalformedDocument as error:
        return TwimlError(error.code, error.message, error.line, error.column)
    if root.name != "Response":
        message = f"the root element must be <Response>, not {shown(root.name)}"
        return TwimlError(WRONG_ROOT, message, root.line, root.column)
    notes = Notes()
    for name in root.attributes:
        if not is_namespace(name):
            notes.add(SCHEMA_WARNING, f"attribute {shown(name)} is not allowed in <Response>", root)
    if root.text:
        notes.add(SCHEMA_WARNING, "text is not allowed in <Response>", root)
    known = VERBS[kind] if table is None else table
    verbs = [verb for child in root.children if (verb := _verb(child, kind, known, notes)) is not None]
    return Document(tuple(_bounded(verbs, root, notes)), tuple(notes.items))


def _verb(element: Element, kind: DocumentKind, known: Mapping[str, VerbSpec], notes: Notes) -> Verb | None:
    spec = known.get(element.name)
    if spec is None:
        if kind is DocumentKind.MESSAGING and element.name in VOICE_NAMES:
            notes.add(WRONG_VERB, f"<{element.name}> is a voice verb, not for a reply to a message", element)
        else:
            notes.add(SCHEMA_WARNING, f"element {shown(element.name)} is not allowed in <Response>", element)
        return None
    values = {} if spec.unchecked else read_attributes(element, spec.attributes, notes)
    return None if values is None else spec.build(element, values, notes)


def _bounded(verbs: list[Verb], root: Element, notes: Notes) -> list[Verb]:
    """At most MAX_MESSAGES messages; the others are dropped with a warning."""
    kept: list[Verb] = []
    messages = 0
    for verb in verbs:
        messages += isinstance(verb, Message)
        if messages <= MAX_MESSAGES or not isinstance(verb, Message):
            kept.append(verb)
    if messages > MAX_MESSAGES:
        notes.add(MESSAGE_LIMIT, f"{messages} <Message>, at most {MAX_MESSAGES} are sent", root)
    return kept
