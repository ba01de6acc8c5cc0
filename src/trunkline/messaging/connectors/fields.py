"""Templates of requests and paths into answers: the small language in which an `http` connector is described.

Templates hold `{to}`, `{from}`, `{body}`, `{sid}`, `{token}` and `{receipt_url}` (also `{to_digits}` and
`{from_digits}`, without the plus); any other brace stands for itself. Paths are dotted: names of objects, positions of
lists, and `*` for "each of this list". All is compiled once.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

PLACEHOLDERS: Final = frozenset({"to", "from", "body", "sid", "token", "receipt_url", "to_digits", "from_digits"})
MAX_VALUE_CHARS: Final = 1000
"""Longest id or error that is taken from an answer."""

_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")

Values = Mapping[str, str]
Quote = Callable[[str], str]


class Template:
    """A text with placeholders. Raises ValueError for a placeholder that does not exist."""

    __slots__ = ("_parts", "constant")

    def __init__(self, text: str, *, strict: bool = True) -> None:
        self._parts: list[tuple[str, str]] = []
        at = 0
        for match in _PLACEHOLDER.finditer(text):
            name = match[1]
            if name not in PLACEHOLDERS:
                if strict:
                    raise ValueError(f"{{{name}}} is none of {', '.join(sorted(PLACEHOLDERS))}")
                continue
            self._parts.append((text[at : match.start()], name))
            at = match.end()
        self._parts.append((text[at:], ""))
        self.constant = len(self._parts) == 1

    def render(self, values: Values, quote: Quote = str) -> str:
        """The text, each value quoted by `quote`."""
        return "".join([text + quote(values[name]) if name else text for text, name in self._parts])


Tree = Template | dict[str, "Tree"] | list["Tree"]


def tree(fields: Mapping[str, str]) -> Tree:
    """Dotted names as a nested JSON shape; names that are the positions 0, 1, ... make a list.

    Raises ValueError when a name is both a value and an object.
    """
    root: dict[str, Any] = {}
    for name, text in fields.items():
        *path, last = name.split(".")
        node = root
        for step in path:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise ValueError(f"the field {name!r} lies inside another field's value")
        if last in node:
            raise ValueError(f"the field {name!r} is there twice")
        node[last] = Template(text)
    return _listed(root)


def _listed(node: Any) -> Tree:
    if isinstance(node, Template):
        return node
    if node and all(name == str(position) for position, name in enumerate(node)):
        return [_listed(child) for child in node.values()]
    return {name: _listed(child) for name, child in node.items()}


def render_json(node: Tree, values: Values) -> Any:
    """The shape filled in."""
    if isinstance(node, Template):
        return node.render(values)
    if isinstance(node, list):
        return [render_json(child, values) for child in node]
    return {name: render_json(child, values) for name, child in node.items()}


def dig(document: Any, path: str) -> Any:
    """What a dotted path leads to in a document, None when there is nothing. A whole name with dots wins."""
    if isinstance(document, dict) and path in document:
        return document[path]
    for step in path.split("."):
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isdecimal() and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


def text_of(value: Any) -> str:
    """A scalar as text, bounded; empty for anything else."""
    if isinstance(value, bool) or value is None or isinstance(value, dict | list):
        return ""
    return str(value)[:MAX_VALUE_CHARS]


def records(document: Any, paths: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What the paths lead to, once for each record: a list's items, or what a `*` in the path of `id` stands for."""
    shared, star, _ = paths.get("id", "").partition("*.")
    if star:
        items = dig(document, shared.rstrip(".")) if shared else document
        for item in items if isinstance(items, list) else ():
            yield {
                name: dig(item, path[len(shared) + len(star) :])
                if path.startswith(shared + star)
                else dig(document, path)
                for name, path in paths.items()
            }
        return
    for item in document if isinstance(document, list) else (document,):
        yield {name: dig(item, path) for name, path in paths.items()}


def extractor(rule: str) -> Callable[[Mapping[str, str], bytes], str]:
    """A function (headers with lower-case names, body) -> value for `json:PATH`, `regex:PATTERN` or `header:Name`.

    The value is empty when it is not there. Raises ValueError for another rule.
    """
    how, _, what = rule.partition(":")
    if how == "header" and what:
        name = what.strip().lower()
        return lambda headers, body: headers.get(name, "")[:MAX_VALUE_CHARS]
    if how == "regex" and what:
        try:
            pattern = re.compile(what)
        except re.error as error:
            raise ValueError(f"{rule!r} is no regular expression: {error}") from None
        return lambda headers, body: _search(pattern, body)
    if how == "json":
        return lambda headers, body: _from_json(what, body)
    raise ValueError(f"{rule!r} is neither json:PATH nor regex:PATTERN nor header:NAME")


def _search(pattern: re.Pattern[str], body: bytes) -> str:
    match = pattern.search(body.decode("utf-8", "replace"))
    if match is None:
        return ""
    return (match[1 if match.re.groups else 0] or "")[:MAX_VALUE_CHARS]


def _from_json(path: str, body: bytes) -> str:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return text_of(dig(document, path) if path else document)
