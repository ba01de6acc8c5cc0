"""Connectors: one struct per kind, told apart by `kind` in the file."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, field

from trunkline.settings.kinds import Count, Country, ErrorCode, Name, Octet, PerSecond, Port, Seconds, Secret, Section

Text15 = Annotated[str, Meta(max_length=15)]
Text12 = Annotated[str, Meta(max_length=12)]
Text5 = Annotated[str, Meta(max_length=5)]
Status = Literal["delivered", "undelivered", "failed", "sent"]

HTTP_FIELDS = {"to": "{to}", "from": "{from}", "text": "{body}", "reference": "{sid}"}
HTTP_RECEIPT = {"id": "id", "status": "status", "error": "error"}
HTTP_INBOUND = {"id": "id", "from": "from", "to": "to", "body": "text"}
HTTP_STATUSES: dict[str, Status] = {
    "delivered": "delivered",
    "undelivered": "undelivered",
    "failed": "undelivered",
    "rejected": "undelivered",
    "expired": "undelivered",
}
"""The defaults of an `http` connector."""


class _Common(Section, frozen=True, kw_only=True, tag_field="kind"):
    """What every connector has."""

    name: Name
    """Unique; appears in each message's record, in metrics and in the paths of its callbacks."""
    mps: PerSecond = 0
    """Segments a second that the carrier allows in all; 0: no limit of its own."""
    window: Annotated[int, Meta(ge=1, le=10_000)] = 10
    """Submits under way at once (for SMPP: on each bind)."""
    receipts: bool = True
    """Whether the carrier sends delivery receipts; if not, a message lands as `sent` at once."""
    receipt_window_s: Annotated[float, Meta(ge=0, le=366 * 86_400)] = 0
    """Seconds a receipt is waited for; 0: `messaging.receipt_window_s`."""
    in_doubt: Literal["", "prefer-duplicate", "prefer-loss"] = ""
    """Overrides `messaging.in_doubt` for this carrier."""
    number_country: Country = ""
    """Country of inbound senders written in national form; empty: they are international."""
    receipt_errors: Mapping[str, ErrorCode] = {}
    """The carrier's own receipt error -> Twilio error code; what is not named is 30008 (unknown)."""


class Smpp(_Common, frozen=True, kw_only=True, tag="smpp"):
    """A carrier reached over SMPP. Length limits are SMPP 3.4's, section 5.2."""

    host: str
    """Host name or address of the SMSC."""
    port: Port = 2775
    """TCP port."""
    system_id: Text15
    """Who we are to the SMSC."""
    password: Secret = Secret("")
    """Its password (the specification allows 8 octets; more is sent as it is)."""
    system_type: Text12 = ""
    """Some operators ask for one."""
    address_range: str = ""
    """Sent in the bind; most operators ignore it."""
    address_ton: Octet = 0
    """TON of the address range."""
    address_npi: Octet = 0
    """NPI of the address range."""
    bind: Literal["trx", "tx+rx"] = "trx"
    """One transceiver, or a transmitter and a receiver, per bind."""
    binds: Annotated[int, Meta(ge=1, le=64)] = 1
    """Parallel binds."""
    tls: bool = False
    """Whether the connection is TLS."""
    tls_verify: bool = True
    """Whether the SMSC's certificate is checked."""
    tls_ca: str = ""
    """PEM file of the authority that signed it; empty: the system's."""
    version: Literal["3.3", "3.4", "5.0"] = "3.4"
    """interface_version of the bind."""
    service_type: Text5 = ""
    """service_type of each submit."""
    source_ton: Octet | None = None
    """TON of senders; none: 1 for E.164, 5 for alphanumeric, 3 for short codes."""
    source_npi: Octet | None = None
    """NPI of senders; none: 1 for E.164, else 0."""
    destination_ton: Octet = 1
    """TON of recipients."""
    destination_npi: Octet = 1
    """NPI of recipients."""
    plus: bool = False
    """Whether international numbers are written with a leading `+`."""
    default_alphabet: Literal["gsm7", "gsm7-packed", "latin1", "ascii"] = "gsm7"
    """What data_coding 0 means to this SMSC."""
    latin1: bool = False
    """Whether text that fits Latin-1 but not GSM-7 goes out with data_coding 3 instead of UCS-2."""
    long_messages: Literal["udh", "sar", "payload"] = "udh"
    """Long messages as user data headers, as SAR parameters, or whole in message_payload."""
    reference_width: Literal[8, 16] = 8
    """Bits of the concatenation reference."""
    registered_delivery: Literal["final", "failure", "final+intermediate", "none"] = "final"
    """Receipts asked for: registered_delivery 1, 2, 0x11 or 0."""
    submit_id: Literal["text", "decimal", "hex"] = "text"
    """How message ids in submit_sm_resp are written; `decimal` and `hex` are compared as numbers."""
    receipt_id: Literal["text", "decimal", "hex"] = "text"
    """How message ids in receipts are written."""
    validity: Literal["absolute", "relative", "none"] = "absolute"
    """Which form of validity_period the SMSC takes."""
    enquire_link_s: Seconds = 30
    """Idle seconds before an enquire_link; two without an answer drop the connection."""
    connect_timeout_s: Seconds = 10
    """Seconds to connect and bind."""
    response_timeout_s: Seconds = 30
    """Seconds to wait for submit_sm_resp; afterwards the message is in doubt."""
    reconnect_first_s: Seconds = 1
    """Wait before the first reconnect; it doubles, with jitter."""
    reconnect_longest_s: Seconds = 60
    """Longest wait between two reconnects."""
    statuses: Mapping[str, Literal["final", "retry", "throttle"]] = {}
    """command_status (`"0x0400"` or decimal) -> what it means here; unnamed ones as SMPP 3.4 says."""
    errors: Mapping[str, ErrorCode] = {}
    """command_status -> Twilio error code of the message."""


class Http(_Common, frozen=True, kw_only=True, tag="http"):
    """A carrier reached over its own HTTP API, described by templates."""

    url: str
    """Where messages are sent; may hold placeholders as the body does."""
    method: Literal["POST", "GET", "PUT"] = "POST"
    """HTTP method."""
    headers: Mapping[str, Secret] = {}
    """Request headers; values may be `env:` or `file:`."""
    username: str = ""
    """Basic authentication."""
    password: Secret = Secret("")
    """Basic authentication."""
    format: Literal["form", "json", "none"] = "json"
    """How `fields` are written; `none` with GET puts them into the query."""
    fields: Mapping[str, str] = field(default_factory=lambda: dict(HTTP_FIELDS))
    """Field -> template of `{to}`, `{from}`, `{body}`, `{sid}`, `{token}`, `{receipt_url}`; with JSON a dotted name
    nests."""
    success: tuple[Annotated[int, Meta(ge=200, le=299)], ...] = (200, 201, 202)
    """Response statuses that mean taken."""
    retry: tuple[Annotated[int, Meta(ge=300, le=599)], ...] = (408, 429, 500, 502, 503, 504)
    """Response statuses that mean not taken, try again; others are final."""
    id: str = "json:id"
    """Where the carrier's message id is in the response: `json:a.b.0.c`, `regex:...(group)...` or `header:Name`."""
    error: str = "json:error"
    """Where its error is, in the same notation."""
    errors: Mapping[str, ErrorCode] = {}
    """Its error -> Twilio error code."""
    timeout_s: Seconds = 15
    """Seconds for one request; afterwards the message is in doubt."""
    callback_token: Secret = Secret("")
    """Secret that the carrier's own requests must carry as `?token=` or bearer; empty: none asked."""
    receipt: Mapping[str, str] = field(default_factory=lambda: dict(HTTP_RECEIPT))
    """Our name (`id`, `status`, `error`, `time`) -> field of a receipt request (dotted for JSON), which comes to
    `/connectors/NAME/receipt`."""
    receipt_statuses: Mapping[str, Status] = field(default_factory=lambda: dict(HTTP_STATUSES))
    """The carrier's status, lower case -> ours; unnamed ones are ignored."""
    inbound: Mapping[str, str] = field(default_factory=lambda: dict(HTTP_INBOUND))
    """Our name -> field of an inbound request, which comes to `/connectors/NAME/inbound`."""


class Twilio(_Common, frozen=True, kw_only=True, tag="twilio"):
    """A carrier that speaks Twilio's own API: Twilio, or another Trunkline."""

    account_sid: Annotated[str, Meta(pattern=r"^AC[0-9a-f]{32}$")]
    """Its account SID."""
    auth_token: Secret
    """Its auth token; also checks the signature of its callbacks."""
    api_key: str = ""
    """An API key's SID to use instead of the account's own credentials."""
    api_secret: Secret = Secret("")
    """That key's secret."""
    base_url: str = "https://api.twilio.com"
    """Where its API is."""
    messaging_service_sid: str = ""
    """Sent instead of From when set."""
    timeout_s: Seconds = 15
    """Seconds for one request; afterwards the message is in doubt."""


class Loopback(_Common, frozen=True, kw_only=True, tag="loopback"):
    """No carrier: messages to our own numbers come back in, others are answered as if delivered."""

    delay_s: Annotated[float, Meta(ge=0, le=3600)] = 0.05
    """Seconds until the receipt."""
    reply: bool = True
    """Whether messages to our own numbers are received by them."""
    max_waiting: Count = 100_000
    """Receipts that may wait; beyond it submits are throttled."""


Connector = Smpp | Http | Twilio | Loopback
CONNECTORS: dict[str, type[Smpp] | type[Http] | type[Twilio] | type[Loopback]] = {
    "smpp": Smpp,
    "http": Http,
    "twilio": Twilio,
    "loopback": Loopback,
}
"""Every kind, by the `kind` it is written as."""
