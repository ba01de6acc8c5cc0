"""Every bound of the REST API, with its unit."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Limits of one API listener; the defaults suit production."""

    body_bytes: int = 256 * 1024
    """Largest request body (20413). A message with ten media URLs takes about 20 KiB."""
    body_seconds: float = 30.0
    """Longest wait for a whole request body (408)."""
    held_body_bytes: int = 512 * 1024 * 1024
    """Request bodies in memory at once, all connections together; above it 503 with Retry-After."""
    requests_per_second: float = 0.0
    """Requests a second of one account before 20429; 0: no limit."""
    fields: int = 256
    """Most fields of a form or a query (20422)."""
    path_bytes: int = 4096
    """Longest path (414)."""
    query_bytes: int = 16 * 1024
    """Longest query string (414)."""
    host_cache: int = 1024
    """Host names whose product is remembered."""
    credential_cache: int = 8192
    """Verified credentials that are remembered."""
    authorization_bytes: int = 1024
    """Longest Authorization header that is looked at (401)."""
    failed_logins: int = 60
    """Failed logins that one source may make per window, then 20429 until the window ends."""
    failed_login_window_seconds: float = 60.0
    failed_login_sources: int = 10_000
    """Sources that are watched at once; the oldest is forgotten first."""
    idempotency_key_chars: int = 255
    idempotency_retention_ms: int = 24 * 3600 * 1000
    """How long a response is replayed."""
    idempotency_lease_ms: int = 60_000
    """How long a request may run before another with its key takes over."""
    idempotency_wait_ms: int = 2_000
    """How long a second request waits for the first before it gets 409."""
    idempotency_poll_ms: int = 50
