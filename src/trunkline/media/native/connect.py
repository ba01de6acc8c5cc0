"""Connecting UDP sockets, so that the kernel takes datagrams of one source only, and letting go of it again.

Python's own `connect` knows no AF_UNSPEC, which undoes it (connect(2)).
"""

import ctypes
import socket
from typing import Final

_UNSPECIFIED: Final = bytes(16)
"""A socket address of AF_UNSPEC (0)."""
_connect: Final = ctypes.CDLL(None, use_errno=True).connect
_connect.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
_connect.restype = ctypes.c_int


def connect(fd: int, address: bytes) -> bool:
    """Connect the socket to a system's socket address, or to nobody if it is empty; whether that was done.

    What lies in the socket already stays. Sending to other addresses goes on as before."""
    raw = address or _UNSPECIFIED
    done: int = _connect(fd, raw, len(raw))
    return done == 0


def is_connected(sock: socket.socket) -> bool:
    """Whether a socket has a peer."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
