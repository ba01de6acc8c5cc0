"""Parsing one verb of a voice document."""

from dataclasses import replace
from typing import Any

from trunkline.twiml import Document, DocumentKind, Verb, parse
from trunkline.voice.verbs import SPECS


def one(twiml: str) -> tuple[Any, list[int]]:
    """The verb (None: dropped) without its place, and the codes of the warnings."""
    document = parse(f"<Response>{twiml}</Response>".encode(), "text/xml", kind=DocumentKind.VOICE, verbs=SPECS)
    assert isinstance(document, Document), document
    assert len(document.verbs) <= 1
    return _placeless(document.verbs[0]) if document.verbs else None, [w.code for w in document.warnings]


def _placeless(verb: Verb) -> Verb:
    prompts = getattr(verb, "prompts", None)
    if prompts is not None:
        verb = replace(verb, prompts=tuple(_placeless(prompt) for prompt in prompts))  # type: ignore[call-arg]
    return replace(verb, line=0, column=0)
