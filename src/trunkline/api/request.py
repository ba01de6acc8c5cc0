"""The request as a handler sees it: where it came in, who made it, and typed access to its parameters.

Getters answer None for a parameter that was not sent, and raise the `ApiError` that fits one that cannot be taken.
An empty value is a value: updates clear a field with it. Where a parameter is repeated, scalars take the last.
"""

import re
from collections.abc import Collection
from datetime import date as _date
from typing import TYPE_CHECKING, Final, overload
from urllib.parse import urlsplit

from trunkline.api import dates
from trunkline.api.form import Form, parse_urlencoded
from trunkline.api.respond import Format
from trunkline.model.errors import ApiError

if TYPE_CHECKING:
    from trunkline.api.auth import Principal
    from trunkline.api.idempotency import Claim
    from trunkline.model.account import Account

# Inside the class these names are its getters.
_str = str
_bool = bool
_int = int
_list = list

MAX_TEXT_CHARS: Final = 4096
"""Longest text parameter unless the getter says otherwise."""
MAX_URL_CHARS: Final = 4000
MAX_LIST_ITEMS: Final = 100
MAX_TRACEPARENT_CHARS: Final = 512
"""Of a `traceparent` header; what is longer is none."""
_PLAIN_URL: Final = re.compile(r"https?://[A-Za-z0-9.-]+(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?/")
"""Starts a URL whose scheme, host and port need no closer look."""
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


class Request:
    """One API request. Built by the framework; handlers only read it."""

    __slots__ = (
        "_query",
        "account",
        "account_sid",
        "base_url",
        "body",
        "client",
        "form",
        "format",
        "headers",
        "idempotency",
        "max_fields",
        "method",
        "params",
        "path",
        "principal",
        "product",
        "query_string",
        "request_id",
        "reserved_bytes",
        "resource_path",
        "token",
    )

    account: "Account"
    """The account acted on."""
    account_sid: _str
    """Its SID as the request names it: of the test credentials where those are used."""
    base_url: _str
    """Scheme and host as the client used them, plus the product's path prefix if there was one."""
    body: bytes
    client: _str
    """The client's address, behind trusted proxies too."""
    form: Form
    format: Format
    headers: dict[bytes, bytes]
    """Lower-case names; of repeated headers the last."""
    idempotency: "Claim | None"
    """Set on POSTs with an Idempotency-Key."""
    max_fields: _int
    method: _str
    """GET also for HEAD."""
    params: dict[_str, _str]
    """Values of the template's `{Names}`, percent-decoded, without a format suffix."""
    path: _str
    """As the client sent it, without the query."""
    principal: "Principal"
    product: _str
    query_string: bytes
    request_id: _str
    """RQ and 32 hex digits."""
    reserved_bytes: _int
    """What the body may take of the memory set aside for bodies."""
    resource_path: _str
    """The product's own path without prefix or format suffix, e.g. `/2010-04-01/Accounts/AC.../Messages`."""
    token: _str
    """Names the work this request causes: the customer's Idempotency-Key, or a minted one."""

    def __init__(self, method: _str, path: _str) -> None:
        self.method = method
        self.path = path
        self.product = self.base_url = self.resource_path = self.account_sid = self.client = ""
        self.token = self.request_id = ""
        self.format = Format.JSON
        self.headers = {}
        self.params = {}
        self.form = {}
        self.query_string = self.body = b""
        self.idempotency = None
        self.max_fields = self.reserved_bytes = 0
        self._query: Form | None = None

    @property
    def query(self) -> Form:
        """The query's fields, parsed when first asked for."""
        if self._query is None:
            self._query = parse_urlencoded(self.query_string, self.max_fields)
        return self._query

    @property
    def fields(self) -> Form:
        """Where parameters are looked up: the form of a POST, else the query."""
        return self.form if self.method == "POST" else self.query

    def header(self, name: _str) -> _str | None:
        """A header's value, or None."""
        value = self.headers.get(name.lower().encode("latin-1", "replace"))
        return None if value is None else value.decode("latin-1")

    @property
    def traceparent(self) -> _str:
        """The header as the client sent it (W3C Trace Context), or empty."""
        value = self.headers.get(b"traceparent")
        return "" if value is None else value.decode("latin-1")[:MAX_TRACEPARENT_CHARS]

    # --- typed getters ---

    def has(self, name: _str) -> _bool:
        """Whether the parameter was sent, even empty."""
        return name in self.fields

    @overload
    def str(self, name: _str, max_len: _int = MAX_TEXT_CHARS, *, code: _int | None = None) -> _str | None: ...

    @overload
    def str(self, name: _str, max_len: _int = MAX_TEXT_CHARS, *, default: _str, code: _int | None = None) -> _str: ...

    def str(
        self,
        name: _str,
        max_len: _int = MAX_TEXT_CHARS,
        *,
        default: _str | None = None,
        code: _int | None = None,
    ) -> _str | None:
        """Text of at most `max_len` characters, without NUL. `code` replaces 20422 where Twilio has its own."""
        values = self.fields.get(name)
        if values is None:
            return default
        return self._checked(name, values[-1], max_len, code)

    def required(self, name: _str, max_len: _int = MAX_TEXT_CHARS, *, code: _int | None = None) -> _str:
        """Text that must be there and not empty; else `code`, or 20001."""
        value = self.str(name, max_len)
        if not value:
            raise ApiError.of(code, name=name) if code is not None else ApiError.missing(name)
        return value

    def bool(self, name: _str, default: _bool | None = None) -> _bool | None:
        """true or false in any case (SDKs differ); empty counts as not sent."""
        text = self._scalar(name).lower()
        if not text:
            return default
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise ApiError.invalid(name, "must be true or false")

    def int(
        self, name: _str, lo: _int, hi: _int, default: _int | None = None, *, code: _int | None = None
    ) -> _int | None:
        """A decimal number between `lo` and `hi`, both included; empty counts as not sent."""
        text = self._scalar(name).strip()
        if not text:
            return default
        if len(text) <= 20 and text.isascii() and text.lstrip("-").isdecimal() and text.count("-") <= 1:
            value = _int(text)
            if lo <= value <= hi:
                return value
        raise self._bad(name, text, f"must be a number between {lo} and {hi}", code)

    def url(self, name: _str, *, code: _int | None = None, max_len: _int = MAX_URL_CHARS) -> _str | None:
        """An absolute http or https URL; empty (to clear a field) is passed on."""
        values = self.fields.get(name)
        if values is None:
            return None
        value = self._checked(name, values[-1], max_len, code).strip()
        if value and not is_http_url(value):
            raise self._bad(name, value, "must be an absolute http or https URL", code)
        return value

    def method_of(self, name: _str, *, code: _int | None = None) -> _str | None:
        """GET or POST; empty counts as not sent."""
        text = self._scalar(name).strip().upper()
        if not text:
            return None
        if text not in ("GET", "POST"):
            raise self._bad(name, text, "must be GET or POST", code)
        return text

    def list(
        self,
        name: _str,
        max_items: _int = MAX_LIST_ITEMS,
        max_len: _int = MAX_TEXT_CHARS,
        *,
        code: _int | None = None,
    ) -> _list[_str]:
        """Every value of a repeated parameter that is not empty, in order."""
        values = [value for value in self.fields.get(name, ()) if value]
        if len(values) > max_items:
            raise self._bad(name, "", f"more than {max_items} values", code)
        return [self._checked(name, value, max_len, code) for value in values]

    def date(self, name: _str) -> _date | None:
        """A `YYYY-MM-DD` day; empty counts as not sent."""
        text = self._scalar(name).strip()
        if not text:
            return None
        day = dates.parse_date(text)
        if day is None:
            raise ApiError.invalid(name, "must be a date as YYYY-MM-DD")
        return day

    def instant_ms(self, name: _str, *, code: _int | None = None) -> _int | None:
        """A time (ISO 8601, RFC 2822, or a day's first moment) as Unix milliseconds; empty counts as not sent."""
        text = self._scalar(name).strip()
        if not text:
            return None
        ms = dates.parse_instant(text)
        if ms is None:
            raise self._bad(name, text, "must be a time as YYYY-MM-DDThh:mm:ssZ", code)
        return ms

    def range_ms(self, name: _str) -> tuple[_int | None, _int | None]:
        """The span that `Name`, `Name>` and `Name<` select: first millisecond, and the first one after it.

        `Name` alone is a whole day, also when written as its midnight (so Twilio's SDKs write days), else the second
        it names; the inequalities include their bound, and a day as a bound means its midnight, GMT.
        """
        exact = self.instant_ms(name)
        if exact is not None:
            return exact, exact + (dates.SECOND_MS if exact % dates.DAY_MS else dates.DAY_MS)
        before = self.instant_ms(name + "<")
        return self.instant_ms(name + ">"), None if before is None else before + dates.SECOND_MS

    def enum(self, name: _str, allowed: Collection[_str], *, code: _int | None = None) -> _str | None:
        """One of `allowed`, compared without case and returned as spelled there; empty counts as not sent."""
        text = self._scalar(name).strip()
        if not text:
            return None
        folded = text.lower()
        for value in allowed:
            if value.lower() == folded:
                return value
        raise self._bad(name, text, f"must be one of {', '.join(sorted(allowed))}", code)

    # --- inside ---

    def _scalar(self, name: _str) -> _str:
        values = self.fields.get(name)
        return values[-1] if values else ""

    def _bad(self, name: _str, value: _str, reason: _str, code: _int | None) -> ApiError:
        if code is None:
            return ApiError.invalid(name, reason)
        return ApiError.of(code, name=name, value=value, url=value, reason=reason)

    def _checked(self, name: _str, value: _str, max_len: _int, code: _int | None) -> _str:
        if len(value) > max_len:
            raise self._bad(name, value, f"longer than {max_len} characters", code)
        if "\x00" in value:
            raise self._bad(name, value, "must not contain NUL", code)
        return value


def is_http_url(value: _str) -> _bool:
    """Whether `value` is an absolute http or https URL with a host, without control characters or spaces."""
    if not value.isprintable() or " " in value:
        return False
    if _PLAIN_URL.match(value) is not None:
        return True
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and _bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
