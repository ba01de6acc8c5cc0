"""TLS for SIP without I/O: what is trusted, who a peer is, and one session as bytes in, bytes out (RFC 3261 section
26.3, RFC 5922).

    ciphertext -> TlsSession.receive -> messages;  messages -> TlsSession.seal;  TlsSession.take -> ciphertext

Nothing before TLS 1.2, no renegotiation. A session that is being set up holds what OpenSSL's own limits allow (a flight
of a few kilobytes), whatever comes in.
"""

import logging
import os
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

logger = logging.getLogger(__name__)

READ_BYTES: Final = 64 * 1024  # of plaintext at once
MAX_NAMES: Final = 100  # names of a certificate that are looked at
HANDSHAKE_RECORD: Final = 0x16
"""First octet of a TLS client: who sends another does not speak TLS, and gets no answer."""
_CLOSED: Final = (ssl.SSLZeroReturnError, ssl.SSLEOFError)


class TlsError(OSError):
    """Certificates or keys cannot be used; the text is one line for the operator."""


class Certificate(NamedTuple):
    """Who a peer has proved to be."""

    names: tuple[str, ...]
    """Lower case, without the `sip:` of URIs: host names, addresses; the common name only where there is nothing else
    (RFC 5922 section 7.1)."""

    def names_host(self, host: str) -> bool:
        """Whether it is a certificate of this host. `*` stands for one leftmost label: RFC 5922 section 7.2 forbids
        it, but large carriers have such certificates."""
        host = _address(host.lower().rstrip(".").strip("[]"))
        above = host.partition(".")[2]
        return host in self.names or (bool(above) and not _is_address(host) and f"*.{above}" in self.names)


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Paths of PEM files; empty ones are not used."""

    certificate: str = ""
    """Ours, with the chain up to the authority: for those who connect, and for peers that ask for it."""
    key: str = ""
    client_ca: str = ""
    """Those who connect are asked for a certificate of these authorities; one of others is refused, none is not."""
    ca: str = ""
    """Authorities beside the system's for those whom we connect to."""
    verify: bool = True
    """Whether those whom we connect to have to prove who they are."""


class TlsContexts:
    """The settings of new sessions. Files are read again when they change: `refresh`, now and then."""

    def __init__(self, config: TlsConfig) -> None:
        self.config = config
        self.server: ssl.SSLContext | None = None
        """For those who connect; None without a certificate, or as long as its files cannot be read."""
        self._client: ssl.SSLContext | None = None
        self._seen: list[tuple[int, int, int]] = []

    def load(self) -> None:
        """Read the files. Raises TlsError; what was read before stays in use."""
        self._seen = self._stamps()
        server = self._make_server() if self.config.certificate else None
        self._client, self.server = self._make_client(), server

    def refresh(self) -> bool:
        """Read the files again if they have changed; whether something new is in use. Sessions that stand go on with
        what they began with. Files that do not fit together yet are left for the next change."""
        if self._stamps() == self._seen:
            return False
        try:
            self.load()
        except TlsError as error:
            logger.error("%s; what was read before is used", error)
            return False
        logger.info("TLS certificates were read again")
        return True

    @property
    def client(self) -> ssl.SSLContext:
        """For those whom we connect to. Raises TlsError."""
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def _stamps(self) -> list[tuple[int, int, int]]:
        own = self.config
        return [_stamp(path) for path in (own.certificate, own.key, own.client_ca, own.ca)]

    def _make_server(self) -> ssl.SSLContext:
        context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._identify(context)
        if self.config.client_ca:
            _trust(context, self.config.client_ca, "sip.tls_client_ca")
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _make_client(self) -> ssl.SSLContext:
        context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        context.check_hostname = False  # RFC 5922's rules are applied after it: they know SIP URIs
        if self.config.certificate:
            self._identify(context)
        if not self.config.verify:
            context.verify_mode = ssl.CERT_NONE
            return context
        context.load_default_certs()
        if self.config.ca:
            _trust(context, self.config.ca, "sip.tls_ca")
        return context

    def _identify(self, context: ssl.SSLContext) -> None:
        own = self.config
        try:
            context.load_cert_chain(own.certificate, own.key or None, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise TlsError(
                f"the TLS certificate {own.certificate} with the key {own.key or own.certificate} cannot be used: "
                f"{_reason(error)}; see sip.tls_certificate and sip.tls_key"
            ) from None


class TlsSession:
    """One connection's. `ready` once both sides have agreed."""

    __slots__ = ("_incoming", "_object", "_outgoing", "closed", "ready")

    def __init__(self, context: ssl.SSLContext, *, server: bool, name: str = "") -> None:
        """`name`: whom we connect to; told to it if it is a host name, so that it can choose its certificate."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        shown = None if server or not name or _is_address(name) else name
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=shown)
        self.ready = False
        self.closed = False
        """Whether the peer has ended it in order: nothing more comes."""

    def start(self) -> None:
        """The client's first flight, for `take`."""
        self._shake()

    def receive(self, data: bytes) -> bytes:
        """What was said; empty while there is nothing. Raises ssl.SSLError, after which it is over."""
        self._incoming.write(data)
        if not self.ready and not self._shake():
            return b""
        pieces = []
        while not self.closed:
            try:
                piece = self._object.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except _CLOSED:
                piece = b""
            if not piece:
                self.closed = True
            pieces.append(piece)
        return b"".join(pieces)

    def seal(self, data: bytes) -> None:
        """Say something; not before it is `ready`. Raises ssl.SSLError."""
        self._object.write(data)

    def take(self) -> bytes:
        """What is to be sent."""
        return self._outgoing.read() if self._outgoing.pending else b""

    @property
    def peer(self) -> Certificate | None:
        """Who the other side has proved to be; None if it did not."""
        return certificate_of(self._object.getpeercert())

    def _shake(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.ready = True
        return True


def certificate_of(found: Any) -> Certificate | None:
    """What `ssl` says of a verified certificate; None without one."""
    if not found:
        return None
    names = [_plain(kind, value) for kind, value in found.get("subjectAltName", ())[:MAX_NAMES]]
    names = [name for name in names if name]
    if not names:
        pairs = (pair for group in found.get("subject", ()) for pair in group)
        names = [value.lower() for key, value in pairs if key == "commonName"]
    return Certificate(tuple(dict.fromkeys(names)))


def _plain(kind: str, value: str) -> str:
    """A subjectAltName as it is compared; empty for what is none of a SIP peer's."""
    value = value.lower()
    if kind == "DNS":
        return value.rstrip(".")
    if kind == "IP Address":
        return _address(value)
    scheme, _, rest = value.partition(":")
    # RFC 5922 section 7.1: a URI with a user is not the identity of a domain.
    return rest.partition(";")[0] if kind == "URI" and scheme in ("sip", "sips") and "@" not in rest else ""


def _address(text: str) -> str:
    try:
        return str(ip_address(text.strip()))
    except ValueError:
        return text


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _strict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


def _trust(context: ssl.SSLContext, path: str, setting: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"the certificates in {path} cannot be used: {_reason(error)}; see {setting}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no PEM of that kind").lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)


def _no_password() -> str:
    """Nobody is there to ask. Raises ValueError."""
    raise ValueError("the key needs a password")


def _stamp(path: str) -> tuple[int, int, int]:
    """What changes when a file does."""
    try:
        found = os.stat(path) if path else None
    except OSError:
        return 0, 0, 0
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found else (0, 0, 0)
