"""The error catalogue, and the one exception that a request handler raises to refuse a request.

`error_codes.json` maps a code to its message and level; `TEMPLATES` holds the HTTP status and the fuller text of
the codes whose REST message names what was wrong with the request. A code that is in neither still works.

Source: Twilio's published error dictionary and the texts its REST API answers with.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple, Self

import orjson

ERROR_DOCS = "https://www.twilio.com/docs/errors"
"""Where `more_info` points to: `{ERROR_DOCS}/{code}`."""

BAD_REQUEST = 400
MAX_QUOTED_CHARS = 256
"""Longest piece of a request that an error message repeats."""


class CatalogueEntry(NamedTuple):
    """What the dictionary says about a code."""

    code: int
    message: str
    log_level: str
    """`error` or `warning`, as Monitor alerts spell it."""


_LEVELS = {"E": "error", "W": "warning"}

TEMPLATES: dict[int, tuple[int, str]] = {
    20001: (400, "Missing required parameter {name} in the post body"),
    20003: (401, "Authenticate"),
    20004: (405, "Method not allowed"),
    20005: (403, "Account {account} is not active"),
    20006: (403, "Access Denied"),
    20007: (400, "Page size too large: the maximum is {limit}"),
    20008: (403, "Resource not accessible with Test Account Credentials"),
    20009: (409, "Cannot delete this resource before it is complete"),
    20403: (403, "Forbidden"),
    20404: (404, "The requested resource {path} was not found"),
    20409: (409, "Conflict: {reason}"),
    20413: (413, "Request Entity Too Large: the limit is {limit} bytes"),
    20422: (400, "Invalid parameter {name}: {reason}"),
    20423: (400, "Invalid SID: {value}"),
    20429: (429, "Too Many Requests"),
    20500: (500, "An internal server error has occurred"),
    20503: (503, "Service is unavailable, please try again"),
    21201: (400, "No 'To' number is specified"),
    21205: (400, "Url parameter is required."),
    21206: (400, "The 'SendDigits' parameter may hold up to 32 of 0-9, A-D, #, *, w and W."),
    21208: (400, "The 'Timeout' parameter {value} must be a number of seconds between 1 and 600."),
    21209: (400, "The 'Method' parameter {value} must be GET or POST."),
    21210: (
        400,
        "The source phone number provided, {from_}, is not yet verified for your account. You may only make calls "
        "from phone numbers that you've verified or purchased from Twilio.",
    ),
    21211: (400, "The 'To' number {to} is not a valid phone number."),
    21212: (
        400,
        "The 'From' number {from_} is not a valid phone number, shortcode, or alphanumeric sender ID.",
    ),
    21213: (400, "No 'From' number is specified"),
    21214: (400, "'To' phone number cannot be reached"),
    21220: (400, "Call is not in-progress. Cannot redirect."),
    21234: (400, "The answering machine detection parameter {name} {reason}"),
    21231: (400, "Domain Validation Error: {name} {reason}"),
    21232: (400, "Invalid Domain: {name} {reason}"),
    21235: (400, "IP Access Control List Validation Error: {name} {reason}"),
    21238: (400, "Address Validation Error: {name} {reason}"),
    21240: (400, "Credential List Validation Error: {name} {reason}"),
    21243: (400, "Credential Validation Error: {name} {reason}"),
    21245: (400, "Trunk Validation Error: {name} {reason}"),
    21248: (400, "Trunk Domain already taken"),
    21300: (400, "Invalid BYOC trunk SID: {value}"),
    21408: (
        400,
        "Permission to send an SMS has not been enabled for the region indicated by the 'To' number: {to}.",
    ),
    21421: (400, "The phone number you requested, {number}, is invalid."),
    21422: (400, "The phone number you requested, {number}, is not available."),
    21452: (400, "No phone numbers found in area code {area_code}."),
    21602: (400, "Message body is required."),
    21603: (400, "A 'From' phone number is required."),
    21604: (400, "A 'To' phone number is required."),
    21606: (
        400,
        "The 'From' phone number {from_} is not a valid, message-capable Twilio phone number for this destination.",
    ),
    21608: (
        400,
        "The number {to} is unverified. Trial accounts cannot send messages to unverified numbers; verify it, "
        "or purchase a number to send messages to unverified numbers.",
    ),
    21609: (400, "The 'StatusCallback' URL {url} is not a valid URL."),
    21610: (400, "Attempt to send to unsubscribed recipient"),
    21611: (429, "This 'From' number has exceeded the maximum number of queued messages"),
    21612: (
        400,
        "Message cannot be sent with the current combination of 'To' ({to}) and/or 'From' ({from_}) parameters",
    ),
    21614: (400, "'To' number is not a valid mobile number: {to}"),
    21617: (400, "The concatenated message body exceeds the 1600 character limit"),
    21620: (400, "Invalid media URL(s): {url}"),
    21623: (400, "Number of media files exceeds allowed limit of {limit}"),
    21626: (400, "The 'StatusCallbackEvent' parameter may hold {allowed}."),
    21910: (400, "Invalid From and To pair. From and To should be of the same channel"),
    63007: (400, "Twilio could not find a Channel with the specified From address"),
    70002: (400, "Paged requests must include a PageToken"),
}
"""code -> (HTTP status, message); the names in braces are the fields that `ApiError.of` is given."""


@cache
def _catalogue() -> dict[int, CatalogueEntry]:
    """The shipped dictionary, read once."""
    raw = orjson.loads(files("trunkline.model").joinpath("error_codes.json").read_bytes())
    return {int(code): CatalogueEntry(int(code), message, _LEVELS[level]) for code, (message, level) in raw.items()}


def describe(code: int) -> CatalogueEntry:
    """The dictionary's entry for `code`; an unknown code gets a neutral text, never an error."""
    return _catalogue().get(code) or CatalogueEntry(code, "Unknown error", "error")


def more_info(code: int | None) -> str:
    """The documentation address that goes with a code."""
    return ERROR_DOCS if code is None else f"{ERROR_DOCS}/{code}"


def quote(value: object) -> str:
    """`value` as an error message may repeat it: bounded in length."""
    text = str(value)
    return text if len(text) <= MAX_QUOTED_CHARS else text[:MAX_QUOTED_CHARS] + "..."


def _message(code: int, fields: Mapping[str, object]) -> tuple[int, str]:
    """HTTP status and text for `code`; the dictionary's text when a field of the template was not given."""
    status, template = TEMPLATES.get(code, (BAD_REQUEST, ""))
    try:
        text = template.format_map({name: quote(value) for name, value in fields.items()})
    except KeyError:
        text = ""
    return status, text or describe(code).message


class ApiError(Exception):
    """A refused request: becomes the REST error body, in JSON or XML.

    Raising it promises that the request changed nothing. `headers` are sent along (Retry-After and the like);
    `detail` is the extra line that 401 bodies carry, `details` the free object that the SDKs expose.
    """

    def __init__(
        self,
        status: int,
        code: int | None,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        detail: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.more_info = more_info(code)
        self.details = details
        self.detail = detail
        self.headers = headers

    @classmethod
    def of(
        cls,
        code: int,
        *,
        status: int | None = None,
        message: str | None = None,
        details: dict[str, Any] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        **fields: object,
    ) -> Self:
        """The error `code` with its usual status and text, e.g. `ApiError.of(21211, to="+1555")`."""
        usual_status, text = _message(code, fields)
        return cls(
            status or usual_status,
            code,
            text if message is None else message,
            details=details,
            headers=headers,
        )

    @classmethod
    def not_found(cls, path: str) -> Self:
        """404 for a resource that is not there (or not this account's)."""
        return cls.of(20404, path=path)

    @classmethod
    def missing(cls, name: str) -> Self:
        """400 for a required parameter that was not sent."""
        return cls.of(20001, name=name)

    @classmethod
    def invalid(cls, name: str, reason: str) -> Self:
        """400 for a parameter whose value cannot be taken."""
        return cls.of(20422, name=name, reason=reason)

    @classmethod
    def unauthorized(cls, message: str = "Authenticate") -> Self:
        """401 with the challenge and the detail line that Twilio adds."""
        return cls(
            401,
            20003,
            message,
            detail="Your AccountSid or AuthToken was incorrect.",
            headers=(("WWW-Authenticate", 'Basic realm="Twilio API"'),),
        )

    @classmethod
    def forbidden(cls, message: str = "Permission Denied") -> Self:
        """403: the credentials are good, but not for this."""
        return cls(403, 20003, message)

    def body(self) -> dict[str, Any]:
        """The REST error body, keys in Twilio's order."""
        body: dict[str, Any] = {"code": self.code}
        if self.detail is not None:
            body["detail"] = self.detail
        body["message"] = self.message
        body["more_info"] = self.more_info
        body["status"] = self.status
        if self.details is not None:
            body["details"] = self.details
        return body
