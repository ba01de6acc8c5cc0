"""Lists: keyset pages in the shape the SDKs walk.

A page is named by `PageToken`: `PA<key>` for what follows the key, `PB<key>` for what precedes it. `Page` only
counts. 2010-04-01 bodies carry relative `*_uri` links and exactly one other key, the list (SDKs refuse anything
else); the newer APIs carry `meta` with absolute links on the host that the client used. Filters stay in the links.
"""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from trunkline.api import respond, xml_body
from trunkline.api.request import Request
from trunkline.api.respond import Format, Response
from trunkline.model.errors import ApiError

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_PAGE = 1_000_000_000
_TOKEN = re.compile(r"P([AB])([A-Za-z0-9_.~:|@+-]{1,200})", re.ASCII)
_PAGING_FIELDS = frozenset({"Page", "PageSize", "PageToken"})


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is asked for: at most `size` items after or before a key (both None: the first page)."""

    size: int
    page: int
    after: str | None
    before: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """What a resource answers. Tokens are keys, without their prefix; None: there is no such page."""

    key: str
    """The list's JSON key, e.g. `messages`."""
    element: str
    """An item's XML element, e.g. `Message`."""
    items: list[dict[str, Any]]
    next_token: str | None = None
    """Key of the last item when more follow."""
    previous_token: str | None = None
    """Key of the first item when something precedes it."""


def read(request: Request) -> PageRequest:
    """The page that the query asks for; raises 20007, 70002 or 20422."""
    query = request.query
    size = _number(query.get("PageSize"), "PageSize", DEFAULT_PAGE_SIZE, 1)
    if size > MAX_PAGE_SIZE:
        raise ApiError.of(20007, limit=MAX_PAGE_SIZE)
    page = _number(query.get("Page"), "Page", 0, 0)
    token = (query.get("PageToken") or [""])[-1]
    if not token:
        if page:
            raise ApiError.of(70002)
        return PageRequest(size, 0, None, None)
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise ApiError.invalid("PageToken", "not a token of this API")
    direction, key = match.groups()
    return PageRequest(size, page, key if direction == "A" else None, key if direction == "B" else None)


def _number(values: list[str] | None, name: str, default: int, lowest: int) -> int:
    text = values[-1] if values else ""
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and lowest <= int(text) <= MAX_PAGE):
        raise ApiError.invalid(name, f"must be a number from {lowest}")
    return int(text)


def cut(items: list[Any], asked: PageRequest, key_of: Any) -> tuple[list[Any], str | None, str | None]:
    """Make a page of up to `size + 1` items that were read in list order (nearest the key, for `before`).

    The caller reads one more than it shows; `key_of(item)` names an item. Returns (items, next, previous).
    """
    more = len(items) > asked.size
    if asked.before is not None:
        shown = items[-asked.size :] if more else items
        previous = key_of(shown[0]) if more else None
        return shown, key_of(shown[-1]) if shown else None, previous
    shown = items[: asked.size]
    previous = key_of(shown[0]) if shown and asked.after is not None else None
    return shown, key_of(shown[-1]) if more else None, previous


def bounds(asked: PageRequest, count: int) -> tuple[int, int]:
    """The indexes of a page, the second exclusive, where tokens are indexes; raises 20422 for a token that is none."""
    token = asked.before if asked.before is not None else asked.after
    if token is None:
        return 0, min(asked.size, count)
    if not (token.isascii() and token.isdecimal() and len(token) <= 9):
        raise ApiError.invalid("PageToken", "not a token of this list")
    if asked.before is not None:
        last = min(int(token), count)
        return max(last - asked.size, 0), last
    first = min(int(token) + 1, count)
    return first, min(first + asked.size, count)


class _Links:
    """The links of one page."""

    def __init__(self, request: Request, asked: PageRequest, page: Page, base: str) -> None:
        filters = [(name, value) for name, values in request.query.items() for value in values]
        self._filters = [pair for pair in filters if pair[0] not in _PAGING_FIELDS]
        self._size = asked.size
        self._base = base
        self.first = self._link(0, "")
        token = "PA" + asked.after if asked.after is not None else ""
        token = "PB" + asked.before if asked.before is not None else token
        self.here = self._link(asked.page, token)
        self.next = None if page.next_token is None else self._link(asked.page + 1, "PA" + page.next_token)
        self.previous = (
            None if page.previous_token is None else self._link(max(asked.page - 1, 0), "PB" + page.previous_token)
        )

    def _link(self, number: int, token: str) -> str:
        fields = [*self._filters, ("PageSize", str(self._size)), ("Page", str(number))]
        if token:
            fields.append(("PageToken", token))
        return f"{self._base}?{urlencode(fields, encoding='utf-8', errors='replace')}"


def v2010(request: Request, asked: PageRequest, page: Page) -> Response:
    """The list as 2010-04-01 answers it, JSON or XML."""
    links = _Links(request, asked, page, request.resource_path + ".json")
    start = asked.page * asked.size
    attributes = {
        "first_page_uri": links.first,
        "end": start + max(len(page.items) - 1, 0),
        "next_page_uri": links.next,
        "page": asked.page,
        "page_size": asked.size,
        "previous_page_uri": links.previous,
        "start": start,
        "uri": links.here,
    }
    if request.format is Format.XML:
        body = xml_body.page(xml_body.camel(page.key), page.element, page.items, attributes)
        return Response(200, body, respond.XML_HEADERS)
    return respond.json({**attributes, page.key: page.items})


def meta(request: Request, asked: PageRequest, page: Page) -> Response:
    """The list as the newer APIs answer it: `meta` with absolute links."""
    links = _Links(request, asked, page, request.base_url + request.resource_path)
    return respond.json(
        {
            page.key: page.items,
            "meta": {
                "page": asked.page,
                "page_size": asked.size,
                "first_page_url": links.first,
                "previous_page_url": links.previous,
                "url": links.here,
                "next_page_url": links.next,
                "key": page.key,
            },
        }
    )


def render(request: Request, asked: PageRequest, page: Page) -> Response:
    """The list in its product's style."""
    return v2010(request, asked, page) if request.product == "api" else meta(request, asked, page)
