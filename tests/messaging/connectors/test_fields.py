"""Templates, shapes and paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.messaging.connectors.fields import Template, dig, extractor, records, render_json, text_of, tree

VALUES = {"to": "+1", "body": "{to}", "sid": "SM1"}


def test_values_are_put_in_once():
    assert Template("{to}:{body}:{x:y}{ }").render(VALUES) == "+1:{to}:{x:y}{ }"
    assert Template("a{to}b{to}").render(VALUES, lambda value: "<" + value + ">") == "a<+1>b<+1>"
    assert Template("{foo}", strict=False).render(VALUES) == "{foo}"


def test_shapes():
    shape = tree({"a.b": "{to}", "a.c.0": "x", "a.c.1": "{sid}", "1": "one"})
    assert render_json(shape, VALUES) == {"a": {"b": "+1", "c": ["x", "SM1"]}, "1": "one"}


@pytest.mark.parametrize(
    ("path", "found"),
    [("a.b", 1), ("l.1.x", 2), ("a.b.c", None), ("l.9", None), ("l.x", None), ("d.o.t", 3), ("", None)],
)
def test_dig(path, found):
    assert dig({"a": {"b": 1}, "l": [0, {"x": 2}], "d.o.t": 3}, path) == found


def test_records_of_a_list_of_lists():
    paths = {"id": "a.b.*.id", "status": "a.b.*.s", "time": "t"}
    document = {"a": {"b": [{"id": 1, "s": "x"}, "odd", {"id": 2}]}, "t": 9}
    assert list(records(document, paths)) == [
        {"id": 1, "status": "x", "time": 9},
        {"id": None, "status": None, "time": 9},
        {"id": 2, "status": None, "time": 9},
    ]
    assert list(records([{"id": 1}, {"id": 2}], {"id": "*.id"})) == [{"id": 1}, {"id": 2}]
    assert list(records({"a": 7}, paths)) == []


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_anything_can_be_looked_through(document):
    for path in ("a", "0.a", "*.a", "a.*.b"):
        for found in records(document, {"id": path, "status": "b"}):
            assert set(found) == {"id", "status"}
            assert isinstance(text_of(found["id"]), str)


def test_extractors():
    body = b'{"a": [{"id": 5}], "t": true}'
    assert extractor("json:a.0.id")({}, body) == "5"
    assert extractor("json:t")({}, body) == ""
    assert extractor("json:a")({}, b"\xff") == ""
    assert extractor("json:")({}, b'"just this"') == "just this"
    assert extractor("regex:id.*?([0-9]+)")({}, body) == "5"
    assert extractor("regex:[0-9]+")({}, body) == "5"
    assert extractor("regex:x(a)?")({}, b"x") == ""
    assert extractor("regex:nothing")({}, body) == ""
    assert extractor("header:X-Id")({"x-id": "7"}, b"") == "7"
    assert extractor("header:X-Id")({}, b"") == ""
