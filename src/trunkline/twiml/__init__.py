"""TwiML: from the bytes of a fetched document to typed verbs. Sans-IO.

result = parse(body, content_type)
if isinstance(result, TwimlError): ...      # nothing can be run, `code` says why
for verb in result.verbs: ...               # Message, Redirect; `result.warnings` for the log
"""

from trunkline.twiml.document import Document, DocumentKind, TwimlError, TwimlWarning, Verb
from trunkline.twiml.parser import MAX_DOCUMENT_BYTES, parse
from trunkline.twiml.urls import resolve
from trunkline.twiml.verbs import VERBS
from trunkline.twiml.verbs.message import Message
from trunkline.twiml.verbs.redirect import Redirect

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "VERBS",
    "Document",
    "DocumentKind",
    "Message",
    "Redirect",
    "TwimlError",
    "TwimlWarning",
    "Verb",
    "parse",
    "resolve",
]
