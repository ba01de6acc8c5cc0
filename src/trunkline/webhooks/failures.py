"""Why a webhook request failed: one exception a cause, each with its code in Twilio's dictionary.

`code` is what the customer finds in his log; `retry` names the class of the retry policy (`rp=` of the
connection overrides) that covers it, empty when a retry cannot help.
"""

from __future__ import annotations

import ssl
from typing import ClassVar, Final

from trunkline.webhooks.overrides import RETRY_CONNECT, RETRY_READ

HTTP_RETRIEVAL_FAILURE: Final = 11200
CERTIFICATE_DOMAIN: Final = 11235
CERTIFICATE_EXPIRED: Final = 11236
CERTIFICATE_PATH: Final = 11237

# X509_V_ERR_* of OpenSSL -> code.
_VERIFY_CODES: Final = {10: CERTIFICATE_EXPIRED, 9: CERTIFICATE_EXPIRED, 62: CERTIFICATE_DOMAIN, 64: CERTIFICATE_DOMAIN}


class Failure(Exception):
    """No usable response. `str()` is a sentence for the customer, without secrets."""

    kind: ClassVar[str] = "failed"
    retry: ClassVar[str] = ""
    code: int = HTTP_RETRIEVAL_FAILURE


class InvalidUrl(Failure):
    """The URL cannot be requested at all."""

    kind = "invalid-url"
    code = 11100


class HostRefused(Failure):
    """The host is an address (or only has addresses) that webhooks may not reach."""

    kind = "host-refused"
    code = 11210


class HostUnknown(Failure):
    """The host name does not resolve, or not in time."""

    kind = "host-unknown"
    retry = RETRY_CONNECT
    code = 11210


class ConnectTimeout(Failure):
    """No connection (TLS included) within the connect timeout."""

    kind = "connect-timeout"
    retry = RETRY_CONNECT
    code = 11205


class ConnectionFailed(Failure):
    """Refused, unreachable, or closed before the first byte of a response."""

    kind = "connection-failed"
    retry = RETRY_CONNECT
    code = 11205


class TlsFailed(Failure):
    """The TLS handshake failed; `code` tells a bad certificate (11235, 11236, 11237) from the rest (11220)."""

    kind = "tls-failed"
    retry = RETRY_CONNECT
    code = 11220


class ReadTimeout(Failure):
    """The peer was silent for the read timeout."""

    kind = "read-timeout"
    retry = RETRY_READ


class TotalTimeout(Failure):
    """The total time was used up, waiting for a free connection included."""

    kind = "total-timeout"


class ProtocolError(Failure):
    """What came back is not HTTP/1.1, or ended in the middle."""

    kind = "protocol-error"
    code = 11206


class BodyTooLarge(Failure):
    """The response is longer than the caller takes, before or after decompression."""

    kind = "body-too-large"
    code = 11750


class TooManyRedirects(Failure):
    """Redirected more often than allowed."""

    kind = "too-many-redirects"
    code = 11215


class Saturated(Failure):
    """Too many requests wait for a connection already; nothing was sent."""

    kind = "saturated"
    retry = RETRY_CONNECT
    code = 12400


class Closed(Failure):
    """The client is closing; nothing is known of the response."""

    kind = "closed"
    code = 12400


def tls_failure(error: ssl.SSLError) -> TlsFailed:
    """The failure of a handshake, with the certificate's problem where it has one."""
    if isinstance(error, ssl.SSLCertVerificationError):
        failure = TlsFailed(f"certificate not accepted: {error.verify_message}")
        failure.code = _VERIFY_CODES.get(error.verify_code, CERTIFICATE_PATH)
        return failure
    return TlsFailed(f"TLS handshake failed: {error.reason or 'connection closed'}")
