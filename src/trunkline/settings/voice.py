"""The sections of the settings file that are about calls."""

from decimal import Decimal
from typing import Literal

from trunkline.settings.kinds import (
    Bytes,
    Codec,
    Count,
    CountOrNone,
    Country,
    Money,
    PerSecond,
    Port,
    Seconds,
    SecondsOrNone,
    Section,
)
from trunkline.settings.sections import HOUR_S, KIB, MIB


class Sip(Section, frozen=True, kw_only=True):
    """The SIP listener: carriers' trunks and phones. Without it there are no calls."""

    enabled: bool = False
    """Whether it listens, and media processes are started."""
    host: str = "127.0.0.1"
    """Address to listen on, UDP and TCP; an IPv6 address works."""
    port: Port = 5060
    """UDP and TCP port; 0 lets the system choose one."""
    tls_port: Port = 0
    """Port for TLS, 5061 by custom; 0: TLS is not listened for. It needs `tls_certificate` and `tls_key`."""
    tls_certificate: str = ""
    """PEM file: our certificate, followed by those of its authorities. It is read again within seconds when it changes,
    like the other TLS files. Shown to peers that we connect to, too, if they ask."""
    tls_key: str = ""
    """PEM file: its private key, without a password; empty: it is in `tls_certificate`."""
    tls_client_ca: str = ""
    """PEM file: authorities of certificates that peers may show who connect to us (`trunks.tls_names`); a certificate
    of others is refused. Empty: none is asked for."""
    tls_ca: str = ""
    """PEM file: authorities, beside the system's, of those whom we connect to."""
    tls_verify: bool = True
    """Whether those whom we connect to must show a certificate of a known authority that names their host."""
    dns_servers: tuple[str, ...] = ()
    """Name servers, `192.0.2.53` or `[2001:db8::53]:5353`, for the hosts of SIP URIs; empty: the system's."""
    advertised: str = ""
    """Host name or address that Contact and Via name; empty: `host`, or the local address towards the peer."""
    domain: str = ""
    """Realm of digest challenges and host part of our own SIP URIs; empty: the advertised address."""
    realm: str = "trunkline"
    """Realm of SIP domains' digest challenges. Passwords are kept for this realm only: another one makes all of them
    worthless, until they are set again."""
    domain_suffix: str = "sip.localhost"
    """What the accounts' SIP domains end with: `<name>.sip.example.com`. `sip.twilio.com` is taken as well."""
    trunk_domain_suffix: str = "pstn.localhost"
    """What the accounts' own trunks end with, where their PBXs call to; `pstn.twilio.com` is taken as well."""
    register_min_s: Seconds = 60
    """Shortest registration that a phone may ask for; a shorter one gets 423."""
    register_max_s: Seconds = 3600
    """Longest registration, and that of a phone which asks for none; more is cut to it."""
    registrations: Count = 50_000
    """Contacts of phones registered at once; one more gets 503."""
    user_contacts: Count = 10
    """Contacts of one user at once; one more takes the place of the one that was refreshed longest ago (32007)."""
    digest_algorithms: tuple[Literal["MD5", "SHA-256"], ...] = ("MD5",)
    """What the phones of SIP domains are challenged for, the favourite first (RFC 8760). Many phones give up when they
    are shown SHA-256, even beside MD5."""
    user_agent: str = "Trunkline"
    """Value of User-Agent and Server."""
    max_message_bytes: Bytes = 64 * KIB
    """Largest SIP message; a longer one over TCP ends the connection."""
    max_connections: Count = 1000
    """TCP and TLS connections at once."""
    max_transactions: Count = 50_000
    """Transactions at once; beyond it new requests get 503."""
    t1_s: Seconds = 0.5
    """RFC 3261 T1: estimate of the round trip."""
    invite_timeout_s: Seconds = 180
    """How long an INVITE may stay without a final response (Timer C)."""
    session_expires_s: SecondsOrNone = 1800
    """Session interval (RFC 4028) that is agreed on with peers that know session timers: a call that neither side
    refreshes in time is hung up; 0: asked for by peers only."""
    min_se_s: Count = 90
    """Shortest session interval that is agreed on (RFC 4028: 90); a shorter one gets 422."""
    srtp_without_tls: bool = False
    """Whether keys of SRTP are given and taken over UDP and TCP as well, where whoever reads the messages can listen.
    Off: such an offer gets 488."""
    source_requests_per_second: PerSecond = 100
    """Requests outside dialogs that one unauthenticated source may send a second; more are dropped."""
    edges: tuple[str, ...] = ()
    """Addresses of edge proxies in front of this node (docs/howto/sip-edge.md): what they say about where a request
    comes from (`P-Edge-Source`) is believed, and they are neither banned nor limited themselves."""
    answer_strangers: bool = False
    """Whether requests are answered whose source is no trunk, no phone that has logged in, and which aim at no SIP
    domain or trunk of an account. Off: they get no answer at all, so that scanners see nothing here."""
    ban_after: CountOrNone = 10
    """Wrong logins, calls to numbers and domains that are none, and requests of scanners in `ban_window_s`, after which
    an address is not listened to for `ban_s`; 0: never. Trunks, and addresses from which a login was right lately, are
    spared."""
    ban_window_s: Seconds = 60
    """The window in which they are counted."""
    ban_s: Seconds = HOUR_S
    """Length of a ban; 300 s at most where the source may be forged (UDP without an answer to a challenge)."""
    scanner_agents: tuple[str, ...] = (
        "friendly-scanner", "friendly-request", "sipvicious", "sipcli", "sip-scan", "sipscan", "sundayddr", "iwar",
        "pplsip", "smap", "siparmyknife", "sipptk", "vaxsipuseragent", "sipsak", "custom sip scanner",
    )  # fmt: skip
    """What the User-Agent of scanners contains, in any case: such requests of strangers get no answer at all."""


class MediaEngine(Section, frozen=True, kw_only=True):
    """The media process: RTP ports, buffers, recordings."""

    host: str = ""
    """Address of RTP sockets; empty: `sip.host`."""
    advertised: str = ""
    """Address that SDP names; empty: `sip.advertised` where that is an address (no name), or the local address towards
    the peer."""
    port_min: Port = 20_000
    """Lowest RTP port; outside the system's ephemeral range."""
    port_max: Port = 29_998
    """Highest RTP port."""
    legs: Count = 1000
    """Legs at once in the media process; a call beyond it is refused with 503."""
    quarantine_s: SecondsOrNone = 5
    """Rest of a port after a call, so that late packets of one never reach another."""
    rtp_timeout_s: SecondsOrNone = 60
    """Silence of RTP and RTCP after which a call is ended; 0: never."""
    jitter_min_ms: Count = 40
    """Least audio held back against jitter."""
    jitter_max_ms: Count = 200
    """Most audio held back against jitter."""
    opus_bitrate: Count = 28_000
    """Bits a second of Opus that is sent, repeats for lost packets included: 6000 to 64000. With much less than this
    there are no repeats."""
    opus_complexity: CountOrNone = 1
    """What the coding of Opus may spend, 0 to 10; from 2 on it costs twice as much, which is hardly heard at 8 kHz."""
    dtmf_in_band: bool = True
    """Whether keys are heard in the audio too, where a peer sends no telephone-events."""
    prompt_bytes: Bytes = 256 * MIB
    """Prepared prompts and spoken texts kept on disk."""
    audio_file_bytes: Bytes = 40 * MIB
    """Largest audio file that `<Play>` fetches."""
    recording_bytes: Bytes = 10 * 1024 * MIB
    """Largest total of recordings kept; beyond it a recording fails."""
    priority: bool = True
    """Whether the media process asks for real-time priority (it goes on without)."""


class Voice(Section, frozen=True, kw_only=True):
    """What calls may be and how they are limited."""

    calls_per_second: PerSecond = 1
    """Calls a second that one account's API requests start; more wait (Twilio: 1)."""
    calls_at_once: CountOrNone = 0
    """Calls of one account at once; 0: no limit of its own."""
    trunk_calls_per_second: PerSecond = 1
    """Calls a second that the PBX of an account's own trunk may start, for each of its trunks (Twilio: 1); more get 503
    and alert 32001. 0: no limit."""
    queue_s: Seconds = 4 * HOUR_S
    """How long a call may wait for its turn before it fails."""
    time_limit_s: Seconds = 4 * HOUR_S
    """Longest call (Twilio: 4 hours)."""
    documents: Count = 5000
    """TwiML documents of one call; one more ends it (12400). Enough to ask every 3 seconds for `time_limit_s`."""
    verbs: Count = 50_000
    """Verbs of one call."""
    recording_max_s: Seconds = 4 * HOUR_S
    """Longest recording."""
    recording_days: CountOrNone = 0
    """Days that recordings are kept, then they are removed with their audio; 0: until they are deleted (Twilio)."""
    codecs: tuple[Codec, ...] = ("PCMU", "PCMA")
    """Of calls from and to phones, in the order of preference. Calls over trunks have their trunk's."""
    busy_on_decline: bool = True
    """Whether a callee's 603 ends a call `busy` (Twilio), else `no-answer`."""
    caller_ids: tuple[str, ...] = ()
    """Numbers (E.164) that every account may show as caller although it does not own them."""
    emergency_trunk: str = ""
    """Name of the trunk by which emergency numbers (`911`, `112`: those of the country of the number shown as caller)
    are called, whatever limits and permissions say. Empty: they are refused. Ask the carrier first what it does with
    them, and which address it tells for your numbers."""
    countries: tuple[Country, ...] = ()
    """Countries that may be called, `["US", "DE"]` (`US` has Canada with it); empty: all. No account gets more than
    these; each may permit itself less (voice v1 API)."""
    high_risk: bool = True
    """Whether accounts may permit themselves special services (premium numbers) and numbers favoured by toll fraud,
    which are blocked until they do."""
    high_risk_file: str = ""
    """Your own list of such numbers, in place of the built-in one: lines `+37181 special`, `+881 tollfraud`."""
    sip_to_trunks: bool = False
    """Whether `sip:` URIs may name the gateways of `[[trunks]]`: who may can call past the permissions and prices,
    since carriers believe our address."""
    spend_per_hour: Money = Decimal(0)
    """What an account's calls may cost in an hour, at the trunks' prices; then its new calls are refused (21216, 13225)
    until less was spent in the last hour. 0: no limit."""
    spend_per_day: Money = Decimal(0)
    """The same for 24 hours."""
    cut_on_limit: bool = False
    """Whether calls that are up are cut, too, within seconds of such a limit."""
    high_risk_calls_per_hour: CountOrNone = 0
    """Calls of an account to high-risk numbers in an hour; 0: no limit."""
    recording_login: bool = True
    """Whether the audio of recordings asks for a login; without, who knows its URL may hear it."""


class Speech(Section, frozen=True, kw_only=True):
    """How `<Say>` speaks."""

    engine: Literal["auto", "hibari", "espeak", "tones"] = "auto"
    """`auto`: hibari for English, espeak-ng for other languages. `tones`: every text is a tone pattern of its own, for
    tests."""
    workers: Count = 1
    """Processes that speak."""
    max_characters: Count = 4096
    """Longest text of one `<Say>` (Twilio: 4096); the rest is left out with a warning."""
    timeout_s: Seconds = 10
    """Longest synthesis of one text."""
    idle_s: SecondsOrNone = 600
    """A process that has had nothing to say for so long ends, which frees some 180 MB; the next new text waits 1 s for
    another. 0: it stays."""
