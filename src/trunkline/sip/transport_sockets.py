"""Sockets to listen on, and addresses as sockets show them."""

import socket
from ipaddress import IPv6Address, ip_address
from typing import Final

RECEIVE_BUFFER_BYTES: Final = 8 * 1024 * 1024  # of the UDP socket
BIND_ATTEMPTS: Final = 20  # to find a port that is free for both UDP and TCP
BACKLOG: Final = 1024  # connections not yet accepted
V4_IN_V6: Final = "::ffff:"
_SO_RCVBUFFORCE: Final = 33


def bind(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on one port; 0: any that is free. Raises OSError."""
    family = socket.getaddrinfo(host or None, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)[0][0]
    for attempt in range(BIND_ATTEMPTS):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.bind((host, port))
            tcp.bind((host, udp.getsockname()[1]))
            tcp.listen(BACKLOG)
        except OSError:
            udp.close()
            tcp.close()
            if port or attempt == BIND_ATTEMPTS - 1:
                raise
            continue
        _widen(udp)
        return udp, tcp
    raise OSError("no port is free for UDP and TCP")


def bind_tls(host: str, port: int) -> socket.socket:
    """A listening socket for TLS; 0: any port. Raises OSError."""
    family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    tls = socket.socket(family, socket.SOCK_STREAM)
    try:
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tls.bind((host, port))
        tls.listen(BACKLOG)
    except OSError:
        tls.close()
        raise
    return tls


def _widen(udp: socket.socket) -> None:
    """Let a burst wait in the kernel; without the privilege as much as it allows."""
    for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
        try:
            udp.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BUFFER_BYTES)
        except OSError:
            continue
        return


def plain_host(host: str) -> str:
    """An IPv4 address as itself, also where an IPv6 socket shows it."""
    return host[len(V4_IN_V6) :] if host.startswith(V4_IN_V6) and "." in host else host


def network_of(host: str) -> str:
    """What one host has: an IPv4 address itself, the first 64 bits of an IPv6 address."""
    try:
        return host if ":" not in host else str(int(IPv6Address(host.partition("%")[0])) >> 64)
    except ValueError:
        return host


def connecting_from(host: str, remote: str) -> tuple[str, int] | None:
    """Where a connection to `remote` comes from, of one who listens on `host`: peers know him by that address. None: it
    is for the system to say, because he listens everywhere, or because nobody there is reached from that address."""
    try:
        ours, theirs = ip_address(host.strip("[]")), ip_address(remote.partition("%")[0].strip("[]"))
    except ValueError:
        return None
    if ours.is_unspecified or ours.version != theirs.version or ours.is_loopback != theirs.is_loopback:
        return None
    return str(ours), 0


def source_towards(host: str) -> str:
    """The address that the system sends from to `host`; nothing is sent. Peers say what that is: it need not be a name
    that could be asked for (a zero byte in it is a TypeError, a label that is too long a ValueError)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host or "192.0.2.1", 9))
            return str(probe.getsockname()[0])
    except (OSError, TypeError, ValueError):
        return "::1" if family == socket.AF_INET6 else "127.0.0.1"
