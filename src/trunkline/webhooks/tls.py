"""TLS for webhooks: contexts, and the name check that is left to us when no SNI is sent."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from trunkline.webhooks.failures import CERTIFICATE_DOMAIN

__all__ = ["CERTIFICATE_DOMAIN", "context", "matches"]


@lru_cache(maxsize=16)
def context(verify: bool, sni: bool, ca_data: str | None) -> ssl.SSLContext:
    """A client context: TLS 1.2 or later, HTTP/1.1, the system's certificates and `ca_data` (PEM).

    Without SNI OpenSSL is not told the name, so it cannot check it: the caller does (`matches`).
    """
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    if ca_data:
        made.load_verify_locations(cadata=ca_data)
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif not sni:
        made.check_hostname = False
    return made


def matches(certificate: Mapping[str, Any], host: str) -> bool:
    """Whether a verified certificate (as `SSLSocket.getpeercert` gives it) is for the host (RFC 9525 section 6)."""
    names: Iterable[tuple[str, str]] = certificate.get("subjectAltName", ())
    try:
        address = ip_address(host)
    except ValueError:
        wanted = host.lower().removesuffix(".")
        return any(kind == "DNS" and _same_name(name.lower(), wanted) for kind, name in names)
    return any(kind == "IP Address" and _same_address(name, str(address)) for kind, name in names)


def _same_name(pattern: str, host: str) -> bool:
    """A wildcard stands for the whole left-most label only."""
    if pattern.startswith("*."):
        return "." in host and pattern.count(".") >= 2 and host.partition(".")[2] == pattern[2:]
    return pattern == host


def _same_address(name: str, address: str) -> bool:
    try:
        return str(ip_address(name.strip())) == address
    except ValueError:
        return False
