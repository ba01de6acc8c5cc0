"""A carrier with an HTTP API of its own, described by the templates of `[[connectors]]` with `kind = "http"`.

Submits are one request a message. Receipts and inbound messages come to `/connectors/NAME/receipt` and
`/connectors/NAME/inbound`, and are answered with 200 only once they are kept.
"""

import hmac
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, quote_plus, urlencode

import orjson

from trunkline.messaging.connectors.base import (
    InboundPart,
    Outcome,
    Receipt,
    Rejected,
    Submission,
    Submitted,
    Unavailable,
)
from trunkline.messaging.connectors.exchange import (
    UNKNOWN_ERROR,
    HttpExchange,
    Prepared,
    retry_after_s,
    settled_elsewhere,
)
from trunkline.messaging.connectors.fields import Template, extractor, records, render_json, text_of, tree
from trunkline.messaging.connectors.incoming import MAX_RECORDS, Record, Refused, fields_of, pairs_of
from trunkline.messaging.connectors.table import Context
from trunkline.model import phone
from trunkline.settings import Http
from trunkline.sms import segment
from trunkline.webhooks.connection import Response

NOT_BY_THIS_ROUTE: Final = 21612
"""Media, which these templates cannot carry."""
STATES: Final = {"delivered": "delivered", "undelivered": "undeliverable", "failed": "rejected", "sent": "enroute"}
"""Our status of `receipt_statuses` -> state of a `Receipt`."""
CREDENTIALS: Final = frozenset({401, 407})
FORM: Final = "application/x-www-form-urlencoded"
MAX_INBOUND_CHARS: Final = 10_000
MAX_MEDIA_URLS: Final = 10

_HEADER_UNSAFE: Final = re.compile(r"[^\x20-\x7e]")


class HttpConnector(HttpExchange):
    """See the module. Raises ValueError for a template, path or rule that cannot be read."""

    def __init__(self, settings: Http, context: Context) -> None:
        super().__init__(settings, context)
        self._settings = settings
        self._url = Template(settings.url)
        # Header values are secrets that may hold braces of their own: an unknown name stands for itself.
        self._headers = [(name, Template(value, strict=False)) for name, value in settings.headers.items()]
        self._in_query = settings.method == "GET" or settings.format == "none"
        as_json = settings.format == "json" and not self._in_query
        self._tree = tree(settings.fields) if as_json else None
        self._fields = [(name, Template(text)) for name, text in settings.fields.items()]
        self._content_type = "application/json" if as_json else FORM
        self._id = extractor(settings.id)
        self._error = extractor(settings.error)
        self._authorization = ""
        if settings.username:
            pair = f"{settings.username}:{settings.password}".encode()
            self._authorization = "Basic " + b64encode(pair).decode()

    # -- out ------------------------------------------------------------------------------------------------

    def prepare(self, submission: Submission) -> Prepared | Rejected:
        """The request, with every placeholder filled in."""
        message = submission.message
        if message.media:
            return Rejected(NOT_BY_THIS_ROUTE, "this route carries no media", try_elsewhere=True)
        values = {
            "to": message.to,
            "from": submission.sender,
            "body": message.text,
            "sid": message.sid,
            "token": message.token or message.sid,
            "receipt_url": self._receipt_url(),
            "to_digits": message.to.removeprefix("+"),
            "from_digits": submission.sender.removeprefix("+"),
        }
        url = self._url.render(values, _quote_in_url)
        headers = [(name, _HEADER_UNSAFE.sub("?", template.render(values))) for name, template in self._headers]
        if self._authorization:
            headers.append(("Authorization", self._authorization))
        if self._in_query:
            pairs = urlencode([(name, template.render(values)) for name, template in self._fields])
            url = f"{url}{'&' if '?' in url else '?'}{pairs}" if pairs else url
            return Prepared(url, self._settings.method, headers, b"")
        headers.append(("Content-Type", self._content_type))
        if self._tree is not None:
            body = orjson.dumps(render_json(self._tree, values))
        else:
            body = urlencode([(name, template.render(values)) for name, template in self._fields]).encode()
        return Prepared(url, self._settings.method, headers, body)

    def _receipt_url(self) -> str:
        url = f"{self._public_url()}/connectors/{self.name}/receipt"
        token = self._settings.callback_token
        return f"{url}?token={quote_plus(token)}" if token else url

    def judge(self, response: Response) -> Outcome:
        """By status first; a success that names an error but no id is a refusal."""
        status = response.status
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        if status in self._settings.success:
            carrier_id = self._id(headers, response.body)
            if carrier_id:
                return Submitted((carrier_id,))
            error = self._error(headers, response.body)
            return self._refused(status, error) if error else Submitted(())
        error = self._error(headers, response.body)
        if status in self._settings.retry:
            reason = f"HTTP {status} {error}".rstrip()
            return Unavailable(reason, burns_attempt=status != 429, retry_after_s=retry_after_s(response) or 1.0)
        if status in CREDENTIALS:
            return Unavailable(f"HTTP {status}: the carrier does not accept our credentials")
        return self._refused(status, error)

    def _refused(self, status: int, error: str) -> Rejected:
        errors = self._settings.errors
        code = errors.get(error) or errors.get(str(status)) or UNKNOWN_ERROR
        return Rejected(code, f"HTTP {status} {error}".rstrip(), try_elsewhere=settled_elsewhere(code))

    # -- in -------------------------------------------------------------------------------------------------

    def read(
        self, kind: str, method: str, headers: Mapping[bytes, bytes], query: bytes, body: bytes
    ) -> Sequence[Record]:
        """Receipts or inbound messages, as the settings name their fields."""
        self._check_token(headers, query)
        if kind not in ("receipt", "inbound"):
            raise Refused(404, "no such path")
        document = fields_of(method, headers, query, body)
        paths = self._settings.receipt if kind == "receipt" else self._settings.inbound
        found: list[dict[str, Any]] = []
        for fields in records(document, paths):
            if len(found) >= MAX_RECORDS:
                raise Refused(413, f"at most {MAX_RECORDS} records")
            found.append(fields)
        if kind == "receipt":
            return [receipt for fields in found if (receipt := self._receipt(fields)) is not None]
        return [self._inbound(fields) for fields in found]

    def _check_token(self, headers: Mapping[bytes, bytes], query: bytes) -> None:
        wanted = self._settings.callback_token
        if not wanted:
            return
        given = dict(pairs_of(query)).get("token", "")
        scheme, _, bearer = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() == "bearer":
            given = bearer.strip()
        if not hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
            raise Refused(401, "the token is missing or wrong")

    def _receipt(self, fields: Mapping[str, Any]) -> Receipt | None:
        """None where the status means nothing to us. Raises Refused without an id or a status."""
        carrier_id, status = text_of(fields.get("id")), text_of(fields.get("status"))
        if not carrier_id or not status:
            raise Refused(400, "a receipt needs the id and the status")
        ours = self._settings.receipt_statuses.get(status.lower())
        if ours is None:
            return None
        error = text_of(fields.get("error"))
        failed = ours in ("undelivered", "failed")
        return Receipt(
            connector=self.name,
            carrier_id=carrier_id,
            state=STATES[ours],
            error=error if failed else "",
            error_code=self._settings.receipt_errors.get(error, UNKNOWN_ERROR) if failed and error else 0,
            done_date=done_date(text_of(fields.get("time"))),
        )

    def _inbound(self, fields: Mapping[str, Any]) -> InboundPart:
        sender, to = text_of(fields.get("from")), text_of(fields.get("to"))
        if not sender or not to:
            raise Refused(400, "a message needs its sender and its destination")
        value = fields.get("body")
        text = value[:MAX_INBOUND_CHARS] if isinstance(value, str) else text_of(value)
        media = fields.get("media")
        urls = media if isinstance(media, list) else [media] if media else []
        return InboundPart(
            connector=self.name,
            from_=address_of(sender, self._settings.number_country),
            to=address_of(to, self._settings.number_country),
            text=text,
            encoding=segment.encoding_of(text),
            media_urls=[text_of(url) for url in urls[:MAX_MEDIA_URLS] if text_of(url)],
            carrier_id=text_of(fields.get("id")),
        )


def _quote_in_url(value: str) -> str:
    return quote(value, safe="")


def address_of(text: str, country: str) -> str:
    """A carrier's address as we write it: E.164 with its plus; short codes and names as they are.

    Digits without a plus are international, unless `country` says that this carrier writes its own country's numbers
    nationally.
    """
    text = text.strip(" ")
    if phone.is_e164(text) or phone.is_short_code(text):
        return text
    if country and text.isdecimal():
        national = phone.details(text, country)
        if national.valid:
            return national.phone_number
    digits = "+" + text.removeprefix("00")
    return digits if text.isdecimal() and phone.is_e164(digits) else phone.to_e164(text) or text


def done_date(text: str) -> str:
    """A carrier's time as receipts carry it, YYMMDDhhmm in UTC: from Unix seconds or milliseconds, ISO 8601 or that
    form itself; empty when it is none of these."""
    try:
        if text.isdecimal():
            if len(text) == 13:
                return _stamp(datetime.fromtimestamp(int(text) / 1000, UTC))
            if len(text) == 10:  # as Unix seconds these digits reach the year 2033; as YYMMDDhhmm they are past 2020
                return _stamp(datetime.fromtimestamp(int(text), UTC)) if text < "20" else text
            return text[:10] if len(text) == 12 else ""
        moment = datetime.fromisoformat(text)
        return _stamp(moment.astimezone(UTC) if moment.tzinfo else moment)
    except (ValueError, OverflowError):
        return ""


def _stamp(moment: datetime) -> str:
    return moment.strftime("%y%m%d%H%M")
