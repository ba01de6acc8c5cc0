"""`[[trunks]]`: carriers, a PBX, simulated phones; how calls go out to them and come in from them."""

from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta

from trunkline.settings.kinds import (
    Codec,
    Count,
    CountOrNone,
    Currency,
    Money,
    Name,
    PerSecond,
    Prefix,
    Seconds,
    SecondsOrNone,
    Secret,
    Section,
)

NumberFormat = Literal["plus", "e164", "national", "international"]
"""How a number is written: `+4930123456`, `4930123456`, `030123456` (other countries' with the international prefix),
`004930123456`."""
DialDigits = Annotated[str, Meta(pattern=r"^[0-9*#+]{0,16}$")]
"""What is put before a number."""
Digits = Annotated[str, Meta(pattern=r"^[0-9]{0,6}$")]
FailoverStatus = Annotated[str, Meta(pattern=r"^(3|4|5)([0-9]{2}|xx)$")]
"""A status or a class of statuses of final responses: `404`, `5xx`."""


class Gateway(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where calls of a trunk go out to. A plain string in the list is one with nothing but a `uri`."""

    uri: str
    """`sip:carrier.example.com`, `sip:10.0.0.5:5070;transport=tcp`, `sips:carrier.example.com`."""
    priority: int | None = None
    """Higher first; those without one come last, in the order of the list."""
    weight: Count = 1
    """Share of the calls among gateways of one priority."""
    calls_at_once: CountOrNone = 0
    """Calls that go out to it at once; more take the next gateway. 0: no limit of its own."""


class Trunk(Section, frozen=True, kw_only=True):
    """A way in and out for calls: a carrier, a PBX or simulated phones."""

    name: Name
    """Appears in each call's record."""
    gateways: tuple[str | Gateway, ...] = ()
    """Where calls go out to, tried in order: SIP URIs like `sip:carrier.example.com`, or tables
    `{ uri = "sip:carrier.example.com", priority = 2, weight = 3, calls_at_once = 30 }`. Names are looked up by
    NAPTR, SRV and A or AAAA records where the URI has no port (RFC 3263)."""
    addresses: tuple[str, ...] = ()
    """Addresses or networks (CIDR) whose INVITEs are taken without a login. Empty: only by digest."""
    tls_names: tuple[str, ...] = ()
    """Names in verified TLS client certificates whose INVITEs are taken without a login (`*.carrier.example` too)."""
    username: str = ""
    """Digest user: ours towards the gateways, theirs towards us."""
    password: Secret = Secret("")
    """Its password."""
    prefixes: tuple[Prefix, ...] = ("",)
    """Destinations (leading digits) that go out here; an empty one matches all, none: only inbound."""
    priority: int = 0
    """Higher first among equally long prefixes."""
    weight: Count = 1
    """Share among trunks of equal prefix length and priority."""
    calls_per_second: PerSecond = 0
    """Calls a second that go out; 0: no limit of its own."""
    calls_at_once: CountOrNone = 0
    """Calls at once; 0: no limit of its own."""
    inbound_calls_per_second: PerSecond = 0
    """Calls a second that come in; more get 503. 0: no limit of its own."""
    inbound_calls_at_once: CountOrNone = 0
    """Calls that have come in, at once; more get 503. 0: no limit of its own."""
    domain: str = ""
    """The carrier's SIP domain, where it wants one in Request-URI, From and registration that is not its gateway's
    host. Empty: the gateway's in Request-URIs; in From the registrar's with `register`, else `sip.domain`."""
    advertised: str = ""
    """Address that Via, Contact and SDP (no name there) tell its gateways and `addresses`; empty: `sip.advertised` and
    `media.advertised`."""
    register: bool = False
    """Whether it wants us to register (RFC 3261 section 10), with `username` and `password`."""
    registrars: tuple[str, ...] = ()
    """Where to register, at each of them; empty: the first gateway."""
    register_user: str = ""
    """User of the address that is registered; empty: `username`."""
    register_s: Annotated[float, Meta(ge=60, le=86_400)] = 600
    """Seconds that a registration is asked for; it is renewed well before its end."""
    contact_user: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._+-]{0,64}$")] = ""
    """User of the Contact that is registered; empty: one that nobody can guess, by which incoming calls are known."""
    options_ping_s: SecondsOrNone = 0
    """How often each gateway is asked for OPTIONS; one that does not answer is tried last. 0: never; then only calls
    tell that a gateway is down."""
    failover: tuple[FailoverStatus, ...] = ("408", "5xx")
    """Final responses after which the next gateway or trunk is tried, if it has not rung. 486 and 6xx never are: a
    person or the whole network has declined."""
    failover_s: Seconds = 4
    """How long a gateway may be silent before the next one is tried."""
    country_code: Digits = ""
    """Calling code of national numbers in From, To and Request-URI, like `49`; empty: numbers come in as E.164."""
    national_prefix: Digits = "0"
    """What a national number begins with; empty: nothing."""
    international_prefix: Digits = "00"
    """What an international number begins with where it has no `+`."""
    called_format: NumberFormat = "plus"
    """How numbers that are called are written: `plus` +4930123456, `e164` 4930123456, `national` 030123456 (other
    countries' as `international`), `international` 004930123456."""
    called_strip: CountOrNone = 0
    """Characters taken off the front of a number that is called, once it is written so."""
    called_add: DialDigits = ""
    """What is put before it then."""
    caller_format: NumberFormat = "plus"
    """How the caller's number is written."""
    inbound_strip: CountOrNone = 0
    """Digits taken off the front of called numbers that come in."""
    inbound_add: DialDigits = ""
    """What is put before them then."""
    user_phone: bool = False
    """Whether URIs with a number get `;user=phone`."""
    from_user: Literal["caller", "username"] = "caller"
    """Who stands in From: the caller, or our login name, for carriers that want to see their customer there."""
    identity_headers: tuple[Literal["pai", "ppi", "rpid"], ...] = ("pai",)
    """Headers that tell the caller's number besides From: P-Asserted-Identity, P-Preferred-Identity,
    Remote-Party-ID."""
    asserted_number: str = ""
    """E.164 number of ours that these headers tell where the caller has none or withholds it; empty: none is told."""
    trusted: bool = True
    """Whether its P-Asserted-Identity, Remote-Party-ID, caller names and verification statuses are believed."""
    caller_from: Literal["from", "asserted"] = "from"
    """Whose number wins where From and the asserted identity both have one."""
    diversion: Literal["none", "diversion", "history-info"] = "none"
    """How calls that a `<Dial>` passes on with their caller's number tell the number that was called."""
    identity: bool = False
    """Whether the signed Identity (RFC 8224) of such a call goes along."""
    follow_redirects: bool = False
    """Whether a 3xx of a gateway is followed."""
    refers: bool = False
    """Whether `<Refer>` may ask its far end to call somewhere else. What a carrier calls then is charged to us, past
    our limits, prices and permissions: only for a PBX (and simulated phones, which always may)."""
    session_timer_s: SecondsOrNone = 0
    """Session-Expires that is asked for (RFC 4028), at least 90; 0: `sip.session_expires_s`."""
    srtp: Literal["off", "optional", "required"] = "off"
    """Encrypted audio (SRTP, keys in the SDP), over TLS only (see `sip.srtp_without_tls`). `optional`: offered, and
    done without where it is refused. Calls that come in over TLS may have it in any case; `required`: they must."""
    codecs: tuple[Codec, ...] = ("PCMU", "PCMA")
    """In the order of preference."""
    price: Money = Decimal(0)
    """What an account pays for a minute out."""
    inbound_price: Money = Decimal(0)
    """What an account pays for a minute in."""
    cost: Money = Decimal(0)
    """What the carrier charges a minute."""
    currency: Currency = "USD"
    """ISO 4217."""
    simulated: bool = False
    """Whether the simulated phones are behind it (development and tests)."""

    @property
    def gateway_list(self) -> tuple[Gateway, ...]:
        """The gateways as tables."""
        return tuple(Gateway(uri=one) if isinstance(one, str) else one for one in self.gateways)
