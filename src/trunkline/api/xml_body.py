"""Twilio-style XML from the same dicts that become JSON (2010-04-01 only).

`snake_case` keys become `CamelCase` elements, null an empty element; URIs lose their `.json`, since a client that
reads XML follows them without a suffix. Characters that XML 1.0 cannot carry become U+FFFD.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from xml.sax.saxutils import escape, quoteattr

_PROLOG = "<?xml version='1.0' encoding='UTF-8'?>\n<TwilioResponse>"
_END = "</TwilioResponse>"
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Everything outside XML 1.0 section 2.2 `Char`."""
_NO_NAME = re.compile("[^A-Za-z0-9.-]")
"""Foreign names (parameters of webhooks) stand in elements too; the rest of XML's name characters is not needed."""
NAME_CACHE = 2048


@lru_cache(maxsize=NAME_CACHE)
def camel(name: str) -> str:
    """`date_created` -> `DateCreated`; what no element name can hold becomes `-`."""
    words = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    return _NO_NAME.sub("-", words) if words[:1].isalpha() else "X" + _NO_NAME.sub("-", words)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)


def _without_suffix(uri: str) -> str:
    path, mark, query = uri.partition("?")
    return path.removesuffix(".json") + mark + query


def _is_uri(key: str) -> bool:
    return key == "uri" or key.endswith("_uri")


def element(name: str, value: Any, *, uri: bool = False) -> str:
    """One element with whatever is inside it. `uri` holds for every text below."""
    if value is None or value == "":
        return f"<{name}/>"
    if isinstance(value, Mapping):
        inside = "".join(
            element(camel(str(key)), inner, uri=uri or _is_uri(str(key)) or key == "subresource_uris")
            for key, inner in value.items()
        )
    elif isinstance(value, list | tuple):
        inside = "".join(element(_singular(name), inner, uri=uri) for inner in value)
    elif isinstance(value, bool):
        inside = "true" if value else "false"
    else:
        text = str(value)
        inside = escape(_clean(_without_suffix(text) if uri else text))
    return f"<{name}>{inside}</{name}>" if inside else f"<{name}/>"


def _singular(name: str) -> str:
    return name[:-1] if len(name) > 1 and name.endswith("s") else "Item"


def resource(name: str, content: Mapping[str, Any]) -> bytes:
    """A document that holds one resource, e.g. `<TwilioResponse><Message>...`."""
    return (_PROLOG + element(name, content) + _END).encode()


def error(content: Mapping[str, Any]) -> bytes:
    """The RestException document, its elements in Twilio's (alphabetical) order."""
    return resource("RestException", {key: content[key] for key in sorted(content)})


def page(list_name: str, item_name: str, items: list[dict[str, Any]], attributes: Mapping[str, Any]) -> bytes:
    """A list document: paging in attributes (`page_size` -> `pagesize`), one element per item."""
    written = []
    for key, value in sorted(attributes.items()):
        text = "" if value is None else str(value)
        written.append(f" {key.replace('_', '')}={quoteattr(_clean(_without_suffix(text) if _is_uri(key) else text))}")
    inside = "".join(element(item_name, item) for item in items)
    return f"{_PROLOG}<{list_name}{''.join(written)}>{inside}</{list_name}>{_END}".encode()
