"""A carrier that speaks Twilio's API: Twilio itself, or another Trunkline.

A message is one `POST .../Messages.json` with our token as its Idempotency-Key (a Trunkline answers a repetition with
the first response) and our receipt URL as its StatusCallback. The carrier's own requests, status callbacks and inbound
messages, must carry a valid X-Twilio-Signature.

Source: Twilio's Message resource, its error dictionary and its webhook security documentation.
"""

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import urlencode

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
from trunkline.messaging.connectors.incoming import Answer, Record, Refused, pairs_of
from trunkline.messaging.connectors.table import Context
from trunkline.settings import Twilio
from trunkline.sms import segment
from trunkline.webhooks.connection import Response
from trunkline.webhooks.sign import signer
from trunkline.webhooks.target import target

Meaning = Literal["throttled", "credentials", "route"]

CODES: Final[dict[int, Meaning]] = {
    20429: "throttled",
    21611: "throttled",
    14107: "throttled",
    63018: "throttled",
    20003: "credentials",
    20005: "credentials",
    20006: "credentials",
    20008: "credentials",
    20403: "credentials",
}
"""Error codes that speak of us at this carrier, not of the message. All others refuse the message."""
STATUSES: Final[dict[int, Meaning]] = {
    401: "credentials",
    402: "credentials",
    403: "route",
    404: "route",
    429: "throttled",
}
"""What an HTTP status means where the body names no code that is known."""
FIRST_MESSAGE_CODE: Final = 21_000
"""Lower codes speak of requests and accounts; a message shows them as unknown, with the carrier's own words beside."""
THROTTLED_S: Final = 1.0
"""Pause after a refusal that names none."""
STATES: Final = {
    "accepted": "accepted",
    "queued": "accepted",
    "scheduled": "accepted",
    "sending": "enroute",
    "sent": "enroute",
    "delivered": "delivered",
    "read": "read",
    "undelivered": "undeliverable",
    "failed": "rejected",
    "canceled": "deleted",
}
"""MessageStatus -> state of a `Receipt`."""
FAILED: Final = frozenset({"undeliverable", "rejected", "deleted"})
MAX_MEDIA: Final = 10
EMPTY_TWIML: Final = b'<?xml version="1.0" encoding="UTF-8"?><Response/>'


class TwilioConnector(HttpExchange):
    """See the module."""

    def __init__(self, settings: Twilio, context: Context) -> None:
        super().__init__(settings, context)
        self._settings = settings
        self._url = f"{settings.base_url.rstrip('/')}/2010-04-01/Accounts/{settings.account_sid}/Messages.json"
        target(self._url)
        user, password = settings.account_sid, settings.auth_token
        if settings.api_key:
            user, password = settings.api_key, settings.api_secret
        self._headers = (
            ("Authorization", "Basic " + b64encode(f"{user}:{password}".encode()).decode()),
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
        )
        self._signer = signer(settings.auth_token)

    # -- out ------------------------------------------------------------------------------------------------

    def prepare(self, submission: Submission) -> Prepared | Rejected:
        """The form of a new Message."""
        message = submission.message
        fields = [("To", message.to)]
        if self._settings.messaging_service_sid:
            fields.append(("MessagingServiceSid", self._settings.messaging_service_sid))
        else:
            fields.append(("From", submission.sender))
        if message.body or not message.media:
            fields.append(("Body", message.body))
        fields.extend(("MediaUrl", item.url) for item in message.media[:MAX_MEDIA] if item.url)
        if self._settings.receipts:
            fields.append(("StatusCallback", self._own_url("receipt")))
        headers = (*self._headers, ("Idempotency-Key", _key(message.token or message.sid)))
        return Prepared(self._url, "POST", headers, urlencode(fields).encode())

    def judge(self, response: Response) -> Outcome:
        """By Twilio's error code where there is one, else by status."""
        status = response.status
        document = _document(response.body)
        if 200 <= status < 300:
            sid = document.get("sid")
            if isinstance(sid, str) and sid:
                return Submitted((sid,))
            return Unavailable(f"HTTP {status} without a message SID", in_doubt=True)
        number = document.get("code")
        code = number if isinstance(number, int) else 0
        said = f"{code or f'HTTP {status}'} {str(document.get('message') or '')[:200]}".rstrip()
        meaning = CODES.get(code) or (None if code and status == 400 else STATUSES.get(status))
        if meaning == "throttled":
            wait = retry_after_s(response) or THROTTLED_S
            return Unavailable(said, burns_attempt=False, retry_after_s=wait)
        if meaning == "credentials":
            return Unavailable(f"the carrier does not accept our account: {said}")
        if status >= 500 or status in (408, 409):  # 409: our own earlier try is still under way there
            return Unavailable(said, retry_after_s=retry_after_s(response))
        return Rejected(
            code if FIRST_MESSAGE_CODE <= code <= 99_999 else UNKNOWN_ERROR,
            said,
            try_elsewhere=meaning == "route" or settled_elsewhere(code),
        )

    # -- in -------------------------------------------------------------------------------------------------

    def read(
        self, kind: str, method: str, headers: Mapping[bytes, bytes], query: bytes, body: bytes
    ) -> Sequence[Record]:
        """A status callback or an inbound message, once its signature is verified."""
        if kind not in ("receipt", "inbound"):
            raise Refused(404, "no such path")
        posted = pairs_of(body) if method == "POST" else []
        self._verify(kind, headers, query, posted)
        fields = {**dict(pairs_of(query)), **dict(posted)}
        return self._receipt(fields) if kind == "receipt" else [self._inbound(fields)]

    def thanks(self, kind: str) -> Answer:
        """An empty document: what Twilio expects where nothing is to be replied."""
        return 200, ((b"content-type", b"text/xml"),), EMPTY_TWIML

    def _own_url(self, kind: str) -> str:
        return f"{self._public_url()}/connectors/{self.name}/{kind}"

    def _verify(
        self, kind: str, headers: Mapping[bytes, bytes], query: bytes, posted: Sequence[tuple[str, str]]
    ) -> None:
        """Raises Refused unless the carrier's signature fits our public URL."""
        given = headers.get(b"x-twilio-signature", b"")
        url = self._own_url(kind) + (f"?{query.decode('latin-1')}" if query else "")
        if not hmac.compare_digest(given, self._signer.sign(url, posted).encode()):
            raise Refused(403, "the signature does not fit; is server.public_url what the carrier calls?")

    def _receipt(self, fields: Mapping[str, str]) -> list[Receipt]:
        sid = fields.get("MessageSid") or fields.get("SmsSid", "")
        state = STATES.get((fields.get("MessageStatus") or fields.get("SmsStatus", "")).lower())
        if not sid:
            raise Refused(400, "MessageSid is missing")
        if state is None:
            return []
        error = fields.get("ErrorCode", "")[:20] if state in FAILED else ""
        code = int(error) if error.isascii() and error.isdigit() and len(error) == 5 else 0
        return [
            Receipt(
                connector=self.name,
                carrier_id=sid[:64],
                state=state,
                error=error,
                error_code=self._settings.receipt_errors.get(error, code),
                done_date=fields.get("RawDlrDoneDate", "")[:10],
            )
        ]

    def _inbound(self, fields: Mapping[str, str]) -> InboundPart:
        sender, to = fields.get("From", "")[:64], fields.get("To", "")[:64]
        if not sender or not to:
            raise Refused(400, "From and To are missing")
        text = fields.get("Body", "")
        count = fields.get("NumMedia", "0")
        media = min(int(count), MAX_MEDIA) if count.isascii() and count.isdigit() and len(count) < 4 else 0
        return InboundPart(
            connector=self.name,
            from_=sender,
            to=to,
            text=text,
            encoding=segment.encoding_of(text),
            media_urls=[url for n in range(media) if (url := fields.get(f"MediaUrl{n}", ""))],
            carrier_id=(fields.get("MessageSid") or fields.get("SmsSid", ""))[:64],
        )


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _key(token: str) -> str:
    """The token as a header may carry it."""
    return "".join(c if "!" <= c <= "~" else "_" for c in token)[:255]
