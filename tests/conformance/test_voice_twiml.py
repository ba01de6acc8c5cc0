"""TwiML for calls that the SDKs' own builders write is taken without a warning."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance import voice_plan
from tests.conformance.sdk import missing
from trunkline.twiml.document import Document, DocumentKind
from trunkline.twiml.parser import parse
from trunkline.voice.verbs import SPECS

BUILDERS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "python": voice_plan.build_python, "node": voice_plan.build_node,
}  # fmt: skip


@pytest.fixture(scope="module", params=list(BUILDERS))
def written(request: pytest.FixtureRequest) -> str:
    """The whole document, by one builder."""
    reason = missing(request.param)
    if reason:
        pytest.skip(reason)
    return BUILDERS[request.param](voice_plan.whole())


def read(text: str) -> Document:
    document = parse(text.encode(), "application/xml", kind=DocumentKind.VOICE, verbs=SPECS)
    assert isinstance(document, Document), document
    return document


def test_every_verb_noun_and_attribute_is_known(written: str) -> None:
    document = read(written)
    assert [f"{one.code} line {one.line}: {one.message}" for one in document.warnings] == []
    assert len(document.verbs) == len(voice_plan.whole())


def test_both_builders_write_the_same() -> None:
    if missing("node"):
        pytest.skip(missing("node"))
    plan = voice_plan.whole()
    one, two = (ET.canonicalize(build(plan), strip_text=True) for build in BUILDERS.values())
    assert one == two


def test_no_verb_of_the_builders_is_unknown() -> None:
    assert {child.tag for child in ET.fromstring(voice_plan.build_python(voice_plan.whole()))} <= set(SPECS)


def test_a_mistake_is_still_noticed() -> None:
    document = read('<Response><Say vioce="man">Hello</Say><Sya>Hello</Sya></Response>')
    assert [one.code for one in document.warnings] == [12200, 12200]
