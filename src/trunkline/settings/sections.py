"""The sections of the settings file, each limit with its unit in its name or its text.

The text under each field is what the reference page prints.
"""

from decimal import Decimal
from typing import Literal

from trunkline.settings.kinds import (
    Bytes,
    Count,
    CountOrNone,
    Currency,
    Money,
    Name,
    Partitions,
    PerSecond,
    Port,
    Prefix,
    Seconds,
    SecondsOrNone,
    Secret,
    Secrets,
    Section,
)

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
KIB = 1024
MIB = 1024 * KIB


class Server(Section, frozen=True, kw_only=True):
    """The HTTP listener: the REST API, carriers' HTTP callbacks, `/healthz`, `/readyz` and `/metrics`."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` or `::` for every interface."""
    port: Port = 8080
    """TCP port; 0 lets the system choose one."""
    tls_cert: str = ""
    """PEM file of the certificate chain; with `tls_key` it turns TLS on."""
    tls_key: str = ""
    """PEM file of the certificate's private key."""
    public_url: str = ""
    """How customers reach this server, e.g. `https://sms.example.com`; empty: made from host and port. Appears in
    links, and in the signatures of requests that come through a proxy."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks (CIDR) whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed."""
    max_body_bytes: Bytes = 256 * KIB
    """Largest request body; a larger one gets 413."""
    max_header_bytes: Bytes = 32 * KIB
    """Largest request head; a larger one gets 431."""
    max_connections: Count = 10_000
    """Open connections at once; one more is told 503 and closed."""
    backlog: Count = 2048
    """Connections the system queues before they are accepted."""
    keep_alive_s: Seconds = 75
    """Idle seconds after which a connection is closed."""
    request_timeout_s: Seconds = 30
    """Seconds within which a request must have arrived whole."""
    shutdown_s: Seconds = 30
    """Seconds that a stop may take: calls that are up may end before they are hung up, while new ones are refused
    (503), then requests, submits and callbacks under way. What remains is taken up at the next start."""
    supervisor: Literal["auto", "yes", "no"] = "auto"
    """Whether a small process keeps the listening sockets and runs the server as its child, so that `trunkline restart`
    and `trunkline upgrade` fail no request; `auto`: outside the development profile, and wherever calls are taken."""
    metrics_token: Secret = Secret("")
    """Bearer token that `/metrics` asks for; empty: open to whoever reaches the port."""


class Data(Section, frozen=True, kw_only=True):
    """Where data lies and what it must outlive."""

    path: str = "./var"
    """Folder of the databases, the archive segments, the media and (if kept there) the master key."""
    survives: Literal["process", "power"] = "power"
    """What an acknowledged message must outlive. `power`: synced to disk before the answer; the start is refused when
    the file system cannot give it."""
    min_free_bytes: Bytes = 256 * MIB
    """Below this much free disk new messages are refused (503), so that receipts can still be stored."""
    media_bytes: Bytes = 10 * 1024 * MIB
    """Largest total of stored media; beyond it messages with media fail, and files of received ones are left out."""


class Storage(Section, frozen=True, kw_only=True):
    """Where the queue and the database are kept. With `postgres` archive and media stay in the data folder unless
    `objects.url` names a place for them. Connection strings are PostgreSQL's (`postgresql://...` or
    `host=a,b dbname=...`, several hosts being the servers of one cluster); they may hold a password and are never
    shown."""

    engine: Literal["sqlite", "postgres"] = "sqlite"
    """`sqlite`: files in the data folder. `postgres`: needs `pip install trunkline[cluster]` and PostgreSQL 13 or
    newer."""
    queue: Secrets = Secrets()
    """The database of the queue, or a list of several, best with their primaries in different zones (in the
    environment: one a line). Without a cluster it is one, and one server writes to it at a time; another one is refused
    at its start. Their number and order are fixed for the life of a cluster."""
    partitions: Partitions = 1
    """Parts of the queue, each of which is written by one node of the cluster at a time, spread evenly over the queue's
    databases: at least as many as there will ever be nodes, best a multiple of the number of databases. Fixed for the
    life of a cluster."""
    database: Secret = Secret("")
    """The database of accounts, numbers, services; may be the same. Any number of processes."""
    survives: Literal["process", "power", "host", "zone", "region"] = "power"
    """What an acknowledged write must outlive. The start is refused, and writes wait later on, where the server's own
    settings and the standbys that it has do not give it (`postgres` only)."""
    zones: tuple[str, ...] = ()
    """For `zone` and `region`: `NAME=ZONE` or `NAME=REGION/ZONE` of each PostgreSQL server, by the `application_name`
    with which it follows the primary."""
    wait_s: Seconds = 10
    """Seconds that writes wait for a server before they are refused (503 with Retry-After)."""
    speaks: CountOrNone = 1000
    """The newest schema pivot (its number in `trunkline schema status`) whose new shape this server may use, if its
    release knows it; 0: none, so that it goes on as the release before did (docs/howto/schema-pivots.md)."""


class Security(Section, frozen=True, kw_only=True):
    """Secrets at rest, and which addresses webhooks may reach."""

    master_key: Secret = Secret("")
    """32 bytes in base64 or hex that encrypt tokens, passwords and keys at rest. Empty: `master.key` in the data
    folder, made at the first start, where the profile allows it."""
    webhook_private_networks: bool = False
    """Whether webhooks may go to loopback and private addresses, link-local ones excepted (a risk: server-side request
    forgery)."""
    webhook_allow: tuple[str, ...] = ()
    """Networks (CIDR), addresses or host names that webhooks may reach even though they are private."""
    webhook_http: bool = True
    """Whether webhook URLs may be plain `http://`."""
    failed_logins_per_minute: Count = 600
    """Wrong credentials from one address in a minute before it gets 429."""


class Webhooks(Section, frozen=True, kw_only=True):
    """Requests to customers' URLs."""

    connect_timeout_s: Seconds = 5
    """Seconds to connect, TLS included (Twilio: 5)."""
    read_timeout_s: Seconds = 15
    """Seconds until the response's head (Twilio: 15)."""
    total_timeout_s: Seconds = 15
    """Seconds for the whole request."""
    per_host: Count = 64
    """Requests at once to one host; a slow host never holds up another."""
    in_flight: Count = 1024
    """Requests at once in all."""
    status_tries: Count = 12
    """Attempts to deliver a status callback, the first one included; then it is given up and an alert raised."""
    inbound_tries: Count = 1
    """Attempts at the primary URL of an inbound message before the fallback URL (Twilio: 1)."""
    retry_first_s: Seconds = 1
    """Wait before the first retry; it doubles each time, with jitter."""
    retry_longest_s: Seconds = HOUR_S
    """Longest wait between two attempts."""
    give_up_s: Seconds = DAY_S
    """Age at which a callback is given up whatever its attempts."""
    response_bytes: Bytes = 64 * KIB
    """Largest response read (Twilio: 64 KiB of TwiML)."""
    redirects: CountOrNone = 10
    """Redirects followed."""
    keep_attempts: Count = 20
    """Attempts kept with the message's record."""


class Messaging(Section, frozen=True, kw_only=True):
    """What messages may be, how fast they leave and how long they wait."""

    long_code_mps: PerSecond = 1
    """Segments a second from one long code (Twilio: 1)."""
    toll_free_mps: PerSecond = 3
    """Segments a second from one toll-free number (Twilio: 3)."""
    short_code_mps: PerSecond = 100
    """Segments a second from one short code (Twilio: 100)."""
    alpha_mps: PerSecond = 10
    """Segments a second from one alphanumeric sender (Twilio: 10)."""
    queue_s: Seconds = 4 * HOUR_S
    """What one sender may have waiting, in seconds of its own rate; beyond it a message fails with 21611 or 30001."""
    validity_s: Seconds = 10 * HOUR_S
    """Default and largest ValidityPeriod, seconds (Twilio: 36,000); an expired message fails, unsent."""
    max_segments: Count = 24
    """Most segments of one message; 24 hold 1600 characters of UCS-2."""
    receipt_window_s: Seconds = 3 * DAY_S
    """After this long without a receipt a message lands as `sent`; a later receipt appends a revision."""
    in_doubt: Literal["prefer-duplicate", "prefer-loss"] = "prefer-duplicate"
    """When a carrier's answer was lost: send again, or never again. Each message's record says that it was in doubt."""
    max_attempts: Count = 5
    """Attempts at carriers for one message; throttling and a lost connection burn none."""
    retry_first_s: Seconds = 1
    """Wait before the second attempt; it doubles, with jitter."""
    retry_longest_s: Seconds = 300
    """Longest wait between two attempts."""
    part_window_s: Seconds = 300
    """How long the parts of a long inbound message are waited for; then what came is delivered."""
    part_count: Count = 100_000
    """Parts of incomplete inbound messages kept at once."""
    carrier_id_s: Seconds = 14 * DAY_S
    """How long a carrier's message id still leads to its message, and a receipt waits for the message it belongs to."""
    schedule_min_s: Seconds = 300
    """SendAt must be at least this far ahead (Twilio: 300 seconds)."""
    schedule_max_s: Seconds = 35 * DAY_S
    """SendAt must be at most this far ahead (Twilio: 35 days)."""
    idempotency_s: Seconds = DAY_S
    """How long the response to an `Idempotency-Key` is replayed."""
    idempotency_wait_s: SecondsOrNone = 2
    """How long a request waits for its twin before it gets 409."""
    lanes: Count = 100_000
    """Lanes kept in memory at once; idle ones leave first."""


class Archive(Section, frozen=True, kw_only=True):
    """Landed messages: recent rows, Parquet segments, retention."""

    rollup_rows: Count = 100_000
    """Recent rows that make a segment."""
    rollup_age_s: Seconds = HOUR_S
    """Age of the oldest recent row at which a segment is written all the same."""
    segment_rows: Count = 500_000
    """Most rows of one segment; small ones are merged up to it."""
    retention_days: CountOrNone = 0
    """Days that landed messages are kept, unless the account says otherwise; 0: for ever."""
    erase_within_s: Seconds = DAY_S
    """Within this time a compaction has removed the bytes of what was deleted or redacted."""
    query_timeout_s: Seconds = 60
    """Longest run of one analytical query."""
    query_rows: Count = 100_000
    """Most rows an analytical query returns."""
    worker_memory_bytes: Bytes = 512 * MIB
    """Memory limit of the query engine."""


class SmppServer(Section, frozen=True, kw_only=True):
    """The SMPP listener: customers' own SMPP clients."""

    enabled: bool = False
    """Whether it listens."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 2775
    """TCP port; 0 lets the system choose one."""
    tls_cert: str = ""
    """PEM file of the certificate chain; with `tls_key` the listener speaks TLS."""
    tls_key: str = ""
    """PEM file of the private key."""
    system_id: str = "trunkline"
    """What we call ourselves in bind responses."""
    max_connections: Count = 1000
    """Connections at once."""
    bind_timeout_s: Seconds = 10
    """Seconds within which a connection must bind."""
    idle_s: Seconds = 90
    """Seconds of silence after which a connection is dropped."""
    window: Count = 100
    """Requests of one bind that may wait for our answer; more get ESME_RTHROTTLED."""
    response_timeout_s: Seconds = 30
    """Seconds we wait for the answer to a deliver_sm before it is sent again."""


class Limits(Section, frozen=True, kw_only=True):
    """Bounds that guard the process as a whole."""

    accounts: Count = 100_000
    """Accounts and subaccounts."""
    numbers: Count = 1_000_000
    """Numbers in the inventory."""
    media_per_message: Count = 10
    """MediaUrl parameters of one message."""
    media_bytes: Bytes = 5 * MIB
    """Largest single media file."""
    requests_per_second: PerSecond = 0
    """API requests a second of one account before it gets 429 with 20429; 0: no limit."""
    in_flight_bytes: Bytes = 512 * MIB
    """Request bodies held in memory at once, all connections together."""


class Log(Section, frozen=True, kw_only=True):
    """What is written to standard error."""

    format: Literal["json", "console"] = "json"
    """One JSON object a line, or lines for people."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important level written."""


class Route(Section, frozen=True, kw_only=True):
    """One way out. The longest matching prefix wins, then the highest `priority`; `weight` shares out equals."""

    name: Name
    """Appears in each message's record."""
    connector: Name
    """Name of a connector."""
    prefixes: tuple[Prefix, ...] = ("",)
    """Destinations (leading digits); an empty one matches all."""
    senders: tuple[str, ...] = ()
    """Only for these senders: numbers, short codes, alphanumeric ids, or prefixes ending in `*`; empty: all."""
    accounts: tuple[str, ...] = ()
    """Only for these account SIDs; empty: all."""
    priority: int = 0
    """Higher first among equally long prefixes; the rest are tried when a carrier is unavailable or rejects."""
    weight: Count = 1
    """Share among routes of equal prefix length and priority."""
    cost: Money = Decimal(0)
    """What the carrier charges a segment."""
    price: Money | None = None
    """What the account pays a segment; none: from `[[rates]]`."""


class Rate(Section, frozen=True, kw_only=True):
    """What accounts pay for a segment to (or from) a destination; the longest prefix wins."""

    prefix: Prefix
    """Leading digits of the number; empty matches all."""
    price: Money
    """A segment's price, outbound."""
    inbound_price: Money = Decimal(0)
    """A segment's price, inbound."""
    currency: Currency = "USD"
    """ISO 4217."""
