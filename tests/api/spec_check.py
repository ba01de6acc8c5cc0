"""Compares resources with Twilio's OpenAPI documents, where these are at hand.

The documents lie in `spec/` of the folder that TRUNKLINE_CONTRACT names, or of `shared/contract` beside the
repository; tests that need them carry the mark `needs_contract` and are skipped elsewhere.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
CONTRACT = Path(os.environ.get("TRUNKLINE_CONTRACT") or ROOT.parent / "shared" / "contract")
NULL_FIELDS = ROOT / "docs" / "reference" / "null-fields.md"
needs_contract = pytest.mark.skipif(not (CONTRACT / "spec").is_dir(), reason="Twilio's OpenAPI documents are not here")

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
_FORMATS = {
    "date-time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    "date-time-rfc-2822": re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000"),
    "uri": re.compile(r"https?://\S+"),
}


class NullField(NamedTuple):
    """A row of null-fields.md: a field that is null here though Twilio's examples fill it."""

    product: str
    """As the documents' files are called: `messaging_v1`, `api_v2010`."""
    schema: str
    field: str


@cache
def null_fields() -> dict[NullField, str]:
    """The rows of the page, with their reasons."""
    rows: dict[NullField, str] = {}
    for line in NULL_FIELDS.read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[0] != "product" and not set(cells[0]) <= {"-", ":"}:
            rows[NullField(*cells[:3])] = cells[3]
    return rows


@cache
def document(product: str) -> dict[str, Any]:
    """One OpenAPI document, e.g. of `messaging_v1`."""
    loaded: dict[str, Any] = json.loads((CONTRACT / "spec" / f"twilio_{product}.json").read_text())
    return loaded


def schema_of(product: str, name: str) -> dict[str, Any]:
    """A schema with its references to simple ones resolved."""
    schemas = document(product)["components"]["schemas"]
    properties = {}
    for field, declared in schemas[name]["properties"].items():
        reference = declared.get("$ref", "").rpartition("/")[2]
        properties[field] = schemas[reference] if reference else declared
    return properties


def examples(product: str, name: str) -> Iterator[dict[str, Any]]:
    """Every example of the resource in the document, single or listed."""
    reference = "#/components/schemas/" + name
    for path in document(product)["paths"].values():
        for operation in path.values():
            for response in operation.get("responses", {}).values() if isinstance(operation, dict) else ():
                for content in response.get("content", {}).values():
                    values = [example["value"] for example in content.get("examples", {}).values()]
                    yield from _items(content["schema"], reference, values)


def _items(schema: Mapping[str, Any], reference: str, values: list[Any]) -> Iterator[dict[str, Any]]:
    if schema.get("$ref") == reference:
        yield from values
    for key, declared in schema.get("properties", {}).items():
        if declared.get("items", {}).get("$ref") == reference:
            for value in values:
                yield from value.get(key, ())


def problems(product: str, name: str, resource: Mapping[str, Any]) -> list[str]:
    """What is wrong with a resource as the API showed it: fields that are missing, of another type or form, or null
    though some example fills them and null-fields.md gives no reason."""
    found = []
    filled = {field for example in examples(product, name) for field, value in example.items() if value is not None}
    for field, declared in schema_of(product, name).items():
        if field not in resource:
            found.append(f"{field}: missing")
        elif resource[field] is None:
            if field in filled and NullField(product, name, field) not in null_fields():
                found.append(f"{field}: null")
        else:
            found += [f"{field}: {reason}" for reason in _misfits(declared, resource[field])]
    return found


def _misfits(declared: Mapping[str, Any], value: Any) -> Iterator[str]:
    kinds = _TYPES.get(declared.get("type", ""))
    if kinds is None:
        return
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        yield f"{value!r} is no {declared['type']}"
        return
    form = _FORMATS.get(declared.get("format", ""))
    if form is not None and isinstance(value, str) and not form.fullmatch(value):
        yield f"{value!r} is no {declared['format']}"
    if "pattern" in declared and not re.fullmatch(declared["pattern"], value):
        yield f"{value!r} does not match {declared['pattern']}"
    if "enum" in declared and value not in declared["enum"]:
        yield f"{value!r} is none of {declared['enum']}"
