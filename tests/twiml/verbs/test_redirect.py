"""<Redirect>, from Twilio's table: method GET or POST, default POST; the text is the URL."""

from __future__ import annotations

import pytest

from trunkline.twiml import Document, Redirect, parse


def run(xml: str) -> Document:
    result = parse(f"<Response>{xml}</Response>".encode(), "text/xml")
    assert isinstance(result, Document)
    return result


@pytest.mark.parametrize(
    ("xml", "url", "method"),
    [
        ("<Redirect>https://x.test/a?b=1&amp;c=2</Redirect>", "https://x.test/a?b=1&c=2", "POST"),
        ("<Redirect method='GET'>\n ../next \n</Redirect>", "../next", "GET"),
        ("<Redirect/>", "", "POST"),
    ],
)
def test_redirect(xml: str, url: str, method: str) -> None:
    result = run(xml)
    assert result.verbs == (Redirect(url=url, method=method, line=1, column=11),)
    assert result.warnings == ()


def test_an_impossible_url_drops_the_verb() -> None:
    result = run("<Redirect>mailto:me@x.test</Redirect>")
    assert result.verbs == ()
    assert [w.code for w in result.warnings] == [12200]


def test_children_are_not_allowed() -> None:
    result = run("<Redirect>/x<Message>y</Message></Redirect>")
    assert len(result.verbs) == 1
    assert [w.code for w in result.warnings] == [12200]


def test_bad_method() -> None:
    result = run("<Redirect method='DELETE'>/x</Redirect>")
    assert result.verbs == (Redirect(url="/x", line=1, column=11),)
    assert [w.code for w in result.warnings] == [14104]
